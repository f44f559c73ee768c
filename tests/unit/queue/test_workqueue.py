"""The contract of the queue: fair, stingy, and no key is lost."""

import asyncio

import pytest

from pilothouse.queue import Priority, ShutDown, WorkQueue
from pilothouse.telemetry import metrics
from pilothouse.testing import VirtualTimeLoop

pytestmark = pytest.mark.usefixtures("virtual_time")


async def take(queue: WorkQueue[str]) -> str:
    """Returns the next key, which must be waiting already."""
    async with asyncio.timeout(0):
        return await queue.get()


async def all_of(queue: WorkQueue[str]) -> list[str]:
    keys = []
    while len(queue):
        keys.append(await take(queue))
        queue.done(keys[-1])
    return keys


async def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    queue = WorkQueue[str]("q")
    for key in "cab":
        queue.add(key)
    assert await all_of(queue) == ["c", "a", "b"]


async def test_a_key_added_twice_is_handed_out_once() -> None:
    queue = WorkQueue[str]("q")
    queue.add("a")
    queue.add("a")
    assert len(queue) == 1
    assert await all_of(queue) == ["a"]


async def test_a_key_added_while_it_is_processed_is_handed_out_again_but_only_when_done() -> None:
    queue = WorkQueue[str]("q")
    queue.add("a")
    assert await take(queue) == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    with pytest.raises(TimeoutError):
        await take(queue)
    queue.done("a")
    assert await all_of(queue) == ["a"]


async def test_get_waits_for_a_key() -> None:
    queue = WorkQueue[str]("q")
    getters = [asyncio.create_task(queue.get()) for _ in range(2)]
    await asyncio.sleep(1)
    queue.add("a")
    queue.add("b")
    assert await asyncio.gather(*getters) == ["a", "b"]


async def test_a_cancelled_worker_loses_no_key() -> None:
    queue = WorkQueue[str]("q")
    first, second = (asyncio.create_task(queue.get()) for _ in range(2))
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


async def test_changes_have_priority_over_background_work() -> None:
    queue = WorkQueue[str]("q")
    for key in ("old1", "old2"):
        queue.add(key, Priority.BACKGROUND)
    queue.add("new")
    assert await all_of(queue) == ["new", "old1", "old2"]


async def test_a_key_that_becomes_urgent_moves_forward_and_is_handed_out_once() -> None:
    queue = WorkQueue[str]("q")
    for key in ("a", "b", "c"):
        queue.add(key, Priority.BACKGROUND)
    queue.add("c")
    queue.add("c", Priority.BACKGROUND)
    assert len(queue) == 3
    assert await all_of(queue) == ["c", "a", "b"]


async def test_a_key_that_becomes_urgent_while_it_is_processed_comes_back_urgent() -> None:
    queue = WorkQueue[str]("q")
    queue.add("a", Priority.BACKGROUND)
    queue.add("b", Priority.BACKGROUND)
    await take(queue)
    queue.add("a", Priority.BACKGROUND)
    queue.add("a", Priority.CHANGE)
    queue.done("a")
    assert await all_of(queue) == ["a", "b"]


async def test_taken_at_returns_the_priority_of_a_key_in_progress() -> None:
    queue = WorkQueue[str]("test")
    queue.add("resynced", Priority.BACKGROUND)
    queue.add("changed")
    queue.add("urgent", Priority.BACKGROUND)
    queue.add("urgent")
    taken = {key: queue.taken_at(key) for key in [await take(queue) for _ in range(3)]}
    assert taken == {
        "changed": Priority.CHANGE,
        "urgent": Priority.CHANGE,
        "resynced": Priority.BACKGROUND,
    }


async def test_a_delayed_key_is_added_after_its_delay(virtual_time: VirtualTimeLoop) -> None:
    queue = WorkQueue[str]("q")
    began = virtual_time.time()
    queue.add_after("late", 60)
    queue.add_after("soon", 5)
    assert await queue.get() == "soon"
    assert virtual_time.time() == began + 5
    assert await queue.get() == "late"
    assert virtual_time.time() == began + 60


async def test_the_earlier_of_two_delays_counts(virtual_time: VirtualTimeLoop) -> None:
    queue = WorkQueue[str]("q")
    began = virtual_time.time()
    for seconds in (30, 10, 20):
        queue.add_after("a", seconds)
    queue.done(await queue.get())
    assert virtual_time.time() == began + 10
    await asyncio.sleep(100)
    assert len(queue) == 0


async def test_a_delay_of_zero_adds_the_key_immediately() -> None:
    queue = WorkQueue[str]("q")
    queue.add_after("a", 0)
    assert await take(queue) == "a"


async def test_retries_back_off_from_5_ms_doubling_to_1000_s() -> None:
    queue = WorkQueue[str]("q")
    delays = [queue.add_rate_limited("a") for _ in range(20)]
    assert delays[:5] == [0.005, 0.01, 0.02, 0.04, 0.08]
    assert delays[17] == pytest.approx(0.005 * 2**17)
    assert delays[18:] == [1000, 1000]


async def test_a_forgotten_key_starts_with_the_shortest_delay() -> None:
    queue = WorkQueue[str]("q")
    queue.add_rate_limited("a")
    queue.add_rate_limited("a")
    queue.forget("a")
    assert queue.add_rate_limited("a") == 0.005


async def test_back_off_survives_any_number_of_failures() -> None:
    queue = WorkQueue[str]("q")
    for _ in range(3000):
        queue.add_rate_limited("a")
    assert queue.add_rate_limited("a") == 1000


async def test_all_retries_share_a_burst_of_100_and_10_a_second(
    virtual_time: VirtualTimeLoop,
) -> None:
    queue = WorkQueue[str]("q")
    delays = [queue.add_rate_limited(f"key{n}") for n in range(150)]
    assert delays[:100] == [0.005] * 100
    assert delays[100:103] == pytest.approx([0.1, 0.2, 0.3])
    assert delays[149] == pytest.approx(5.0)
    await asyncio.sleep(2)  # 20 new tokens cover 20 of the 50 retries
    assert queue.add_rate_limited("late") == pytest.approx(3.1)


async def test_shut_down_ends_every_get_and_ignores_further_keys() -> None:
    queue = WorkQueue[str]("q")
    getter = asyncio.create_task(queue.get())
    queue.add_after("later", 10)
    await asyncio.sleep(0)
    queue.add("waiting")
    queue.shut_down()
    queue.add("too late")
    queue.add_after("too late", 1)
    with pytest.raises(ShutDown):
        await getter
    with pytest.raises(ShutDown):
        await queue.get()
    await asyncio.sleep(60)


async def test_drain_waits_for_the_keys_that_are_being_processed() -> None:
    queue = WorkQueue[str]("q")
    queue.add("a")
    queue.add("b")
    key = await take(queue)
    draining = asyncio.create_task(queue.drain())
    await asyncio.sleep(100)
    assert not draining.done()
    queue.add(key)
    queue.done(key)
    await asyncio.wait_for(draining, 1)


async def test_draining_an_idle_queue_returns_immediately() -> None:
    await asyncio.wait_for(WorkQueue[str]("q").drain(), 1)


def sample(name: str, labels: dict[str, str], **more: str) -> float:
    value = metrics.REGISTRY.get_sample_value(name, labels | more)
    assert value is not None, f"{name}{labels | more} is not reported"
    return value


async def test_metrics_show_waiting_keys_and_keys_in_progress() -> None:
    labels = {"name": "metered", "controller": "metered"}
    queue = WorkQueue[str]("metered")
    queue.add("a")
    queue.add("b")
    queue.add("c", Priority.BACKGROUND)
    assert sample("workqueue_depth", labels, priority="0") == 2
    assert sample("workqueue_depth", labels, priority="-100") == 1
    assert sample("workqueue_adds_total", labels) == 3
    await asyncio.sleep(3)
    key = await take(queue)
    await asyncio.sleep(7)
    assert sample("workqueue_depth", labels, priority="0") == 1
    assert sample("workqueue_unfinished_work_seconds", labels) == 7
    assert sample("workqueue_longest_running_processor_seconds", labels) == 7
    queue.done(key)
    queue.add_rate_limited(key)
    assert sample("workqueue_queue_duration_seconds_sum", labels) == 3
    assert sample("workqueue_work_duration_seconds_sum", labels) == 7
    assert sample("workqueue_retries_total", labels) == 1
    assert sample("workqueue_unfinished_work_seconds", labels) == 0
