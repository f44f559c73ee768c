"""The wall clock, for timestamps that leave the process, and the clock that counts suspended time."""

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

# CLOCK_MONOTONIC, which event loops and their timers use, stands still on Linux while the machine is
# suspended. macOS has it the other way round: its CLOCK_MONOTONIC goes on, and Python's monotonic() stops.
_GOES_ON = getattr(time, "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME", None)
_boottime: Callable[[], float] = time.monotonic if _GOES_ON is None else partial(time.clock_gettime, _GOES_ON)


def now() -> datetime:
    """Return the present in UTC, for timestamps in objects, Events and logs.

    Durations and deadlines within a process never use it: they read the event loop's clock, which no NTP step
    moves and which tests replace by a virtual one. A loop with a virtual clock has a method `wall_clock`,
    which returns the wall clock that goes with it.
    """
    loop = asyncio._get_running_loop()
    virtual = getattr(loop, "wall_clock", None)
    return virtual() if virtual is not None else datetime.now(UTC)


def boottime(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock, in seconds, that also counts the time during which the machine was suspended.

    For limits that other machines rely on, such as a Lease's. It costs as much as the loop's own clock (0.1
    us) and cannot set timers: one that is due while the machine is suspended fires late. So the limit is
    checked at each step as well.

    A hypervisor that pauses a virtual machine without its knowledge stops this clock, too.

    Args:
        loop: The event loop in use. A loop that has a `boottime` of its own, as the virtual one has, decides.
    """
    clock: Callable[[], float] = getattr(loop, "boottime", _boottime)
    return clock
