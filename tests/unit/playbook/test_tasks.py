"""Tasks: how they are declared, run and report."""

import asyncio
import math
import threading
from collections.abc import Iterator

import msgspec
import pytest

from pilothouse.controller import Fence, Fenced
from pilothouse.kube import ObjectMeta
from pilothouse.playbook import Play, Playbook, State, TaskFailed, TaskResult, task
from pilothouse.playbook.tasks import RESULT
from pilothouse.telemetry import current_object, object_context
from pilothouse.testing import eventually
from tests.unit.tickets import Ticket, TicketStatus

TicketPlay = Play[Ticket, TicketStatus]


@pytest.fixture
def result() -> Iterator[TaskResult]:
    """The result of the task that the test takes the place of."""
    token = RESULT.set(TaskResult("this"))
    yield RESULT.get()
    RESULT.reset(token)


def play(*, check: bool = False) -> TicketPlay:
    return Play(Ticket(ObjectMeta(name="t", namespace="default", generation=1)), check=check)


async def done() -> str:
    return "done"


async def test_a_plain_function_runs_in_a_thread_with_the_objects_log_context() -> None:
    seen = []

    @task("blocks")
    def blocks(play: TicketPlay) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), str(current_object())))
        play.status = msgspec.structs.replace(play.status, phase="Done")

    one = play()
    with object_context("Ticket", "default", "t"):
        await blocks(one)
    assert seen == [(False, "Ticket default/t")]
    assert one.status.phase == "Done"


async def test_a_blocking_task_does_not_hold_the_loop_up() -> None:
    ends = threading.Event()

    @task("blocks")
    def blocks(play: TicketPlay) -> None:
        assert ends.wait(10), "the event loop was blocked"

    running = asyncio.create_task(blocks(play()))
    await asyncio.sleep(0)
    ends.set()
    await running


async def test_a_plain_function_is_not_begun_behind_a_closed_fence_and_known_while_it_runs() -> None:
    begun, ends = threading.Event(), threading.Event()

    @task("blocks")
    def blocks(play: TicketPlay) -> None:
        begun.set()
        assert ends.wait(10)

    one = play()
    one.fence = Fence(-math.inf)
    with pytest.raises(Fenced):
        await blocks(one)
    assert not begun.is_set()
    one.fence = Fence()
    running = asyncio.create_task(blocks(one))
    assert await asyncio.to_thread(begun.wait, 10)
    one.fence.close()
    with pytest.raises(Fenced):
        await running
    assert len(one.fence.threads) == 1, "it still runs"
    ends.set()
    await eventually(lambda: not one.fence.threads)


async def test_a_task_has_its_name_and_runs_when_called() -> None:
    @task("phase is set")
    async def sets_phase(play: TicketPlay) -> None:
        play.status = msgspec.structs.replace(play.status, phase="Set")

    one = play()
    await sets_phase(one)
    assert sets_phase.name == "phase is set"
    assert one.status.phase == "Set"


async def test_call_runs_the_effect_and_reports_it(result: TaskResult) -> None:
    one = play()
    assert await one.call("book", done, diff="+ booking") == "done"
    assert (result.state, result.message, result.diff) == (State.CHANGED, "book", ("+ booking",))


async def test_call_in_check_mode_only_reports_the_effect(result: TaskResult) -> None:
    async def forbidden() -> str:
        raise AssertionError("it was made")

    one = play(check=True)
    assert await one.call("book", forbidden, diff="+ booking") is None
    assert result.state is State.CHANGED


async def test_a_call_that_fails_changed_nothing(result: TaskResult) -> None:
    async def fails() -> None:
        raise TaskFailed("Full", "The flight is full.")

    one = play()
    with pytest.raises(TaskFailed):
        await one.call("book", fails)
    assert result.state is State.OK


async def test_a_task_is_ok_by_default(result: TaskResult) -> None:
    one = play()
    one.ok("nothing to do")
    assert (result.state, result.message) == (State.OK, "nothing to do")
    one.skip("not here")
    assert (result.state, result.message) == (State.SKIPPED, "nothing to do; not here")


async def test_a_change_stays_reported_after_later_messages(result: TaskResult) -> None:
    one = play()
    await one.call("book", done)
    one.ok("and all is well")
    assert (result.state, result.message) == (State.CHANGED, "book; and all is well")


async def test_the_shortest_of_several_requeue_times_counts() -> None:
    one = play()
    for seconds in (30, 10, 20):
        one.requeue_after(seconds)
    assert one.after == 10


async def test_a_failure_ends_the_reconcile_and_is_in_the_recap() -> None:
    ran = []

    @task("first")
    async def first(play: TicketPlay) -> None:
        ran.append("first")
        await play.call("do it", done)

    @task("second")
    async def second(play: TicketPlay) -> None:
        raise TaskFailed("Full", "The flight is full: choose another.")

    @task("third")
    async def third(play: TicketPlay) -> None:
        ran.append("third")

    one = play()
    recap = await Playbook[TicketPlay](Play, tasks=[first, second, third]).run(one)
    assert ran == ["first"]
    assert recap.failure is not None
    assert recap.failure.reason == "Full"
    assert str(recap).startswith("ok=0 changed=1 skipped=0 failed=1 in ")
    assert str(recap).endswith(": first: do it; second: The flight is full: choose another.")
