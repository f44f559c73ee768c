"""The shared deadline does for each task what asyncio.timeout does."""

import asyncio
from contextlib import suppress

import pytest

from pilothouse.kube.deadline import Deadline, DeadlineExceeded
from pilothouse.testing import VirtualTimeLoop

pytestmark = pytest.mark.usefixtures("virtual_time")


async def test_each_task_is_stopped_when_its_own_time_is_over(virtual_time: VirtualTimeLoop) -> None:
    deadline = Deadline(10)
    began = virtual_time.time()

    async def late(start: float) -> float:
        await asyncio.sleep(start)
        with pytest.raises(DeadlineExceeded), deadline:
            await asyncio.sleep(3600)
        return virtual_time.time() - began - start

    assert await asyncio.gather(*(late(start) for start in (0, 0, 3, 9, 25))) == [10] * 5


async def test_code_that_finishes_in_time_is_not_interrupted() -> None:
    deadline = Deadline(10)
    for _ in range(5):
        with deadline:
            await asyncio.sleep(9)
    with pytest.raises(ZeroDivisionError), deadline:
        raise ZeroDivisionError
    await asyncio.sleep(100)


async def test_an_outside_cancellation_overrides_the_deadline() -> None:
    deadline = Deadline(10)

    async def slow_to_end() -> None:
        with deadline:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(5)

    task = asyncio.create_task(slow_to_end())
    await asyncio.sleep(12)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_interrupted_task_raises_deadline_exceeded_whatever_its_cleanup_raises() -> None:
    deadline = Deadline(10)

    async def with_a_defect() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise KeyError("a clean-up with a defect")

    with pytest.raises(DeadlineExceeded), deadline:
        await with_a_defect()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(1)


async def test_code_that_swallows_the_cancellation_and_returns_has_succeeded() -> None:
    deadline = Deadline(10)
    with deadline:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            done = True
    assert done
    await asyncio.sleep(1)


async def test_code_that_swallows_the_cancellation_is_cancelled_again_until_it_ends(
    virtual_time: VirtualTimeLoop,
) -> None:
    swallowed: list[float] = []
    deadline = Deadline(10, lambda task: swallowed.append(virtual_time.time() - began))
    began = virtual_time.time()

    async def stubborn() -> None:
        for _ in range(3):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        await asyncio.sleep(3600)

    with pytest.raises(DeadlineExceeded), deadline:
        await stubborn()
    assert swallowed == [20, 30, 40]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(100)
    assert swallowed == [20, 30, 40]


async def test_a_stopped_task_ends_immediately_with_the_given_error(
    virtual_time: VirtualTimeLoop,
) -> None:
    deadline = Deadline(10)

    async def stopped() -> str:
        with pytest.raises(KeyError, match="stop"), deadline:
            await asyncio.sleep(3600)
        await asyncio.sleep(1)
        return "continues"

    began = virtual_time.time()
    one, two = (asyncio.create_task(stopped()) for _ in range(2))
    await asyncio.sleep(3)
    for each in (one, two):
        deadline.stop(each, KeyError("stop"))
    assert [await one, await two] == ["continues"] * 2
    assert virtual_time.time() == began + 4
    deadline.stop(one, KeyError("it has left"))
    await asyncio.sleep(100)
