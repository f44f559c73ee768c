"""A task that runs calls at the same time with asyncio.TaskGroup, which raises their errors in a group."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pilothouse.controller.outcome import SyncError
from pilothouse.kube import Conflict, Forbidden, ObjectKey
from pilothouse.playbook import TaskFailed
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay, operator, playbook, ready

pytestmark = pytest.mark.usefixtures("virtual_time")

Part = Callable[[TicketPlay], Coroutine[Any, Any, None]]


async def wait(play: TicketPlay) -> None:
    play.wait_for("it is there", False)


async def wait_routinely(play: TicketPlay) -> None:
    play.wait_for("the hour has passed", False, ready=True)


async def fail(play: TicketPlay) -> None:
    raise TaskFailed("Down", "The store is down.")


async def fail_for_good(play: TicketPlay) -> None:
    raise TaskFailed("Wrong", "The spec is wrong.", permanent=True)


async def be_refused(play: TicketPlay) -> None:
    raise Forbidden(403, "Forbidden", "quota exceeded")


async def crash(play: TicketPlay) -> None:
    raise ValueError("hunter2")


async def nest(play: TicketPlay) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fail(play))


async def forget(play: Any) -> None:
    await play.wait_for("it is there", True)


def together(*parts: Part) -> Part:
    """Returns a task that runs all parts at the same time. All of them fail in their first step."""

    async def run(play: TicketPlay) -> None:
        async with asyncio.TaskGroup() as group:
            for each in parts:
                group.create_task(each(play))

    return run


@pytest.mark.parametrize(
    ("parts", "reason", "message"),
    [
        ([wait], "Waiting", "Waiting until it is there."),
        ([wait_routinely], "Reconciled", "The object matches its spec. Waiting until the hour has passed."),
        ([wait_routinely, wait], "Waiting", "Waiting until it is there."),
        ([fail], "Down", "The store is down."),
        ([wait, fail], "Down", "The store is down."),
        ([nest], "Down", "The store is down."),
        ([wait, nest], "Down", "The store is down."),
        ([be_refused], "KubernetesRefused", "The task 'run' failed: quota exceeded"),
        ([be_refused, be_refused], "KubernetesRefused", "The task 'run' failed: quota exceeded"),
        (
            [fail, crash],
            "UnexpectedError",
            "The task 'run' failed: unexpected ValueError. See the operator's log for details.",
        ),
        (
            [forget],
            "UnexpectedError",
            "The task 'run' failed: play.wait_for is not async: remove `await` before the call.",
        ),
    ],
)
async def test_the_errors_in_a_group_end_the_task(
    api: ModelApi, ticket: ObjectKey, parts: list[Part], reason: str, message: str
) -> None:
    async with operator(api, playbook(together(*parts))):
        await asyncio.sleep(5)
        assert ready(api, ticket)[1:] == (reason, message)


async def test_a_group_is_retried_unless_each_of_its_failures_is_permanent(
    api: ModelApi, ticket: ObjectKey
) -> None:
    times = 0

    async def count(play: TicketPlay) -> None:
        nonlocal times
        times += 1
        await fail_for_good(play)

    async with operator(api, playbook(together(count, fail_for_good))):
        await asyncio.sleep(60)
        assert times == 1
        assert ready(api, ticket)[1] == "Wrong"
    async with operator(api, playbook(together(count, fail))):
        await asyncio.sleep(60)
        assert times > 3


async def test_a_conflict_in_a_group_starts_the_reconcile_again(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    times = 0

    async def conflict(play: TicketPlay) -> None:
        nonlocal times
        times += 1
        if times == 1:
            raise Conflict(409, "Conflict", "changed")

    async def crash_once(play: TicketPlay) -> None:
        if times == 1:
            raise ValueError("a defect")

    async with operator(api, playbook(together(conflict, crash_once, nest if times else wait_routinely))):
        await asyncio.sleep(1)
        assert times == 2
        assert ready(api, ticket)[1] == "Reconciled"
    assert "ValueError: a defect" in caplog.text, "a defect is logged in any case"


async def test_a_sync_error_in_a_group_ends_the_reconcile(api: ModelApi, ticket: ObjectKey) -> None:
    times: list[float] = []

    async def stop(play: TicketPlay) -> None:
        times.append(asyncio.get_running_loop().time())
        raise SyncError("not now", retry_after=7)

    async with operator(api, playbook(together(fail, stop))):
        await asyncio.sleep(30)
    assert 4 <= len(times) <= 5, "as often as it asks for, and not with the back-off of a failure"
    assert round(times[1] - times[0]) == 7


async def test_modules_in_a_group_are_refused_with_their_sentences(api: ModelApi, ticket: ObjectKey) -> None:
    async def forbid(call: Call) -> None:
        if call.verb == "patch" and call.resource == "configmaps":
            raise Forbidden(403, "Forbidden", "no quota")

    async def run(play: TicketPlay) -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(play.apply(CONFIG_MAP, {"metadata": {"name": name}}))

    api.before = forbid
    async with operator(api, playbook(run)):
        assert ready(api, ticket)[1:] == ("KubernetesRefused", "The task 'run' failed: no quota")


async def test_a_call_that_gather_leaves_running_is_refused_with_the_remedy(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def respond_slowly(call: Call) -> None:
        if call.resource == "configmaps":
            await asyncio.sleep(1)

    async def run(play: TicketPlay) -> None:
        await asyncio.gather(play.apply(CONFIG_MAP, {}), fail(play))

    api.before = respond_slowly
    async with operator(api, playbook(run)):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert "when the task failed, so it was cancelled. Use asyncio.TaskGroup" in message
