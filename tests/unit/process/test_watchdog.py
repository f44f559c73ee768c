"""The watchdog: a loop that stands still is told of once, with what it is at; one that turns is not."""

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


def block_until_told(caplog: pytest.LogCaptureFixture) -> None:
    """Blocks the loop, as a library's forgotten synchronous call would, until the log says so."""
    gives_up = time.monotonic() + 10
    while "has stood still" not in caplog.text and time.monotonic() < gives_up:
        time.sleep(0.01)  # no event loop turns meanwhile: that is the test


async def test_a_loop_that_stands_still_is_told_of_once_with_its_stack(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Watchdog(period=0.01, stall=0.05):
        await eventually(lambda: lags() > 0)
        block_until_told(caplog)
        await eventually(lambda: "the event loop stood still for" in caplog.text)
        before = lags()
        await eventually(lambda: lags() > before + 3)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    [stalled] = errors
    assert re.search(r"it is at:\n.*in block_until_told", stalled.getMessage(), re.DOTALL)
    assert (metrics.REGISTRY.get_sample_value("pilothouse_event_loop_lag_seconds_sum") or 0) >= 0.04


async def test_a_loop_that_turns_is_not_told_of_and_the_thread_ends_with_it(
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
