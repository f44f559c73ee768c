"""The watchdog: a thread that notices when the event loop stands still, which the loop itself cannot.

Every 2 s it asks the loop for a sign of life. How long that takes is the lag of whatever waits for its turn
there, a metric. A loop that stands still for more than 5 s is found in the log (one that does for more than 3
may be), once per stall, with what its thread is at. The probes are answered by the loop: while it stands
still /healthz does not answer at all, which the kubelet takes for a failure, and restarts the container if
that lasts. It answers 200 as soon as the loop turns again: to restart what works again would help nobody.
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

# Seconds between two questions: a thread's and a loop's turn, 0.2 ms of CPU together.
PERIOD = 2.0
# Seconds without a turn that are told of for certain. Probes give up after as many (config/base/manager).
STALL = 5.0


class Watchdog:
    """Watches the running event loop. A context manager, entered on the loop's own thread.

    Args:
        period: Seconds between two questions.
        stall: Seconds without a turn that are told of for certain.
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
            # It may have stood still since its last answer, a period ago.
            patience = self._stall - self._period
            if not self._answered.wait(patience):
                log.error(
                    "the event loop has stood still for %g s or more; it is at:\n%s",
                    patience,
                    self._whereabouts(),
                )
                self._answered.wait()
                log.warning("the event loop stood still for %.1f s", time.monotonic() - asked)

    def _answer(self, asked: float) -> None:
        self._lag.observe(time.monotonic() - asked)
        self._answered.set()

    def _whereabouts(self) -> str:
        frame = sys._current_frames().get(self._watched)
        return "".join(traceback.format_stack(frame)).rstrip()
