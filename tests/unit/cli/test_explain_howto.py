"""The example and the diagram in docs/howto are what they say."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from flights_operator.__main__ import NAME, PLACEHOLDERS, watches
from pilothouse.cli import main
from pilothouse.cli.by_hand import Hand
from pilothouse.cli.explain import as_text
from pilothouse.playbook import Play, Playbook, Watch
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP

HOWTO = Path(__file__).parents[3] / "docs" / "howto"


SETTINGS = Settings(leader_elect=True, pod_namespace="operators", pod_name="p")


@pytest.fixture
def example(tmp_path: Path) -> dict[str, Any]:
    """What write-a-task.md shows, piece after piece, as one module."""
    pieces = re.findall(r"```python\n(.*?)```", (HOWTO / "write-a-task.md").read_text(), re.DOTALL)
    module = tmp_path / "greeter.py"
    module.write_text("\n\n".join(pieces))
    return runpy.run_path(str(module))


@pytest.mark.usefixtures("virtual_time")
async def test_the_example_is_explained_and_played(api: ModelApi, example: dict[str, Any]) -> None:
    watch, greeter = example["WATCH"], example["GREETER"]

    told = as_text(watch)
    assert "2. storage (at the same time)\n    2.1. the greeting is stored" in told
    assert "3. upgrade (a plan, when another version is asked for, in order)" in told
    assert (
        "handlers, once at the end, when a task that notifies them changed something\n  1. readers are told"
        in told
    )

    key = api.put(greeter, "g", spec={"greeting": "Hello"})
    played = await Hand("greeters", SETTINGS, api).play(watch, key)
    assert [str(result.state) for result in played.recap.results] == ["ok", "changed", "changed", "ok"]
    assert [each["data"] for each in api.all(CONFIG_MAP)] == [{"greeting": "Hello"}]
    assert played.status["version"] == 1


@pytest.mark.usefixtures("virtual_time")
async def test_what_is_decided_is_carried_out(api: ModelApi, example: dict[str, Any]) -> None:
    example["test_each_observation_is_led_towards_what_is_asked"]()
    greeter, data = example["GREETER"], example["DATA"]
    watch = Watch(greeter, Playbook(Play, tasks=[example["settle_data"]]))
    key = api.put(greeter, "g", spec={"version": 4})
    uid = api.read(greeter, key)["metadata"]["uid"]

    hand = Hand("greeters", SETTINGS, api)

    for stored, after in ((None, 4), (2, 4), (9, 9)):
        data.clear()
        data.update({} if stored is None else {uid: stored})
        before = dict(data)
        expected = "ok" if stored == after else "changed"
        [told] = (await hand.check(watch, key)).recap.results
        assert (str(told.state), data) == (expected, before)
        [done] = (await hand.play(watch, key)).recap.results
        assert (str(done.state), data) == (expected, {uid: after})


def test_the_diagram_of_flight_tickets_is_the_present_one(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "FlightTicket", "--format", "mermaid"]
    assert main(NAME, watches, command, variables={}, placeholders=PLACEHOLDERS) == 0
    [drawn] = re.findall(r"```mermaid\n(.*?)```", (HOWTO / "play-by-hand.md").read_text(), re.DOTALL)
    assert drawn == capsys.readouterr().out, "put what ./inv explain prints into docs/howto/play-by-hand.md"
