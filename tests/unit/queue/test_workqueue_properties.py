"""The queue's two promises, under any interleaving: one worker per key at a time, and no change lost."""

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.queue import Priority, ShutDown, WorkQueue
from pilothouse.testing import VirtualTimeLoop


class Plan:
    """Runs many producers and workers at random times, and checks the promises all the time."""

    def __init__(self, seed: int, keys: int, producers: int, workers: int) -> None:
        self.random = random.Random(seed)
        self.keys = [f"key{n}" for n in range(keys)]
        self.workers = workers
        self.producers = producers
        self.queue = WorkQueue[str]("property")
        # The version of each key that was last produced, and last seen by a worker when it began.
        self.produced = dict.fromkeys(self.keys, 0)
        self.seen = dict.fromkeys(self.keys, 0)
        self.busy: set[str] = set()

    async def produce(self) -> None:
        for _ in range(30):
            await asyncio.sleep(self.random.choice([0, 0, 0.001, 0.01]))
            key = self.random.choice(self.keys)
            self.produced[key] += 1
            priority = self.random.choice(list(Priority))
            match self.random.randrange(3):
                case 0:
                    self.queue.add(key, priority)
                case 1:
                    self.queue.add_after(key, self.random.random(), priority)
                case 2:
                    self.queue.add_rate_limited(key, priority)

    async def work(self) -> None:
        while True:
            key = await self.queue.get()
            assert key not in self.busy, f"{key} was taken by two workers at the same time"
            self.busy.add(key)
            self.seen[key] = self.produced[key]
            try:
                await asyncio.sleep(self.random.choice([0, 0, 0.005, 0.1]))
            finally:
                self.busy.remove(key)
                self.queue.done(key)

    async def run(self) -> None:
        workers = [asyncio.create_task(self.work()) for _ in range(self.workers)]
        await asyncio.gather(*(self.produce() for _ in range(self.producers)))
        # One worker ends while it processes a key or waits for one.
        workers[0].cancel()
        spare = asyncio.create_task(self.work())
        await asyncio.sleep(10_000)  # beyond every delay
        assert self.seen == self.produced, "the last change of a key was never processed"
        await self.queue.drain()
        ended = await asyncio.gather(*workers, spare, return_exceptions=True)
        assert {type(end) for end in ended} <= {ShutDown, asyncio.CancelledError}, ended


@given(
    seed=st.integers(0, 2**32),
    keys=st.integers(1, 8),
    producers=st.integers(1, 5),
    workers=st.integers(1, 6),
)
@settings(max_examples=150, derandomize=True)
def test_no_key_is_lost_or_in_progress_twice_at_the_same_time(
    seed: int, keys: int, producers: int, workers: int
) -> None:
    async def run() -> None:
        await Plan(seed, keys, producers, workers).run()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(run())
