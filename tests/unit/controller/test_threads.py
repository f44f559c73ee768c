"""A thread may outlive its reconcile. Until it has ended, its key is not reconciled again."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from pilothouse.controller import Controller, Fence, Outcome
from pilothouse.controller.threads import threads_left, to_thread
from pilothouse.informer import Informer
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Group, Playbook, Watch, add_watch, task
from pilothouse.process import Manager, Settings
from pilothouse.testing import ModelApi, VirtualTimeLoop
from tests.unit.playbook.configured import TicketPlay, ready
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

SYNC_TIMEOUT = 20.0


async def until(condition: Callable[[], bool]) -> None:
    """Waits in real time until a thread has made the condition true, while the virtual clock is stopped."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.to_thread(time.sleep, 0.005)
    raise AssertionError("the thread did not make the condition true")


class Hanging:
    """A function whose first `times` calls block until `let_go` is called."""

    def __init__(self, times: int = 1) -> None:
        self.ran: list[str] = []
        self.at_once = self.most = 0
        self._times = times
        self._go = threading.Event()

    def __call__(self, name: str) -> None:
        self.ran.append(name)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        if len(self.ran) <= self._times:
            self._go.wait(10)
        self.at_once -= 1

    def let_go(self) -> None:
        self._go.set()


class Setup:
    """A running informer and controller whose reconciles block in threads. `timed_out` lists their keys."""

    def __init__(self, api: ModelApi, blocks: Callable[[str], None]) -> None:
        self.timed_out: list[str] = []
        self.fence = Fence()
        self._blocks = blocks
        informer = Informer(api, TICKET)
        self.controller = Controller[Ticket](
            "ticket",
            api,
            informer,
            self.sync,
            workers=1,
            sync_timeout=SYNC_TIMEOUT,
            on_timeout=self.on_timeout,
        )
        self.tasks = [asyncio.create_task(part) for part in (informer.run(), self.controller.run())]

    async def sync(self, key: ObjectKey) -> Outcome:
        await self.fence.in_thread(self._blocks, key.name)
        return Outcome()

    async def on_timeout(self, key: ObjectKey, seconds: float) -> None:
        self.timed_out.append(key.name)

    async def end(self) -> None:
        for each in self.tasks:
            each.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_a_key_is_blocked_while_a_thread_of_its_reconcile_runs(
    api: ModelApi, virtual_time: VirtualTimeLoop, caplog: pytest.LogCaptureFixture
) -> None:
    blocks = Hanging()
    api.put(TICKET, "a", spec={"seats": 1})
    setup = Setup(api, blocks)
    await until(lambda: blocks.ran == ["a"])
    virtual_time._jumping.clock += SYNC_TIMEOUT
    await asyncio.sleep(0.01)
    assert setup.timed_out == ["a"], "the timeout is reported immediately"
    api.put(TICKET, "a", spec={"seats": 2})
    api.put(TICKET, "b")
    await until(lambda: "b" in blocks.ran)
    await asyncio.sleep(600)
    assert blocks.ran == ["a", "b"]
    assert [obj.metadata.name for obj in setup.controller.syncing] == ["a"]
    assert caplog.text.count("Ticket default/a is blocked until a thread") == 1
    blocks.let_go()
    await until(lambda: blocks.ran == ["a", "b", "a"])
    await asyncio.sleep(600)
    assert (blocks.ran, setup.timed_out) == (["a", "b", "a"], ["a"])
    assert list(setup.controller.syncing) == []
    await setup.end()


async def test_a_key_is_blocked_by_a_thread_after_its_fence_has_closed(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    blocks = Hanging()
    api.put(TICKET, "a")
    setup = Setup(api, blocks)
    await until(lambda: blocks.ran == ["a"])
    setup.fence.close()
    setup.fence.until = virtual_time.time() + 10_000
    await asyncio.sleep(600)
    assert blocks.ran == ["a"]
    blocks.let_go()
    await until(lambda: blocks.ran == ["a", "a"])
    assert blocks.most == 1
    await setup.end()


async def test_a_thread_that_had_not_begun_blocks_no_key(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    pool, ends = ThreadPoolExecutor(1), threading.Event()
    pool.submit(ends.wait, 10)
    virtual_time.set_default_executor(pool)
    blocks = Hanging(times=0)
    api.put(TICKET, "a")
    setup = Setup(api, blocks)
    for turn in range(500):
        # Back-off and deadline pass in turn; the clock stands still while something is in the pool.
        virtual_time._jumping.clock += 0 if turn % 50 else SYNC_TIMEOUT
        await asyncio.sleep(0)
    assert setup.timed_out[:3] == ["a"] * 3, "it is retried, and no thread blocks it"
    assert blocks.ran == []
    ends.set()
    await asyncio.sleep(60)
    assert blocks.ran == ["a"]
    await setup.end()


class LateExecutor(ThreadPoolExecutor):
    """An executor whose thread has accepted its work but not run the first instruction."""

    def __init__(self) -> None:
        super().__init__(1)
        self.begin: Callable[[], Any] = lambda: None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self.begin = lambda: fn(*args, **kwargs)
        return future


async def test_a_function_that_is_cancelled_before_its_first_instruction_does_not_run(
    virtual_time: VirtualTimeLoop,
) -> None:
    late = LateExecutor()
    virtual_time.set_default_executor(late)
    ran: list[str] = []
    left = threads_left()
    running = asyncio.create_task(to_thread(lambda: ran.append("a")))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert left == []
    with pytest.raises(RuntimeError, match="cancelled before the thread began"):
        late.begin()
    assert ran == []


async def test_a_finished_thread_is_not_left_running() -> None:
    left = threads_left()
    assert await to_thread(lambda: "done") == "done"
    with pytest.raises(ZeroDivisionError):
        await to_thread(lambda: 1 // 0)
    assert left == []


async def test_blocking_tasks_of_a_parallel_group_block_their_key(
    api: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    blocks = Hanging(times=2)

    @task("one blocks")
    def one(play: TicketPlay) -> None:
        blocks("one")

    @task("other blocks")
    def other(play: TicketPlay) -> None:
        blocks("other")

    key = api.put(TICKET, "t")
    book: Playbook[Any] = Playbook(TicketPlay, tasks=[Group("both", [one, other], parallel=True)])
    settings = Settings(health_host="127.0.0.1", health_port=0, sync_timeout=SYNC_TIMEOUT)
    manager = Manager("tickets", settings, api)
    add_watch(manager, Watch(TICKET, book))
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await until(lambda: len(blocks.ran) == 2)
    virtual_time._jumping.clock += SYNC_TIMEOUT
    await asyncio.sleep(0.1)
    assert ready(api, key)[1] == "Timeout"
    await asyncio.sleep(600)
    assert blocks.most == 2
    assert len(blocks.ran) == 2
    blocks.let_go()
    await until(lambda: len(blocks.ran) == 4)
    await asyncio.sleep(1)
    assert ready(api, key)[0] == "True"
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)
