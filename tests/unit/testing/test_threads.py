"""Threads take turns with the loop."""

import asyncio
import time
from concurrent.futures import CancelledError

import pytest

from pilothouse.testing import VirtualTimeLoop
from pilothouse.testing.threads import AwaitedThreads, await_on


async def nap(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def test_threads_and_the_loop_take_turns() -> None:
    lines: list[str] = []

    def work(loop: asyncio.AbstractEventLoop, name: str) -> None:
        for turn in range(3):
            time.sleep(0.01 if name == "slow" else 0)  # Real time, which must not matter.
            lines.append(f"{name} {turn}")
            await_on(loop, nap(1))

    async def run() -> float:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(AwaitedThreads())
        began = loop.time()
        await asyncio.gather(*(asyncio.to_thread(work, loop, name) for name in ("slow", "quick")))
        return loop.time() - began

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(run()) == pytest.approx(3)
    assert lines == ["slow 0", "quick 0", "slow 1", "quick 1", "slow 2", "quick 2"]


@pytest.mark.parametrize("loop_factory", [VirtualTimeLoop, asyncio.new_event_loop])
def test_a_thread_gets_the_error_and_the_end_of_the_loop(loop_factory: object) -> None:
    heard: list[str] = []
    waiting = asyncio.Event()

    async def fails() -> None:
        raise LookupError("not there")

    async def waits() -> None:
        waiting.set()
        await asyncio.sleep(10**6)

    def work(loop: asyncio.AbstractEventLoop) -> None:
        with pytest.raises(LookupError):
            await_on(loop, fails())
        heard.append("error")
        with pytest.raises(CancelledError):
            await_on(loop, waits())
        heard.append("end")

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(AwaitedThreads())
        working = asyncio.create_task(asyncio.to_thread(work, loop))
        await waiting.wait()
        working.cancel()

    with asyncio.Runner(loop_factory=loop_factory) as runner:  # type: ignore[arg-type]  # one of the two
        runner.run(run())
    assert heard == ["error", "end"]
