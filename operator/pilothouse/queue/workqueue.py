"""The queue of keys between event handlers and workers, with the contract of client-go's workqueue.

* Fair: within a priority, keys are processed in the order in which they were added.
* Stingy: two workers never process the same key at the same time. A key that is added several times before
  a worker takes it is processed once.
* A key that is added while a worker processes it is processed again when that worker is done.
* There can be many producers and many workers.

Unlike client-go's, this queue returns no more keys after it is shut down. The next process lists all objects
and so finds the keys that were waiting.
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
    """The order of keys. A key that was added with both priorities gets the higher one."""

    CHANGE = 0
    """Objects that have just changed, and objects that are due at a set time."""
    BACKGROUND = 1
    """Objects of the initial list, resyncs and retries."""


class ShutDown(Exception):
    """The queue is shut down. The worker should end."""


class WorkQueue(Generic[K]):
    """A queue of unique keys with priorities, delays and back-off. It belongs to one event loop.

    Args:
        name: The label of the queue's metrics.
        backoff: The back-off per key. By default, 5 ms doubling up to 1000 s.
        bucket: The bucket that all retries share. By default, 10 retries a second and bursts of 100.
    """

    def __init__(
        self, name: str, *, backoff: ItemBackoff[K] | None = None, bucket: TokenBucket | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._backoff = backoff or ItemBackoff()
        self._bucket = bucket or TokenBucket()
        # For each priority, the keys that need processing, and since when. A key may wait in _order or be in
        # progress.
        self._dirty: tuple[dict[K, float], dict[K, float]] = ({}, {})
        # The keys in progress: since when, and the priority at which they were taken.
        self._processing: dict[K, tuple[float, Priority]] = {}
        # For each priority, the order of the keys that are dirty and not in progress. A key whose priority
        # was raised is in both lines; get() skips its stale entry in the lower one.
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
        """Marks a key as needing processing. Does nothing after shutdown."""
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
        """Adds a key after a delay. If a key has several delays, the earliest one counts.

        Args:
            key: The key.
            seconds: The delay. If it is 0 or negative, the key is added immediately.
            priority: The key's priority.

        Raises:
            ValueError: The delay is infinite or NaN, which would break the order of the loop's timers.
        """
        if self._shut:
            return
        if not math.isfinite(seconds):
            raise ValueError(f"cannot requeue {key} after {seconds} s; the delay must be a finite number")
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

    def add_rate_limited(
        self, key: K, priority: Priority = Priority.BACKGROUND, *, least: float = 0.0
    ) -> float:
        """Requeues a failed key with back-off, limited by the shared bucket.

        Args:
            key: The key.
            priority: The key's priority.
            least: The shortest delay, in seconds.

        Returns:
            The delay, in seconds.
        """
        delay = max(self._backoff.delay(key), self._bucket.reserve(), least)
        self._metrics.retries.inc()
        self.add_after(key, delay, priority)
        return delay

    def forget(self, key: K) -> None:
        """Resets a key's back-off: its next failure counts as the first. The key stays in the queue."""
        self._backoff.forget(key)

    async def get(self) -> K:
        """Waits for a key and returns it. The caller must call `done` with it afterwards.

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
        """Marks a key as processed. If it was added while it was in progress, it is queued again."""
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
        """The keys in progress."""
        return self._processing.keys()

    def taken_at(self, key: K) -> Priority:
        """Returns the priority at which a key in progress was taken from the queue."""
        _, priority = self._processing[key]
        return priority

    @property
    def shut(self) -> bool:
        """Whether the queue is shut down."""
        return self._shut

    def shut_down(self) -> None:
        """Shuts the queue down: drops all waiting keys, ignores new ones, and ends every `get`."""
        self._shut = True
        for timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        for getter in self._getters:
            if not getter.done():
                getter.set_result(None)

    async def drain(self) -> None:
        """Shuts the queue down and waits until no key is in progress."""
        self.shut_down()
        await self._idle.wait()

    def __len__(self) -> int:
        """Returns the number of keys that are waiting for a worker, without delayed ones."""
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
            # This worker had been woken for a key. Another worker must take it.
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
