"""An event loop whose clock jumps to the next timer when nothing else is left to do.

An hour of back-off, leases and resyncs runs in milliseconds, always in the same order. Real files and threads
work (the clock stands still while a thread runs); real sockets do not: use the usual loop for a test with a
server.
"""

import asyncio
import concurrent.futures
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# A test whose every task waits, with no timer set and nothing to read, will never end. Seconds of real time.
STUCK_SECONDS = 5.0


class VirtualTimeStuck(RuntimeError):
    """Every task waits for something that nothing will bring."""


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector; where that would have waited for a timer, moves the clock instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.clock = 1_000.0  # not 0: code that takes 0 for "never" must fail here as it would in production
        # Those that run and do not wait for the loop; fewer than none when nobody waits for one that does.
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is not None and self.threads <= 0:
            self.clock += timeout
            return ready
        ready = self._real.select(STUCK_SECONDS)
        if not ready and self.threads <= 0:
            raise VirtualTimeStuck("every task waits, no timer is set and no thread runs")
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Any:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module. `loop.time()` is the virtual clock, in seconds; it starts at 1000."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._suspended = 0.0
        self._began = datetime.now(UTC) - timedelta(seconds=self._jumping.clock)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual clock, in seconds."""
        return self._jumping.clock

    def boottime(self) -> float:
        """Return the virtual clock that also counts suspended time, in seconds; see `telemetry.clock`."""
        return self._jumping.clock + self._suspended

    def suspend(self, seconds: float) -> None:
        """Suspend the machine: timers and `time()` do not count these seconds, `boottime` does."""
        self._suspended += seconds

    def wall_clock(self) -> datetime:
        """Return the wall clock that goes with the virtual one; it starts at the real one."""
        return self._began + timedelta(seconds=self.boottime())

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Run something in a thread; the clock stands still meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def lend(self, answer: concurrent.futures.Future[Any]) -> None:
        """Let the clock go on until a thread has the answer that it waits for."""
        if answer.done():
            return
        self._jumping.threads -= 1
        answer.add_done_callback(self._give_back)

    def _give_back(self, answer: concurrent.futures.Future[Any]) -> None:
        self._jumping.threads += 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1
