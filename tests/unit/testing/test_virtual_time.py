"""The loop with virtual time, which the other unit tests use."""

import asyncio
import random
import time

import pytest

from pilothouse.testing import VirtualTimeLoop, VirtualTimeStuck


async def test_a_week_of_sleep_takes_no_time(virtual_time):
    started, real = virtual_time.time(), time.monotonic()
    await asyncio.sleep(7 * 24 * 3600)
    assert virtual_time.time() - started == pytest.approx(7 * 24 * 3600)
    assert time.monotonic() - real < 1


async def test_timers_fire_in_order(virtual_time):
    fired = []

    async def sleeper(seconds: float) -> None:
        await asyncio.sleep(seconds)
        fired.append((seconds, virtual_time.time()))

    started = virtual_time.time()
    await asyncio.gather(*(sleeper(seconds) for seconds in (30, 1, 5)))
    assert [(seconds, pytest.approx(started + seconds)) for seconds in (1, 5, 30)] == fired


async def test_a_deadline_ends_an_endless_wait(virtual_time):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()


async def test_the_clock_stops_while_a_thread_runs(virtual_time):
    started = virtual_time.time()
    async with asyncio.timeout(0.001):
        await asyncio.to_thread(time.sleep, 0.05)
    assert virtual_time.time() == started


def test_a_wait_that_cannot_end_is_reported(monkeypatch):
    monkeypatch.setattr("pilothouse.testing.virtual_time.STUCK_SECONDS", 0.01)
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner, pytest.raises(VirtualTimeStuck):
        runner.run(asyncio.Event().wait())


async def test_other_tests_run_on_the_usual_loop():
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


async def test_jitter_is_the_same_in_every_run(virtual_time):
    assert random.random() == random.Random(0).random()
