"""Writes that another client undoes again and again are made with growing pauses, and reported."""

import asyncio
import logging
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pilothouse.controller import Written
from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey, ObjectMeta, PartialObjectMetadata, PatchType, Resource
from pilothouse.playbook import Plan, Play, Playbook, TaskFailed, task
from pilothouse.playbook.changes import wanted
from pilothouse.playbook.pace import Pace
from pilothouse.playbook.repeated import opposed
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    OWNS,
    Function,
    TicketPlay,
    operator,
    owned_by,
    playbook,
)
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

METADATA = Resource("tests.dev", "v1", "Ticket", "tickets", PartialObjectMetadata)
WEB = ObjectKey("default", "web")


class Pod(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


POD: Resource[Pod] = Resource("", "v1", "Pod", "pods", Pod)


@pytest.fixture
def api() -> ModelApi:
    return ModelApi(field_manager="tickets")


def tracked(number: int) -> Ticket:
    return Ticket(
        metadata=ObjectMeta(name=f"t{number}", namespace="default", uid=f"uid-{number}", generation=1)
    )


def reports(api: ModelApi) -> list[str]:
    return [each["note"] for each in api.all(EVENT) if each["reason"] == "WritesRepeated"]


@task("nothing")
async def nothing(play: TicketPlay) -> None:
    """Does nothing."""


@task("wait")
async def wait(play: TicketPlay) -> None:
    play.wait_for("the tests have ended", False, within=600)


STRIPPED: dict[str, Playbook[Any]] = {
    "finalizers": Playbook(Play, tasks=[nothing], cleanup=[nothing], finalizer="tests.dev/c"),
    "plan": Playbook(Play, tasks=[Plan("p", [nothing], on_change=lambda play: play.object.spec.seats)]),
    "wait": Playbook(Play, tasks=[wait]),
}


@asynccontextmanager
async def rival(react: Callable[[], bool]) -> AsyncIterator[list[float]]:
    """Undoes a write whenever it is there. Yields the times."""
    loop = asyncio.get_running_loop()
    times: list[float] = []

    async def run() -> None:
        while True:
            await asyncio.sleep(0.0125)
            if react():
                times.append(loop.time())

    running = asyncio.create_task(run())
    try:
        yield times
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def stripping(api: ModelApi, ticket: ObjectKey, field: str) -> Callable[[], bool]:
    other = api.another_client("rival")
    pending: set[asyncio.Task[Any]] = set()

    def react() -> bool:
        if pending or not api.read(TICKET, ticket)["metadata"].get(field):
            return False
        body = {"metadata": {field: None}}
        patching = asyncio.ensure_future(other.patch(METADATA, ticket, body, type=PatchType.MERGE))
        pending.add(patching)
        patching.add_done_callback(pending.discard)
        return True

    return react


@pytest.mark.parametrize("what", STRIPPED)
async def test_a_client_that_strips_the_metadata_of_the_engine_is_damped_and_reported(
    api: ModelApi, ticket: ObjectKey, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    field = "finalizers" if what == "finalizers" else "annotations"
    async with operator(api, STRIPPED[what]), rival(stripping(api, ticket, field)) as times:
        await asyncio.sleep(3600)
        assert len(times) < 80, "about once a minute in the long run: the wait asks for that"
    assert "patch tickets.tests.dev default/my-ticket" in reports(api)[0]
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in warnings if "same writes" in each.getMessage()]) < 15, "at a limited rate"


@pytest.mark.parametrize("verb", ["create", "delete", "evict"])
async def test_a_client_that_undoes_the_write_of_a_task_is_damped_and_reported(
    api: ModelApi, ticket: ObjectKey, verb: str
) -> None:
    kind: Resource[Any] = POD if verb == "evict" else CONFIG_MAP

    async def work(play: TicketPlay) -> None:
        if verb == "evict":
            await play.evict(POD, "web")
        elif verb == "delete":
            await play.delete(CONFIG_MAP, "web")
        elif play.get(CONFIG_MAP, "web") is None:
            await play.create(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"a": "1"}})

    def react() -> bool:
        exists = api.exists(kind, WEB)
        if verb == "create" and exists:
            api.remove(kind, WEB)
        elif verb != "create" and not exists:
            api.put(kind, "web", metadata=owned_by(api, ticket))
        else:
            return False
        return True

    async with operator(api, playbook(work), owns=(*OWNS, POD)), rival(react) as times:
        await asyncio.sleep(3600)
        assert len(times) < 40
    named = {"create": "apply configmaps default/web", "delete": "delete configmaps default/web"}
    write = named.get(verb, "default/pods/web/eviction")
    assert f"{write} by the task 'work'. Another client, or another watch" in reports(api)[0]


async def greet(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"greeting": "Hello", "a": "1"}})


async def greet_politely(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"greeting": "Good day", "a": "1"}})


async def part(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"farewell": "Bye", "a": "1"}})


async def remove(play: TicketPlay) -> None:
    await play.delete(CONFIG_MAP, "web")


async def waver(play: TicketPlay) -> None:
    await greet(play)
    await greet_politely(play)


OPPOSED: dict[str, tuple[list[Function], str]] = {
    "another value": (
        [greet, greet_politely],
        "The tasks 'greet' and 'greet_politely' undo each other's writes of data.greeting of configmaps "
        "default/web. Let only one of them write it.",
    ),
    "other fields": (
        [greet, part],
        "The tasks 'greet' and 'part' undo each other's writes of data.farewell, data.greeting of configmaps "
        "default/web.",
    ),
    "a deletion": (
        [greet, remove],
        "The tasks 'greet' and 'remove' undo each other's writes of configmaps default/web.",
    ),
    "one task": (
        [waver],
        "The task 'waver' undoes its own writes of data.greeting of configmaps default/web. Write one value",
    ),
}


@pytest.mark.parametrize("case", OPPOSED)
async def test_tasks_that_undo_each_others_writes_are_named_with_the_object_and_the_fields(
    api: ModelApi, ticket: ObjectKey, case: str
) -> None:
    tasks, sentence = OPPOSED[case]
    async with operator(api, playbook(*tasks)):
        await asyncio.sleep(3600)
    assert sentence in reports(api)[0]
    assert f"apply configmaps default/web by the task {tasks[0].__name__!r}" in reports(api)[0]
    assert "client" not in reports(api)[0]


def written(task: str, body: object, verb: str = "patch") -> Written:
    return Written(verb, TICKET, WEB, body, task)


async def test_patches_of_different_fields_do_not_undo_each_other() -> None:
    one, other = written("one", {"spec": {"a": 1}}), written("other", {"spec": {"b": 1}})
    assert opposed([one, other, one]) is None
    above = opposed([one, written("above", {"spec": None})])
    assert above is not None
    assert (above.tasks, above.fields) == (["one", "above"], ["spec.a"])
    assert opposed([one, written("", {"spec": {"a": 2}})]) is None, "the engine is no task"


async def test_preconditions_are_no_difference() -> None:
    writes = [
        written(task, {"metadata": {"name": "web", "uid": task}, "data": {"a": "1"}}, "apply")
        for task in ("one", "other")
    ]
    assert opposed(writes) is None


async def test_a_change_of_the_spec_is_reconciled_immediately_during_a_fight(
    api: ModelApi, ticket: ObjectKey
) -> None:
    seen: list[int] = []

    async def work(play: TicketPlay) -> None:
        seen.append(play.object.spec.seats)
        await play.delete(CONFIG_MAP, "web")

    def react() -> bool:
        if api.exists(CONFIG_MAP, WEB):
            return False
        api.put(CONFIG_MAP, "web", metadata=owned_by(api, ticket))
        return True

    async with operator(api, playbook(work)), rival(react):
        await asyncio.sleep(1800)
        assert seen[-1] == 2
        await api.another_client("user").patch(TICKET, ticket, {"spec": {"seats": 3}}, type=PatchType.MERGE)
        await asyncio.sleep(0.1)
        assert seen[-1] == 3


@pytest.mark.parametrize(("every", "least"), [(0.1, 60), (1.0, 290)])
async def test_a_status_that_progresses_every_second_is_not_delayed(
    api: ModelApi, ticket: ObjectKey, every: float, least: int
) -> None:
    """50 steps every 0.1 s, and one step every second for 5 minutes: all of them are written."""
    count = 0

    async def progress(play: TicketPlay) -> None:
        nonlocal count
        if every < 1 and count >= 60:
            return
        count += 1
        play.status = replace(play.status, phase=f"{count} %")
        play.requeue_after(every)

    async with operator(api, playbook(progress)):
        await asyncio.sleep(300 if every == 1.0 else 10)
        assert count >= least
    assert reports(api) == []


async def test_a_heartbeat_that_the_task_asks_for_is_not_a_fight(api: ModelApi, ticket: ObjectKey) -> None:
    """The same write every 5 s, because the task asks for it and another client removes it."""

    async def beat(play: TicketPlay) -> None:
        await play.delete(CONFIG_MAP, "web")
        play.requeue_after(5)

    async with operator(api, playbook(beat)):
        for _ in range(100):
            await asyncio.sleep(4.9)
            before = len(api.writes)
            await asyncio.sleep(0.1)
            assert len(api.writes) >= before
    assert reports(api) == []


async def test_different_writes_at_full_speed_are_limited_to_one_a_second(
    api: ModelApi, ticket: ObjectKey
) -> None:
    """A task creates a ConfigMap with a new value whenever another client has deleted it."""
    count = 0

    async def work(play: TicketPlay) -> None:
        nonlocal count
        if play.get(CONFIG_MAP, "web") is None:
            count += 1
            await play.create(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"count": str(count)}})

    def react() -> bool:
        if not api.exists(CONFIG_MAP, WEB):
            return False
        api.remove(CONFIG_MAP, WEB)
        return True

    async with operator(api, playbook(work)), rival(react):
        await asyncio.sleep(60)
        assert count < 170
    assert "in more than 100 reconciles" in reports(api)[0]
    assert "now reconciles the object about once a second." in reports(api)[0]


async def test_a_task_that_fails_after_its_write_is_retried_with_the_usual_back_off(
    api: ModelApi, ticket: ObjectKey
) -> None:
    tries: list[float] = []
    loop = asyncio.get_running_loop()

    async def work(play: TicketPlay) -> None:
        tries.append(loop.time())
        await play.record(replace(play.status, phase="tried" if len(tries) % 2 else "failed"))
        raise TaskFailed("Refused", "The airline refuses the ticket.")

    async with operator(api, playbook(work)):
        await asyncio.sleep(600)
    assert len(tries) >= 16
    assert reports(api) == []


async def test_objects_that_are_written_once_take_no_memory_of_their_own() -> None:
    pace = Pace(wanted)
    objects = [tracked(number) for number in range(2000)]
    write = [Written("patch", TICKET, "default/web", {"spec": {}})]
    for obj in objects[:2]:
        pace.note(obj, write, failed=False, asked=float("inf"))
    tracemalloc.start()
    try:
        for obj in objects[2:]:
            pace.note(obj, write, failed=False, asked=float("inf"))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 10_000


async def test_objects_that_are_written_again_soon_are_forgotten_when_they_rest() -> None:
    pace = Pace(wanted)
    write = [Written("patch", TICKET, "default/web", {"spec": {}})]
    objects = [tracked(number) for number in range(200)]
    pace.note(tracked(1000), write, failed=False, asked=float("inf"))
    tracemalloc.start()
    try:
        for obj in objects * 3:
            pace.note(obj, write, failed=False, asked=float("inf"))
        taken, _ = tracemalloc.get_traced_memory()
        await asyncio.sleep(60)
        pace.note(objects[0], write, failed=False, asked=float("inf"))
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken > 100_000
    assert left < taken / 10
