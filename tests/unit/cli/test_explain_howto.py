"""The example and the diagram in docs/howto match the code."""

import asyncio
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flights_operator.__main__ import NAME, PLACEHOLDERS, watches
from pilothouse.cli import main
from pilothouse.cli.by_hand import Hand
from pilothouse.cli.explain import as_text
from pilothouse.kube import Cause, ObjectKey
from pilothouse.playbook import Play, Playbook, Watch, task
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.configured import CONFIG_MAP, SECRET

HOWTO = Path(__file__).parents[3] / "docs" / "howto"
# The later pages continue the example of the first one.
PAGES = ("write-a-task.md", "plans-and-waits.md", "watch-objects.md")


SETTINGS = Settings(leader_elect=True, pod_namespace="operators", pod_name="p")


@pytest.fixture
def example(tmp_path: Path) -> dict[str, Any]:
    """The Python blocks of the pages, joined to one module."""
    text = "".join((HOWTO / page).read_text() for page in PAGES)
    pieces = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    module = tmp_path / "greeter.py"
    module.write_text("\n\n".join(pieces))
    return runpy.run_path(str(module))


@pytest.mark.usefixtures("virtual_time")
async def test_explain_prints_the_example_and_a_play_runs_it(api: ModelApi, example: dict[str, Any]) -> None:
    watch, greeter = example["WATCH"], example["GREETER"].resource

    text = as_text(watch)
    assert "2. storage (at the same time)\n    2.1. the greeting is stored" in text
    assert "3. upgrade (a plan, when the version changes, in order)" in text
    assert (
        "handlers, each once at the end if a task that notifies it has changed something\n"
        "  1. readers are notified" in text
    )

    key = api.put(greeter, "g", spec={"greeting": "Hello"})
    played = await Hand("greeters", SETTINGS, api).play(watch, key)
    assert [str(result.state) for result in played.recap.results] == ["ok", "changed", "changed", "ok"]
    assert [each["data"] for each in api.all(CONFIG_MAP)] == [{"greeting": "Hello"}]
    assert played.status["version"] == 1


def ready(api: ModelApi, greeter: Any, key: ObjectKey) -> tuple[str, str]:
    [condition] = api.read(greeter, key)["status"]["conditions"]
    return condition["status"], condition["reason"]


@pytest.mark.usefixtures("virtual_time")
async def test_the_plans_behave_as_the_page_describes(api: ModelApi, example: dict[str, Any]) -> None:
    greeter = example["GREETER"].resource
    key = api.put(greeter, "g", spec={"greeting": "Hello", "version": 1})
    data = ObjectKey("default", "data")

    def annotations() -> dict[str, str]:
        found: dict[str, str] = api.read(greeter, key)["metadata"]["annotations"]
        return found

    async with operating(api, example["UPGRADED"], name="greeters"):
        # The backup waits, and does not block the upgrade.
        assert api.read(CONFIG_MAP, data)["data"] == {"version": "1"}
        assert ready(api, greeter, key) == ("False", "Waiting")
        assert re.fullmatch("InProgress-[0-9a-f]{16}", annotations()["plan.pilothouse.dev/greeters.backup"])
        assert re.fullmatch("[0-9a-f]{16}", annotations()["plan.pilothouse.dev/greeters.upgrade"])
        await asyncio.sleep(600)
        assert ready(api, greeter, key) == ("False", "WaitTimedOut")
        api.put(CONFIG_MAP, "backup")
        await asyncio.sleep(1000)
        assert ready(api, greeter, key) == ("True", "Reconciled")
        # The object of a task after the plan is restored. An object that the finished plan applied is not.
        api.remove(CONFIG_MAP, data)
        api.remove(CONFIG_MAP, ObjectKey("default", "readers"))
        await asyncio.sleep(1)
        assert {each["metadata"]["name"] for each in api.all(CONFIG_MAP)} == {"backup", "data"}


@pytest.mark.usefixtures("virtual_time")
async def test_a_routine_wait_keeps_ready_true(api: ModelApi, example: dict[str, Any]) -> None:
    greeter = example["GREETER"].resource
    key = api.put(greeter, "g", spec={})
    watch = Watch(greeter, tasks=[example["check_hourly"]], owns=[CONFIG_MAP])
    async with operating(api, watch, name="greeters"):
        assert ready(api, greeter, key) == ("True", "Reconciled")
        assert api.exists(CONFIG_MAP, ObjectKey("default", "checked"))


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("name", ["REFERRING", "TWO_STEPS"])
async def test_a_greeter_is_reconciled_when_its_secret_changes(
    api: ModelApi, example: dict[str, Any], name: str
) -> None:
    runs: list[str] = []

    @task("noted")
    async def note(play: Any) -> None:
        runs.append(play.object.metadata.name)

    api.put(example["GREETER"].resource, "g", spec={"greeting": "one"})
    api.put(example["GREETER"].resource, "other", spec={"greeting": "two"})
    api.put(CONFIG_MAP, "g", data={"secret": "one"})
    async with operating(api, replace(example[name], tasks=[note], resync=0), name="greeters"):
        runs.clear()
        api.put(SECRET, "one")
        await asyncio.sleep(1)
        assert runs == ["g"]


@pytest.mark.usefixtures("virtual_time")
async def test_the_task_carries_out_the_decisions(api: ModelApi, example: dict[str, Any]) -> None:
    example["test_every_observation_leads_to_the_desired_version"]()
    greeter, data = example["GREETER"].resource, example["DATA"]
    watch = Watch(greeter, Playbook(Play, tasks=[example["settle_data"]]))
    key = api.put(greeter, "g", spec={"version": 4})
    uid = api.read(greeter, key)["metadata"]["uid"]

    hand = Hand("greeters", SETTINGS, api)

    for stored, after in ((None, 4), (2, 4), (9, 9)):
        data.clear()
        data.update({} if stored is None else {uid: stored})
        before = dict(data)
        expected = "ok" if stored == after else "changed"
        [checked] = (await hand.check(watch, key)).recap.results
        assert (str(checked.state), data) == (expected, before)
        [done] = (await hand.play(watch, key)).recap.results
        assert (str(done.state), data) == (expected, {uid: after})


def test_the_diagram_of_flight_tickets_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["explain", "FlightTicket", "--format", "mermaid"]
    assert main(NAME, watches, command, variables={}, placeholders=PLACEHOLDERS) == 0
    [drawn] = re.findall(r"```mermaid\n(.*?)```", (HOWTO / "play-by-hand.md").read_text(), re.DOTALL)
    assert drawn == capsys.readouterr().out, (
        "copy the output of ./inv explain into docs/howto/play-by-hand.md"
    )


@pytest.mark.usefixtures("virtual_time")
async def test_a_claimed_object_is_created_and_patched(api: ModelApi, example: dict[str, Any]) -> None:
    greeter = example["GREETER"].resource
    watch = Watch(greeter, Playbook(Play, tasks=[example["make_volume"]]), owns=[CONFIG_MAP])
    key = api.put(greeter, "g", spec={"version": 4})
    for _ in range(2):
        played = await Hand("greeters", SETTINGS, api).play(watch, key)
        assert played.recap.failure is None
    [made] = api.all(CONFIG_MAP)
    assert made["metadata"]["name"] == "g-4"
    assert made["metadata"]["labels"] == {"app": "greeter"}
    assert not played.changes


@pytest.mark.usefixtures("virtual_time")
async def test_a_pod_that_cannot_change_is_replaced(api: ModelApi, example: dict[str, Any]) -> None:
    def refuse(resource: Any, new: Any, old: Any) -> list[Cause]:
        late = resource.kind == "Pod" and old is not None and new["spec"] != old["spec"]
        return [Cause("spec.nodeName", "Forbidden: field is immutable")] if late else []

    manifest = {"spec": {"nodeName": "a", "containers": []}}

    @task("the pod runs")
    async def run(play: Any) -> None:
        await example["keep_pod"](play, manifest)

    greeter, pod = example["GREETER"].resource, example["POD"]
    watch = Watch(greeter, Playbook(Play, tasks=[run]), owns=[pod])
    key = api.put(greeter, "g")
    api.server.validate = refuse
    await Hand("greeters", SETTINGS, api).play(watch, key)
    manifest = {"spec": {"nodeName": "b", "containers": []}}
    for _ in range(2):
        await Hand("greeters", SETTINGS, api).play(watch, key)
    assert [each["spec"]["nodeName"] for each in api.all(pod)] == ["b"]
