"""The queue of keys between event handlers and workers, with the contract of client-go's workqueue.

* Fair: keys are handed out in the order in which they were added, within a priority.
* Stingy: a key is never handed out to two workers at once, and a key added many times before a worker
  takes it is handed out once.
* A key added while a worker has it is handed out again after that worker is done with it.
* Many producers and many workers.

Unlike client-go's, a queue that is shut down hands out nothing more: what waits in it is found again by the
next process, which lists everything.
"""

import asyncio
import math
from collections import deque
from collections.abc import Hashable, KeysView
from enum import IntEnum
from typing import Generic, TypeVar

from pilothouse.queue.metrics import QueueMetrics
from pilothouse.queue.ratelimit import ItemBackoff, TokenBucket

K = TypeVar("K", bound=Hashable)


class Priority(IntEnum):
    """Who goes first. A key waiting at both priorities goes at the better one."""

    CHANGE = 0
    """What someone just changed, and what is due at a set time."""
    BACKGROUND = 1
    """The initial list, resyncs and retries."""


class ShutDown(Exception):
    """The queue hands out nothing more: the worker ends."""


class WorkQueue(Generic[K]):
    """A queue of unique keys with priorities, delays and back-off. It belongs to one event loop.

    Args:
        name: The label of its metrics.
        backoff: The back-off per key (5 ms doubling to 1000 s unless given).
        bucket: The bucket that all retries share (10 a second, 100 at once, unless given).
    """

    def __init__(
        self, name: str, *, backoff: ItemBackoff[K] | None = None, bucket: TokenBucket | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._backoff = backoff or ItemBackoff()
        self._bucket = bucket or TokenBucket()
        # Every key that needs processing, and since when, by the priority at which it does, whether it waits
        # in _order or is being processed right now.
        self._dirty: tuple[dict[K, float], dict[K, float]] = ({}, {})
        # Every key that a worker has, since when, and at which priority it was taken.
        self._processing: dict[K, tuple[float, Priority]] = {}
        # The order of the keys that are dirty and not being processed. A key that became more urgent stands
        # in both lines; its place in the later one is stale and passed over by get().
        self._order: tuple[deque[K], deque[K]] = (deque(), deque())
        self._lines = tuple(zip(Priority, self._order, self._dirty, strict=True))
        # The timers of delayed keys.
        self._delayed: dict[K, asyncio.TimerHandle] = {}
        # Workers waiting for a key.
        self._getters: deque[asyncio.Future[None]] = deque()
        self._shut = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._metrics = QueueMetrics(name, depth=self._depth, processing=self._ages)

    def add(self, key: K, priority: Priority = Priority.CHANGE) -> None:
        """Marks a key as needing processing. A queue that is shut down ignores it."""
        if self._shut:
            return
        changed, background = self._dirty
        if key in changed or (priority is Priority.BACKGROUND and key in background):
            return
        since = background.pop(key, None)
        if since is None:
            since = self._loop.time()
            self._metrics.adds.inc()
        self._dirty[priority][key] = since
        if key not in self._processing:
            self._enqueue(key, priority)

    def add_after(self, key: K, seconds: float, priority: Priority = Priority.CHANGE) -> None:
        """Adds a key once `seconds` have passed. Of several delays of a key, the earliest counts.

        Raises:
            ValueError: The delay is infinite or no number, which would upset every timer of the loop.
        """
        if self._shut:
            return
        if not math.isfinite(seconds):
            raise ValueError(f"{key} cannot be added after {seconds} s")
        if seconds <= 0:
            self.add(key, priority)
            return
        when = self._loop.time() + seconds
        timer = self._delayed.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._delayed[key] = self._loop.call_at(when, self._add_delayed, key, priority)

    def add_rate_limited(self, key: K, priority: Priority = Priority.BACKGROUND) -> float:
        """Adds a key that failed, when back-off and shared bucket allow; returns that delay, seconds."""
        delay = max(self._backoff.delay(key), self._bucket.reserve())
        self._metrics.retries.inc()
        self.add_after(key, delay, priority)
        return delay

    def forget(self, key: K) -> None:
        """Ends a key's back-off: its next failure counts as the first. It does not take the key out."""
        self._backoff.forget(key)

    async def get(self) -> K:
        """Waits for a key and hands it to the caller, who must call `done` with it.

        Raises:
            ShutDown: The queue is shut down.
        """
        while not self._shut:
            for priority, line, dirty in self._lines:
                while line:
                    key = line.popleft()
                    if key in dirty and key not in self._processing:
                        now = self._loop.time()
                        self._metrics.waited(now - dirty.pop(key))
                        self._processing[key] = now, priority
                        self._idle.clear()
                        return key
            await self._wait_for_key()
        raise ShutDown

    def done(self, key: K) -> None:
        """The worker is done with a key; if it was added meanwhile, it is handed out again."""
        since, _ = self._processing.pop(key)
        self._metrics.worked(self._loop.time() - since)
        if not self._shut:
            changed, background = self._dirty
            if key in changed:
                self._enqueue(key, Priority.CHANGE)
            elif key in background:
                self._enqueue(key, Priority.BACKGROUND)
        if not self._processing:
            self._idle.set()

    @property
    def processing(self) -> KeysView[K]:
        """The keys that workers have right now."""
        return self._processing.keys()

    def taken_at(self, key: K) -> Priority:
        """The priority at which the worker that has a key was handed it."""
        _, priority = self._processing[key]
        return priority

    @property
    def shut(self) -> bool:
        """Whether it is shut down."""
        return self._shut

    def shut_down(self) -> None:
        """Ignores further keys, drops the waiting ones, and ends every `get`."""
        self._shut = True
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)

    async def drain(self) -> None:
        """Shuts the queue down and waits until the workers are done with the keys they have."""
        self.shut_down()
        await self._idle.wait()

    def __len__(self) -> int:
        """How many keys wait for a worker, delayed ones not counted."""
        return sum(self._depth())

    def _add_delayed(self, key: K, priority: Priority) -> None:
        del self._delayed[key]
        self.add(key, priority)

    def _enqueue(self, key: K, priority: Priority) -> None:
        self._order[priority].append(key)
        self._wake_one()

    async def _wait_for_key(self) -> None:
        getter = self._loop.create_future()
        self._getters.append(getter)
        try:
            await getter
        except asyncio.CancelledError:
            # A key was meant for this worker: another one must take it.
            if getter.done() and not getter.cancelled():
                self._wake_one()
            raise

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _depth(self) -> tuple[int, int]:
        changed, background = (
            len(dirty) - sum(key in dirty for key in self._processing) for dirty in self._dirty
        )
        return changed, background

    def _ages(self) -> list[float]:
        now = self._loop.time()
        return [now - since for since, _ in self._processing.values()]
