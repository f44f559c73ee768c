"""The example and the diagram in docs/howto are what they say."""

import re
import runpy
from pathlib import Path

import pytest

from flights_operator.__main__ import NAME, PLACEHOLDERS, watches
from pilothouse.controller import Settings
from pilothouse.playbook import main
from pilothouse.playbook.by_hand import Hand
from pilothouse.playbook.explain import as_text
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP

HOWTO = Path(__file__).parents[3] / "docs" / "howto"


@pytest.mark.usefixtures("virtual_time")
async def test_the_example_is_explained_and_played(api: ModelApi, tmp_path: Path) -> None:
    [source] = re.findall(r"```python\n(.*?)```", (HOWTO / "write-a-task.md").read_text(), re.DOTALL)
    module = tmp_path / "greeter.py"
    module.write_text(source)
    example = runpy.run_path(str(module))
    watch, greeter = example["WATCH"], example["GREETER"]

    told = as_text(watch)
    assert "2. storage (at the same time)\n    2.1. the greeting is stored" in told
    assert "3. upgrade (a plan, when another version is asked for, in order)" in told
    assert (
        "handlers, once at the end, when a task that notifies them changed something\n  1. readers are told"
        in told
    )

    key = api.put(greeter, "g", spec={"greeting": "Hello"})
    settings = Settings(leader_elect=True, pod_namespace="operators", pod_name="p")
    played = await Hand("greeters", settings, api).play(watch, key)
    assert [str(result.state) for result in played.recap.results] == ["ok", "changed", "changed", "ok"]
    assert [each["data"] for each in api.all(CONFIG_MAP)] == [{"greeting": "Hello"}]
    assert played.status["version"] == 1


def test_the_diagram_of_flight_tickets_is_the_present_one(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "FlightTicket", "--format", "mermaid"]
    assert main(NAME, watches, command, variables={}, placeholders=PLACEHOLDERS) == 0
    [drawn] = re.findall(r"```mermaid\n(.*?)```", (HOWTO / "play-by-hand.md").read_text(), re.DOTALL)
    assert drawn == capsys.readouterr().out, "put what ./inv explain prints into docs/howto/play-by-hand.md"
