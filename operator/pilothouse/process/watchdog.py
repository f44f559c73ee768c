"""The watchdog: a thread that detects a blocked event loop, which the loop itself cannot do.

Every 2 s it schedules a callback on the loop. The time until the callback runs is the lag of the loop, which
is a metric. The watchdog logs each stall of more than 5 s once, with the stack of the loop's thread. It may
also log a stall of 3 to 5 s. The loop answers the probes: while it is blocked, /healthz does not answer,
which the kubelet counts as a failure. If the stall lasts, the kubelet restarts the container. Once the loop
runs again, /healthz answers 200, because a restart would not help any more.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Self

from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

# Seconds between two callbacks. One of them takes 0.2 ms of CPU, the thread included.
PERIOD = 2.0
# A longer stall, in seconds, is always logged. Probes time out after the same time (config/base/manager).
STALL = 5.0


class Watchdog:
    """Watches the running event loop. A context manager that is entered in the loop's thread.

    Args:
        period: The seconds between two callbacks.
        stall: A stall of more than this number of seconds is always logged.
    """

    def __init__(self, period: float = PERIOD, stall: float = STALL) -> None:
        self._period = period
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._lag = metrics.LOOP_LAG_SECONDS.labels()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._answered.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._period):
            asked = time.monotonic()
            self._answered.clear()
            if self._stopped.is_set():
                return
            self._loop.call_soon_threadsafe(self._answer, asked)
            # The loop may have been blocked since its last answer, one period ago.
            patience = self._stall - self._period
            if not self._answered.wait(patience):
                log.error(
                    "The event loop has been blocked for at least %g s by:\n%s",
                    patience,
                    self._stack(),
                )
                self._answered.wait()
                log.warning("The event loop was blocked for %.1f s", time.monotonic() - asked)

    def _answer(self, asked: float) -> None:
        self._lag.observe(time.monotonic() - asked)
        self._answered.set()

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame)).rstrip()
