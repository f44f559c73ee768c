"""An event loop whose clock jumps to the next timer when all tasks wait.

An hour of back-off, leases and resyncs runs in milliseconds, always in the same order. Files and threads
work; the clock stops while a thread runs. Sockets do not work: use a normal loop for a test with a server.
"""

import asyncio
import concurrent.futures
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

# Real seconds after which a test fails if all its tasks wait, no timer is set and nothing can be read.
STUCK_SECONDS = 5.0


class VirtualTimeStuck(RuntimeError):
    """All tasks wait, and nothing will wake any of them."""


class _JumpingSelector(selectors.BaseSelector):
    """Polls the real selector. Where a real loop would wait for a timer, moves the clock instead."""

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        self.clock = 1_000.0  # Not 0, so that code that uses 0 as "never" fails as it would in production.
        # The number of threads that run and do not wait for the loop. Negative if the loop does not wait for
        # a thread that waits for the loop.
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
            raise VirtualTimeStuck(
                "All tasks wait, no timer is set and no thread runs, so the test would never end."
            )
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
    """A loop with virtual time, see the module. `loop.time()` is in seconds and starts at 1000."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._suspended = 0.0
        self._began = datetime.now(UTC) - timedelta(seconds=self._jumping.clock)
        super().__init__(self._jumping)

    def time(self) -> float:
        """Returns the virtual clock, in seconds."""
        return self._jumping.clock

    def boottime(self) -> float:
        """Returns the virtual clock including suspended time, in seconds. See `telemetry.clock`."""
        return self._jumping.clock + self._suspended

    def suspend(self, seconds: float) -> None:
        """Simulates a suspended machine: `boottime` advances, timers and `time()` do not."""
        self._suspended += seconds

    def wall_clock(self) -> datetime:
        """Returns the wall clock in virtual time. It starts at the real time."""
        return self._began + timedelta(seconds=self.boottime())

    def run_in_executor(
        self, executor: concurrent.futures.Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        """Runs a function in a thread. The clock stops until it ends."""
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def lend(self, answer: concurrent.futures.Future[Any]) -> None:
        """Lets the clock continue while a thread waits for the given answer."""
        if answer.done():
            return
        self._jumping.threads -= 1
        answer.add_done_callback(self._give_back)

    def _give_back(self, answer: concurrent.futures.Future[Any]) -> None:
        self._jumping.threads += 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1
