"""The watchdog: it logs a blocked event loop once, with its stack, and a running one never."""

import asyncio
import logging
import re
import threading
import time

import pytest

from pilothouse.process.watchdog import Watchdog
from pilothouse.telemetry import metrics
from pilothouse.testing import eventually


def lags() -> float:
    return metrics.REGISTRY.get_sample_value("pilothouse_event_loop_lag_seconds_count") or 0.0


def block_until_logged(caplog: pytest.LogCaptureFixture) -> bool:
    """Blocks the loop until it is logged, as a synchronous call in a library would.

    Returns False if it is not: a busy machine has just stopped the loop at another place, and the watchdog
    has logged that.
    """
    gives_up = time.monotonic() + 1
    while not (logged := "in block_until_logged" in caplog.text) and time.monotonic() < gives_up:
        time.sleep(0.01)  # on purpose: the event loop must not run
    return logged


async def test_a_blocked_loop_is_logged_once_with_its_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Watchdog(period=0.01, stall=0.05):
        await eventually(lambda: lags() > 0)
        await eventually(lambda: block_until_logged(caplog), within=30)
        await eventually(lambda: "The event loop was blocked for" in caplog.text)
        before = lags()
        await eventually(lambda: lags() > before + 3)
    # A busy machine may stop the loop at other places, too.
    [stalled] = [each for each in caplog.records if "in block_until_logged" in each.getMessage()]
    assert stalled.levelno == logging.ERROR
    assert re.search(r"s by:\n.*in block_until_logged", stalled.getMessage(), re.DOTALL)
    assert (metrics.REGISTRY.get_sample_value("pilothouse_event_loop_lag_seconds_sum") or 0) >= 0.04


async def test_a_running_loop_is_not_logged_and_the_thread_ends_with_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = lags()
    with Watchdog(period=0.001, stall=5):
        await eventually(lambda: lags() > before + 20)
    assert not caplog.records
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}


async def test_it_stops_at_any_moment() -> None:
    async with asyncio.timeout(10):
        for _ in range(100):
            with Watchdog(period=0.0001, stall=60):
                await asyncio.sleep(0.0005)
