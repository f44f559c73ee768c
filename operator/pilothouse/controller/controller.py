"""A controller: event handlers put keys into a queue, workers take them out and sync them."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeVar

from pilothouse.controller.cancelling import cancel
from pilothouse.controller.fence import Fenced
from pilothouse.controller.mappers import Mapper
from pilothouse.controller.metrics import ControllerMetrics, Result
from pilothouse.controller.outcome import Outcome, PermanentError, SyncError, ends_task
from pilothouse.controller.own_writes import OwnWrites
from pilothouse.controller.predicates import Predicate, any_change, meaningful_change
from pilothouse.controller.threads import threads_left
from pilothouse.informer import DEFECTS, Informer
from pilothouse.kube import (
    Api,
    ApiError,
    Conflict,
    KubeError,
    KubeObject,
    Misfit,
    ObjectKey,
    PartialObjectMetadata,
)
from pilothouse.kube.deadline import Deadline, DeadlineExceeded
from pilothouse.queue import Priority, ShutDown, WorkQueue
from pilothouse.telemetry import log_defect, object_context

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)
S = TypeVar("S", bound=KubeObject)

# How long syncs may take to end once they are cancelled, seconds: the cancelled need a turn of the loop.
SYNC_END_SECONDS = 0.25

# How long a key waits that met a closed fence. The process is about to end, or the key's shard is gone.
FENCED_SECONDS = 1.0

# A key that has met conflicts until its back-off is so long is no longer a matter of chance.
CONFLICT_SECONDS = 1.0


def _everything(obj: KubeObject) -> bool:
    return True


def _passes(predicate: Predicate[Any], old: Any, new: Any) -> bool:
    """Asks a predicate; one that fails passes the change, because a predicate only saves syncs."""
    try:
        return predicate(old, new)
    except DEFECTS as error:
        log_defect(log, error, "a predicate failed on %s, which is synced", (new or old).metadata.key)
        return True


def _known(misfit: Misfit) -> Any:
    """What is known of an object that does not fit the view: enough to tell whose it is."""
    return PartialObjectMetadata(misfit.metadata)


async def _tell_nobody(key: ObjectKey, what: object) -> None:
    """Nobody wants to know."""


class Controller(Generic[T]):
    """Syncs the objects of one kind: many at once, each by one worker at a time.

    An object is synced when it appears, when it changes in a way the predicate accepts, when an object of
    another kind changes that concerns it (`watch`), at every resync, and again after a failure (with
    back-off) or when its sync asked for it. A failure concerns its key alone.

    Attributes:
        own_writes: Takes what syncs write.
        queue: The keys to be synced.
        admits: Asked when a key's turn has come: whether the object is this process's to sync. If not, it is
            passed over; `enqueue_all` when the answers may have changed. At first, every object is.

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
        sync_timeout: A sync that takes longer, in seconds, is cancelled and counts as failed. What it runs in
            a thread cannot be: its key is not synced again before that has ended.
        predicate: Which changes are worth a sync; it is not asked about deleted objects, which are not.
        on_timeout: Told of a key whose sync was stopped after so many seconds, so that the object can say so.
        on_defect: Told of a key whose sync ended by an error that nobody foresaw, for the same reason.
        own_writes: Takes what syncs write, for syncs that are made before their controller; unless given, the
            controller makes its own.
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
        on_timeout: Callable[[ObjectKey, float], Awaitable[None]] = _tell_nobody,
        on_defect: Callable[[ObjectKey, BaseException], Awaitable[None]] = _tell_nobody,
        own_writes: OwnWrites[T] | None = None,
    ) -> None:
        self.name = name
        self.own_writes = own_writes or OwnWrites(api, informer, WorkQueue(name))
        self.queue = self.own_writes.queue
        self.admits: Callable[[T], bool] = _everything
        self._informer = informer
        self._store = informer.store
        self._sync = sync
        self._workers = workers
        self._resync = resync
        self._deadline = Deadline(sync_timeout, self._swallowed)
        self._predicate = predicate
        self._on_timeout = on_timeout
        self._on_defect = on_defect
        self._kind = informer.resource.kind
        self._loop = asyncio.get_running_loop()
        self._metrics = ControllerMetrics(name, workers)
        self._syncing: dict[ObjectKey, T] = {}
        # The task of the worker that has a key.
        self._workers_at: dict[ObjectKey, asyncio.Task[Any] | None] = {}
        # What tells objects of syncs that have not ended.
        self._telling: set[asyncio.Task[None]] = set()
        # Whether a worker that is cancelled is to end.
        self._ending = False
        # Keys that are of no use to try until something changes.
        self._hopeless: set[ObjectKey] = set()
        informer.add_handler(self._observe)
        informer.store.add_misfit_handler(lambda key, misfit: self._wake(key, initial=False))

    def watch(self, informer: Informer[S], mapper: Mapper[S], predicate: Predicate[S] = any_change) -> None:
        """Has objects of another kind wake those of this one.

        Args:
            informer: Where the other kind's objects come from.
            mapper: Returns the keys that an object concerns: `owner_mapper(...)`, for example. Of a changed
                object it is asked about the old and the new state, so that one that is handed over wakes
                both; of a deleted one about the last.
            predicate: Which changes are worth a sync.
        """

        def observe(old: S | None, new: S | None, initial: bool) -> None:
            if _passes(predicate, old, new):
                states = [state for state in (old, new) if state is not None]
                for key in dict.fromkeys(key for state in states for key in mapper(state)):
                    if not isinstance(key, ObjectKey):
                        raise TypeError(f"the mapper has returned {key!r}: it returns ObjectKeys")
                    self._wake(key, initial)

        informer.add_handler(observe)

    def enqueue_all(self, where: Callable[[T], bool] = _everything) -> None:
        """Has every object that is meant synced, after what somebody changes meanwhile."""
        for obj in self._store.values():
            if where(obj):
                self.queue.add(obj.metadata.key, Priority.BACKGROUND)
        for misfit in self._store.misfits:
            if where(_known(misfit)):
                self.queue.add(misfit.metadata.key, Priority.BACKGROUND)

    @property
    def syncing(self) -> Collection[T]:
        """The objects that are being synced right now, as they were when that began."""
        return self._syncing.values()

    def stop_syncs(self, where: Callable[[T], bool]) -> None:
        """Has the syncs of the objects that are meant end at once, as if they had met a closed fence."""
        for key, obj in self._syncing.items():
            if where(obj) and (worker := self._workers_at.get(key)):
                self._deadline.stop(worker, Fenced())

    async def run(self) -> None:
        """Works until the queue is shut down or the caller cancels; syncs in flight are cancelled then.

        One that does not end within a moment is left behind, outside of the fence: whoever stops an operator
        does not wait for what swallows that.

        Raises:
            RuntimeError: A worker has ended before that.
            Exception: What ended it, or the resync.
        """
        workers = [self._loop.create_task(self._work()) for _ in range(self._workers)]
        parts = [*workers, self._loop.create_task(self._resync_for_ever())] if self._resync else workers
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self.queue.shut:
                await asyncio.wait(workers)
                return
            for part in ended:
                # Raises what has ended it.
                if not part.cancelled():
                    part.result()
            raise RuntimeError(f"a worker of the controller {self.name} has ended")
        finally:
            self._ending = True
            await cancel([*parts, *self._telling], SYNC_END_SECONDS)
            self._deadline.close()
            self.own_writes.close()

    async def drain(self) -> None:
        """Takes no more keys and returns when the syncs in flight have ended."""
        await self.queue.drain()

    def _observe(self, old: T | None, new: T | None, initial: bool) -> None:
        if new is None:
            if old is not None:
                self._forget(old.metadata.key)
            return
        key = new.metadata.key
        if not self.own_writes.taking(key) and _passes(self._predicate, old, new):
            self._wake(key, initial)

    def _wake(self, key: ObjectKey, initial: bool) -> None:
        self._hopeless.discard(key)
        self.queue.add(key, Priority.BACKGROUND if initial else Priority.CHANGE)

    def _forget(self, key: ObjectKey) -> None:
        self.queue.forget(key)
        self.own_writes.forget(key)
        self._hopeless.discard(key)

    async def _work(self) -> None:
        # A sync may have swallowed that it was cancelled.
        while not self._ending:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            threads = threads_left()
            try:
                if self._is_due(key):
                    await self._process(key)
                # A sync that has nothing to do never waits: let the watch and the probes have their turn.
                await asyncio.sleep(0)
            except BaseException as error:
                if self._ending or isinstance(error, KeyboardInterrupt | GeneratorExit):
                    raise
                self._survive(key, error)
            finally:
                if threads:
                    self._hold(key, threads)
                else:
                    self._done(key)

    def _survive(self, key: ObjectKey, error: BaseException) -> None:
        """Keeps a worker at work: what went wrong concerns its key, be it a sync that cancels itself."""
        worker = asyncio.current_task()
        while worker is not None and worker.cancelling():
            worker.uncancel()
        delay = self.queue.add_rate_limited(key)
        log_defect(log, error, "unexpected error at %s %s, tried again in %.3g s", self._kind, key, delay)

    def _done(self, key: ObjectKey) -> None:
        self._syncing.pop(key, None)
        self.queue.done(key)

    def _hold(self, key: ObjectKey, threads: list[asyncio.Future[None]]) -> None:
        """Keeps a key from being handed out until the threads that its sync has left behind have ended."""
        if not self.queue.shut and not all(each.done() for each in threads):
            log.warning(
                "%s %s is not synced again before what its last sync has left running in a thread ends; what "
                "it waits for there needs a time limit of its own",
                self._kind,
                key,
            )
        asyncio.gather(*threads).add_done_callback(lambda _: self._done(key))

    def _is_due(self, key: ObjectKey) -> bool:
        """Whether a key is to be synced now: it is ours, and the watches have come as far as our last writes.

        If they have not, it comes back as soon as they have.
        """
        misfit = self._store.misfit(key)
        obj = self._store.get(key) if misfit is None else _known(misfit)
        if obj is not None and not self.admits(obj):
            return False
        if self.own_writes.park(key, obj):
            return False
        if obj is not None:
            self._syncing[key] = obj
        return True

    async def _process(self, key: ObjectKey) -> None:
        began = self._loop.time()
        self._metrics.active += 1
        self._workers_at[key] = asyncio.current_task()
        try:
            with object_context(self._kind, key.namespace, key.name):
                result = await self._sync_once(key)
        finally:
            self._metrics.active -= 1
            del self._workers_at[key]
        self._metrics.synced(result, self._loop.time() - began)

    async def _sync_once(self, key: ObjectKey) -> Result:
        try:
            with self._deadline:
                outcome = await self._sync(key)
        except Conflict as conflict:
            delay = self.queue.add_rate_limited(key, Priority.CHANGE)
            level = logging.DEBUG if delay < CONFLICT_SECONDS else logging.WARNING
            log.log(level, "changed meanwhile, syncing again in %.3g s: %s", delay, conflict)
            return Result.REQUEUE
        except PermanentError as error:
            log.warning("not tried again until it changes: %s", error)
            self.queue.forget(key)
            if not error.resync:
                self._hopeless.add(key)
            self._requeue(key, error.requeue_after)
            return Result.TERMINAL_ERROR
        except Fenced as fenced:
            # No failure of the key: the elector says, once for all of them, what has happened.
            log.debug("stopped: %s", fenced)
            self.queue.add_after(key, FENCED_SECONDS, Priority.BACKGROUND)
            return Result.REQUEUE_AFTER
        except (SyncError, KubeError) as error:
            delay = self._retry(key, error)
            known = isinstance(error, SyncError) and error.repeated
            log.log(logging.DEBUG if known else logging.WARNING, "tried again in %.3g s: %s", delay, error)
            return Result.ERROR
        except DeadlineExceeded as error:
            delay = self._retry(key, error)
            log.error("stopped after %g s, tried again in %.3g s", self._deadline.seconds, delay)
            await self._tell(self._on_timeout(key, self._deadline.seconds))
            return Result.TIMEOUT
        except BaseException as error:
            if ends_task(error):
                raise
            delay = self._retry(key, error)
            log_defect(log, error, "unexpected error, tried again in %.3g s", delay)
            await self._tell(self._on_defect(key, error))
            return Result.PANIC
        if outcome.requeue_after is not None and outcome.requeue_after <= 0:
            # Not immediately: a sync that always asks for the next one would take a core for itself.
            self.queue.add_rate_limited(key)
            return Result.REQUEUE
        self._requeue(key, outcome.requeue_after)
        self.queue.forget(key)
        return Result.SUCCESS if outcome.requeue_after is None else Result.REQUEUE_AFTER

    def _requeue(self, key: ObjectKey, seconds: float | None) -> None:
        """Queues a key that asked for it, besides what else queues it; 0 stands for its back-off."""
        if seconds is None or seconds <= 0:
            return
        self.queue.add_after(key, seconds)

    def _swallowed(self, worker: asyncio.Task[Any]) -> None:
        """Says that a sync goes on although it was stopped: in the log, and in its object, too."""
        key = next(key for key, at in self._workers_at.items() if at is worker)
        with object_context(self._kind, key.namespace, key.name):
            log.error(
                "goes on %g s after its sync was stopped, which is tried again: what runs there must let "
                "CancelledError through",
                self._deadline.seconds,
            )
            telling = self._loop.create_task(self._tell(self._on_timeout(key, self._deadline.seconds)))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _tell(self, telling: Awaitable[None]) -> None:
        """Lets the object say what has become of its sync, which is in the log by now."""
        try:
            await telling
        except Fenced as fenced:
            log.debug("its status does not say so: %s", fenced)
        except (SyncError, KubeError) as error:
            log.warning("its status does not say so: %s", error)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "its status does not say so")

    def _retry(self, key: ObjectKey, error: BaseException) -> float:
        """Queues a key that failed; returns the seconds until its next try."""
        if isinstance(error, SyncError):
            self._requeue(key, error.requeue_after)
        after = error.retry_after if isinstance(error, SyncError | ApiError) else None
        if after is None:
            return self.queue.add_rate_limited(key)
        # Many keys are told the same time by one server: spread them.
        after *= random.uniform(1.0, 1.1)  # noqa: S311 - jitter
        self.queue.add_after(key, after, Priority.BACKGROUND)
        return after

    async def _resync_for_ever(self) -> None:
        """Walks over the store once per period, at an even pace, so that no herd ever forms."""
        while True:
            keys = list(self._store.keys())
            period = self._resync * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            steps = max(1, min(len(keys), int(period)))
            for step in range(steps):
                await asyncio.sleep(period / steps)
                for key in keys[step * len(keys) // steps : (step + 1) * len(keys) // steps]:
                    if key not in self._hopeless:
                        self.queue.add(key, Priority.BACKGROUND)
