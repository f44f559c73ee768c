"""Two writers of one status: refused at start if both are certain to write it, else damped and reported."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey, PatchType
from pilothouse.playbook import Play, Playbook, Watch, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.testing import ModelApi
from tests.unit.operators import manager_of, operating
from tests.unit.playbook.airline import TicketPlay
from tests.unit.playbook.configured import ready
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

READY = {"type": "Ready", "reason": "Mine", "message": "mine", "observedGeneration": 1}
READY |= {"status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}


@pytest.fixture
def api() -> ModelApi:
    return ModelApi(field_manager="tickets")


def noting(phase: str, **options: Any) -> Watch:
    @task("it is noted")
    async def note(play: TicketPlay) -> None:
        play.status = replace(play.status, phase=phase)
        play.ready_message = f"{phase} is done"

    return Watch(TICKET, Playbook(Play, tasks=[note]), name=phase, **options)


@task("it is clean")
async def clean(play: TicketPlay) -> None:
    """Does nothing."""


def status_writes(api: ModelApi) -> int:
    return len([call for call in api.writes if call.subresource == "status"])


def events(api: ModelApi) -> list[tuple[str, str]]:
    return [(each["reason"], each["note"]) for each in api.all(EVENT)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {}),
        ({}, {"selector": "color=red"}),
        ({"selector": "color=red"}, {"selector": "color=red"}),
        ({"selector": "color=red"}, {"selector": "color in (red,blue)"}),
        ({"selector": "color=red"}, {"selector": "size=big"}),
        ({"selector": "color!=red"}, {"selector": "!color"}),
        ({"selector": "cores>4"}, {"selector": "cores<6"}),
        ({"namespaces": ["a", "b"]}, {"namespaces": ["b"]}),
        ({"namespaces": ["a"]}, {"field_selector": "metadata.name=web"}),
    ],
)
async def test_two_watches_that_write_the_status_of_the_same_objects_are_refused(
    api: ModelApi, one: dict[str, Any], other: dict[str, Any]
) -> None:
    with pytest.raises(
        PlaybookError, match=r"'one' and 'two' of tickets.tests.dev may select the same objects and"
    ):
        manager_of(api, noting("one", **one), noting("two", **other))
    manager_of(api, noting("one", **one), noting("two", **other, writes_status=False))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"selector": "color=red"}, {"selector": "color!=red"}),
        ({"selector": "color=red"}, {"selector": "size=big,color in (green,blue)"}),
        ({"selector": "color in (red,green),color!=red"}, {"selector": "color notin (green)"}),
        ({"selector": "color"}, {"selector": "!color"}),
        ({"selector": "cores>4"}, {"selector": "cores<5"}),
        ({"selector": "cores=4"}, {"selector": "cores>4"}),
        ({"field_selector": "metadata.name=a"}, {"field_selector": "metadata.name=b"}),
        ({"namespaces": ["a"]}, {"namespaces": ["b"]}),
    ],
)
async def test_two_watches_that_select_different_objects_are_accepted(
    api: ModelApi, one: dict[str, Any], other: dict[str, Any]
) -> None:
    manager_of(api, noting("one", **one), noting("two", **other))
    manager_of(api, cleaning("one", **one), cleaning("two", ["tests.dev/one"], **other))


def cleaning(name: str, retired: Sequence[str] = (), **options: Any) -> Watch:
    book: Playbook[Any] = Playbook(
        Play, tasks=[], cleanup=[clean], finalizer=f"tests.dev/{name}", retired_finalizers=retired
    )
    return Watch(TICKET, book, name=name, writes_status=False, **options)


@pytest.mark.parametrize("other", ["", "color=red", "color in (red,blue)", "size=big", "color!=blue"])
async def test_one_finalizer_in_watches_that_may_select_one_object_is_refused(
    api: ModelApi, other: str
) -> None:
    with pytest.raises(PlaybookError, match=r"have the same finalizer tests\.dev/one"):
        manager_of(
            api, cleaning("one", selector="color=red"), cleaning("two", ["tests.dev/one"], selector=other)
        )


async def test_two_watches_with_one_finalizer_are_refused(api: ModelApi) -> None:
    manager_of(api, cleaning("one"), cleaning("two"))
    with pytest.raises(PlaybookError, match=r"have the same finalizer tests\.dev/one"):
        manager_of(api, cleaning("one"), cleaning("two", ["tests.dev/one"]))


async def test_two_installations_that_write_the_status_of_one_object_are_damped_and_reported(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    api.put(TICKET, "web")
    async with operating(api, noting("one")), operating(api, noting("two")):
        await asyncio.sleep(60)
        assert status_writes(api) < 40
        before = status_writes(api)
        await asyncio.sleep(3600)
        assert status_writes(api) - before < 60, "a write a minute in the long run"
        assert {reason for reason, _ in events(api)} == {"StatusContended"}
        assert "status.conditions, status.phase of Ticket default/web" in events(api)[0][1]
        whose = "Another watch or task of this operator, a second installation of it, or a user who edits"
        assert whose in events(api)[0][1]
        assert "Another client" not in events(api)[0][1]
        warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert len(warnings) < 40, "at a limited rate"


async def rival(api: ModelApi, *, every: float, fast: bool = False) -> None:
    """Writes Ready=False whenever it has another value."""
    key = ObjectKey("default", "web")
    ends = asyncio.get_running_loop().time() + 600
    while asyncio.get_running_loop().time() < ends:
        await asyncio.sleep(every)
        conditions = api.read(TICKET, key).get("status", {}).get("conditions", [])
        if fast or [each["reason"] for each in conditions] != ["Mine"]:
            body = {"status": {"conditions": [READY], "booking": str(len(api.calls)) if fast else ""}}
            await api.patch(
                TICKET, key, body, type=PatchType.MERGE, subresource="status", field_manager="rival"
            )


@pytest.mark.parametrize("fast", [False, True])
async def test_a_foreign_controller_that_fights_for_the_status_is_damped_and_named(
    api: ModelApi, fast: bool
) -> None:
    api.put(TICKET, "web")
    async with operating(api, noting("one")):
        await rival(api, every=1.0 if fast else 0.5, fast=fast)
        ours = [call for call in api.writes if call.subresource == "status" and "Mine" not in str(call.body)]
        assert 3 < len(ours) < 20
        assert events(api)[0][0] == "StatusContended"
        assert "The field manager rival keeps changing status." in events(api)[0][1]
        await asyncio.sleep(900)
        assert ready(api, ObjectKey("default", "web"))[0] == "True", "it converges when the rival is gone"
        api.calls.clear()
        await asyncio.sleep(900)
        assert status_writes(api) == 0


async def test_a_condition_of_another_controller_is_kept_and_causes_no_fight(api: ModelApi) -> None:
    key = api.put(TICKET, "web")
    async with operating(api, noting("one")):
        for number in range(50):
            status = api.read(TICKET, key)["status"]
            others = [each for each in status["conditions"] if each["type"] == "Ready"]
            audited = {**READY, "type": "Audited", "message": str(number), "severity": "no"}
            api.put(TICKET, "web", status={**status, "conditions": [audited, *others]})
            await asyncio.sleep(0.1)
        assert status_writes(api) == 1
        api.put(TICKET, "web", spec={"seats": 3})
        await asyncio.sleep(1)
        found = api.read(TICKET, key)["status"]["conditions"]
        assert [each["type"] for each in found] == ["Audited", "Ready"]
        assert found[0]["severity"] == "no", "with the fields that no view names"
        assert events(api) == []


async def test_a_status_that_a_user_changes_once_is_restored_immediately(api: ModelApi) -> None:
    key = api.put(TICKET, "web")
    async with operating(api, noting("one")):
        api.put(TICKET, "web", status={**api.read(TICKET, key)["status"], "phase": "wrong"})
        await asyncio.sleep(0.1)
        assert api.read(TICKET, key)["status"]["phase"] == "one"
        assert events(api) == []


async def fight(api: ModelApi, seconds: float, field: str) -> int:
    """Overwrites the phase or the condition Ready whenever the operator has written it; returns how often."""
    key, loop = ObjectKey("default", "web"), asyncio.get_running_loop()
    ends, times = loop.time() + seconds, 0
    theirs = {"phase": "theirs"} if field == "phase" else {"conditions": [READY]}
    while loop.time() < ends:
        await asyncio.sleep(0.0125)
        status = api.read(TICKET, key).get("status", {})
        if any(status.get(name) != value for name, value in theirs.items()):
            times += 1
            await api.patch(
                TICKET,
                key,
                {"status": theirs},
                type=PatchType.MERGE,
                subresource="status",
                field_manager="rival",
            )
    return times


@pytest.mark.parametrize("field", ["phase", "conditions"])
@pytest.mark.parametrize("how", ["status", "record", "paused"])
async def test_a_fight_over_a_status_that_differs_in_every_reconcile_is_damped_and_reported(
    api: ModelApi, field: str, how: str
) -> None:
    count = 0

    @task("it is counted")
    async def counted(play: TicketPlay) -> None:
        nonlocal count
        count += 1
        status = replace(play.status, phase=f"seen {count} times")
        play.ready_message = f"Seen {count} times."
        if how == "record":
            await play.record(status)
        play.status = status

    annotations = {"pilothouse.dev/paused": "true"} if how == "paused" else {}
    api.put(TICKET, "web", metadata={"annotations": annotations})
    async with operating(api, Watch(TICKET, [counted])):
        assert await fight(api, 600, field) < 40
    if (field, how) != ("phase", "paused"):
        assert {reason for reason, _ in events(api)} == {"StatusContended"}


async def test_the_rest_of_a_contested_status_is_written_during_a_fight(api: ModelApi) -> None:
    @task("it progresses")
    async def progress(play: TicketPlay) -> None:
        play.status = replace(play.status, phase=f"{asyncio.get_running_loop().time():.0f}")
        play.requeue_after(1)

    api.put(TICKET, "web")
    key, loop = ObjectKey("default", "web"), asyncio.get_running_loop()
    async with operating(api, Watch(TICKET, [progress])):
        fighting = asyncio.create_task(fight(api, 600, "conditions"))
        for _ in range(30):
            await asyncio.sleep(18)
            assert loop.time() - float(api.read(TICKET, key)["status"]["phase"]) < 3
        assert await fighting < 40


async def test_the_result_for_a_changed_spec_is_written_immediately_during_a_fight(api: ModelApi) -> None:
    key = api.put(TICKET, "web", spec={"seats": 2})
    async with operating(api, noting("one")):
        fighting = asyncio.create_task(fight(api, 600, "conditions"))
        await asyncio.sleep(500)
        api.calls.clear()
        await api.another_client("user").patch(TICKET, key, {"spec": {"seats": 3}}, type=PatchType.MERGE)
        await asyncio.sleep(0.01)
        ours = [call for call in api.writes if call.subresource == "status" and "Mine" not in str(call.body)]
        assert [call.body["status"]["observedGeneration"] for call in ours] == [2]
        await fighting
