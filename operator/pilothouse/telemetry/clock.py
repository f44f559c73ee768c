"""The wall clock, for timestamps that leave the process, and a clock that includes suspended time."""

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

# Event loops and their timers use CLOCK_MONOTONIC. On Linux it stops while the machine is suspended. On macOS
# CLOCK_MONOTONIC continues, and Python's monotonic() stops.
_CLOCK = getattr(time, "CLOCK_MONOTONIC" if sys.platform == "darwin" else "CLOCK_BOOTTIME", None)
_boottime: Callable[[], float] = time.monotonic if _CLOCK is None else partial(time.clock_gettime, _CLOCK)


def now() -> datetime:
    """Returns the current time in UTC, for timestamps in objects, Events and logs.

    Durations and deadlines within a process use the event loop's clock instead: NTP does not adjust it, and
    tests replace it with a virtual clock. A loop with a virtual clock has a method `wall_clock`, which
    returns the corresponding wall clock time.
    """
    loop = asyncio._get_running_loop()
    virtual = getattr(loop, "wall_clock", None)
    return virtual() if virtual is not None else datetime.now(UTC)


def boottime(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Returns a clock, in seconds, that includes the time during which the machine was suspended.

    Use it for limits that other machines rely on, such as the duration of a Lease. Reading it costs as much
    as reading the loop's clock (0.1 us). Timers cannot use it: a timer that is due while the machine is
    suspended fires late, so check the limit before each step as well.

    This clock also stops when a hypervisor pauses the virtual machine without notifying it.

    Args:
        loop: The event loop in use. If it has an attribute `boottime`, as a virtual loop has, that clock is
            returned.
    """
    clock: Callable[[], float] = getattr(loop, "boottime", _boottime)
    return clock
