"""A controller: event handlers put keys into a queue, workers take them out and sync them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from pilothouse.controller.api import Api
from pilothouse.controller.metrics import ControllerMetrics, Result
from pilothouse.controller.outcome import Outcome, PermanentError, SyncError
from pilothouse.controller.predicates import Predicate, meaningful_change
from pilothouse.informer import Informer
from pilothouse.kube import ApiError, Conflict, KubeError, KubeObject, NotFound, ObjectKey, version
from pilothouse.queue import Priority, ShutDown, WorkQueue
from pilothouse.telemetry import object_context

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# How long a key waits for its own write to come back through the watch before the object is read live.
OWN_WRITE_PATIENCE = 5.0


class Controller(Generic[T]):
    """Syncs the objects of one kind: many at once, each by one worker at a time.

    An object is synced when it appears, when it changes in a way the predicate accepts, at every resync, and
    again after a failure (with back-off) or when its sync asked for it. A failure concerns its key alone.

    Args:
        name: The label of its metrics.
        api: Reads an object live when the informer is behind.
        informer: Where the objects come from.
        sync: Brings one object, read from the informer's store by its key, to what its spec asks for.
            It may be called at any time and must be idempotent. Returning means success; raising
            PermanentError means no retry until the object changes; Conflict means that the object changed
            meanwhile; any other error means a retry.
        workers: How many objects are synced at once.
        resync: Every object is synced again about once in this many seconds; 0: never.
        sync_timeout: A sync that takes longer, in seconds, is cancelled and counts as failed.
        predicate: Which changes are worth a sync.
        on_timeout: Told of a key whose sync was stopped after so many seconds, so that the object can say so.
    """

    def __init__(
        self,
        name: str,
        api: Api,
        informer: Informer[T],
        sync: Callable[[ObjectKey], Awaitable[Outcome]],
        *,
        workers: int = 16,
        resync: float = 0.0,
        sync_timeout: float = 120.0,
        predicate: Predicate[T] = meaningful_change,
        on_timeout: Callable[[ObjectKey, float], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.queue: WorkQueue[ObjectKey] = WorkQueue(name)
        self._informer = informer
        self._sync = sync
        self._api = api
        self._workers = workers
        self._resync = resync
        self._sync_timeout = sync_timeout
        self._predicate = predicate
        self._on_timeout = on_timeout
        self._kind = informer.resource.kind
        self._loop = asyncio.get_running_loop()
        self._metrics = ControllerMetrics(name, workers)
        # The key whose own write the store is being told of right now.
        self._writing: ObjectKey | None = None
        # Keys that wait, outside of any worker, until the watch has come as far as our last write.
        self._parked: dict[ObjectKey, asyncio.Task[None]] = {}
        # Keys that waited in vain and were read live instead.
        self._read: set[ObjectKey] = set()
        # Keys that are of no use to try until their object changes.
        self._hopeless: set[ObjectKey] = set()
        informer.add_handler(self._observe)

    async def run(self) -> None:
        """Works until the queue is shut down or the caller cancels; syncs in flight are cancelled then."""
        try:
            async with asyncio.TaskGroup() as group:
                resyncs = group.create_task(self._resync_for_ever())
                workers = [group.create_task(self._work()) for _ in range(self._workers)]
                await asyncio.wait(workers)
                resyncs.cancel()
        finally:
            for task in self._parked.values():
                task.cancel()

    async def drain(self) -> None:
        """Takes no more keys and returns when the syncs in flight have ended."""
        await self.queue.drain()

    def wrote(self, obj: T) -> None:
        """Takes what an own write returned into the store. It is no reason for another sync.

        The write must have carried the resourceVersion of the object in the store: then nothing that somebody
        else did can hide in what it returned.
        """
        self._writing = obj.metadata.key
        try:
            self._informer.store.observe(obj)
        finally:
            self._writing = None

    def _observe(self, old: T | None, new: T | None, initial: bool) -> None:
        if new is None:
            if old is not None:
                self._forget(old.metadata.key)
            return
        key = new.metadata.key
        if key != self._writing and self._predicate(old, new):
            self._hopeless.discard(key)
            self.queue.add(key, Priority.BACKGROUND if initial else Priority.CHANGE)

    def _forget(self, key: ObjectKey) -> None:
        self.queue.forget(key)
        self._read.discard(key)
        self._hopeless.discard(key)

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            try:
                if self._sees_own_write(key):
                    await self._process(key)
            finally:
                self.queue.done(key)
            # A sync that has nothing to do never waits: let the watch and the probes have their turn.
            await asyncio.sleep(0)

    def _sees_own_write(self, key: ObjectKey) -> bool:
        """Whether the watch has come as far as our last write of the object; if not, the key waits for it."""
        if key in self._parked:
            return False
        obj = self._informer.store.get(key)
        if obj is None or version(obj) <= self._informer.store.progress.seen(key.namespace):
            return True
        if key in self._read:
            self._read.remove(key)
            return True
        self._parked[key] = self._loop.create_task(self._wait_for_own_write(key, obj))
        return False

    async def _wait_for_own_write(self, key: ObjectKey, written: T) -> None:
        try:
            resource_version = written.metadata.resource_version
            if not await self._informer.wait_reached(resource_version, OWN_WRITE_PATIENCE, key.namespace):
                log.info("the watch is behind, reading %s %s live", self._kind, key)
                self._informer.store.observe(await self._api.get(self._informer.resource, key))
                self._read.add(key)
        except NotFound:
            log.debug("%s %s is gone", self._kind, key)
        except KubeError as error:
            log.warning("%s %s cannot be read: %s", self._kind, key, error)
            self.queue.add_rate_limited(key)
        else:
            self.queue.add(key)
        finally:
            del self._parked[key]

    async def _process(self, key: ObjectKey) -> None:
        began = self._loop.time()
        self._metrics.active += 1
        try:
            with object_context(self._kind, key.namespace, key.name):
                result = await self._sync_once(key)
        finally:
            self._metrics.active -= 1
        self._metrics.synced(result, self._loop.time() - began)

    async def _sync_once(self, key: ObjectKey) -> Result:
        try:
            async with asyncio.timeout(self._sync_timeout) as deadline:
                outcome = await self._sync(key)
        except Conflict as conflict:
            log.debug("changed meanwhile, syncing again: %s", conflict)
            self.queue.add_rate_limited(key, Priority.CHANGE)
            return Result.REQUEUE
        except PermanentError as error:
            log.warning("not tried again until it changes: %s", error)
            self.queue.forget(key)
            self._hopeless.add(key)
            return Result.TERMINAL_ERROR
        except (SyncError, KubeError) as error:
            delay = self._retry(key, error)
            known = isinstance(error, SyncError) and error.repeated
            log.log(logging.DEBUG if known else logging.WARNING, "tried again in %.3g s: %s", delay, error)
            return Result.ERROR
        except Exception as error:
            delay = self._retry(key, error)
            if deadline.expired():
                log.error("stopped after %g s, tried again in %.3g s", self._sync_timeout, delay)
                await self._tell_timeout(key)
                return Result.TIMEOUT
            log.exception("unexpected error, tried again in %.3g s", delay)
            return Result.ERROR
        self.queue.forget(key)
        if outcome.requeue_after is None:
            return Result.SUCCESS
        self.queue.add_after(key, outcome.requeue_after)
        return Result.REQUEUE_AFTER

    async def _tell_timeout(self, key: ObjectKey) -> None:
        if self._on_timeout is None:
            return
        try:
            await self._on_timeout(key, self._sync_timeout)
        except KubeError as error:
            log.warning("its status does not say so: %s", error)
        except Exception:
            log.exception("its status does not say so")

    def _retry(self, key: ObjectKey, error: Exception) -> float:
        """Queues a key that failed; returns the seconds until its next try."""
        after = error.retry_after if isinstance(error, SyncError | ApiError) else None
        if after is None:
            return self.queue.add_rate_limited(key)
        # Many keys are told the same time by one server: spread them.
        after *= random.uniform(1.0, 1.1)  # noqa: S311 - jitter
        self.queue.add_after(key, after, Priority.BACKGROUND)
        return after

    async def _resync_for_ever(self) -> None:
        """Walks over the store once per period, at an even pace, so that no herd ever forms."""
        if not self._resync:
            return
        while True:
            keys = list(self._informer.store.keys())
            period = self._resync * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            steps = max(1, min(len(keys), int(period)))
            for step in range(steps):
                await asyncio.sleep(period / steps)
                for key in keys[step * len(keys) // steps : (step + 1) * len(keys) // steps]:
                    if key not in self._hopeless:
                        self.queue.add(key, Priority.BACKGROUND)
