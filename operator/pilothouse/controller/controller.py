"""The controller: event handlers put keys into a queue, workers take them out and reconcile the objects."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Generic, TypeVar

from pilothouse.controller.cancelling import cancel
from pilothouse.controller.fence import Fenced
from pilothouse.controller.mappers import Mapper
from pilothouse.controller.metrics import ControllerMetrics, Result
from pilothouse.controller.outcome import SHORTEST_SECONDS, Outcome, PermanentError, SyncError, ends_task
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

# How long cancelled reconciles may take to end, in seconds: they need a turn of the event loop.
SYNC_END_SECONDS = 0.25

# How long a key waits after its reconcile met a closed fence, in seconds. Either the process is about to end,
# or this replica has lost the key's shard.
FENCED_SECONDS = 1.0

# Back-off in seconds from which repeated conflicts are logged as a warning: they are no longer chance.
CONFLICT_SECONDS = 1.0

# The shortest delay of a failure that replaces the back-off, in seconds. Below it, the longer one of the
# delay and the back-off counts. Otherwise a server that answers "Retry-After: 0", or a task that passes a
# delay of 0, would switch the back-off off.
KNOWN_DELAY_SECONDS = 1.0


def every_object(obj: KubeObject) -> bool:
    """Returns True: the default of the functions that select objects."""
    return True


def _passes(predicate: Predicate[Any], old: Any, new: Any) -> bool:
    """Evaluates a predicate. If it raises, the change passes: a predicate only saves reconciles."""
    try:
        return predicate(old, new)
    except DEFECTS as error:
        log_defect(log, error, "Predicate failed for %s, reconciling it anyway", (new or old).metadata.key)
        return True


def _known(misfit: Misfit) -> Any:
    """Returns the metadata of an object that could not be decoded, enough to find its shard and its owner."""
    return PartialObjectMetadata(misfit.metadata)


async def _ignore(key: ObjectKey, what: object) -> None:
    """Does nothing: the default of the callbacks."""


class Controller(Generic[T]):
    """Reconciles the objects of one kind: many at the same time, but one at a time per object.

    An object is reconciled when it appears, when it changes and the predicate accepts the change, when a
    related object of another kind changes (see `watch`), and at every resync. It is also reconciled again
    after a failure, with back-off, and when its reconcile asked for it. A failure delays only its own key.

    Attributes:
        own_writes: The writes that reconciles made and the watches have not shown yet.
        queue: The keys of the objects to reconcile.
        admits: Whether this process reconciles an object.

    Args:
        name: The controller's name: a label of its metrics.
        api: Reads an object live when the informer's store is stale.
        informer: The informer of the objects.
        sync: Reconciles the object with the given key. It reads the object from the informer's store, may be
            called at any time and must be idempotent. If it raises PermanentError, there is no retry until
            the object changes. Conflict means that the object has changed in between: it is reconciled again
            without reporting a failure. Any other error is retried.
        workers: The maximum number of objects that are reconciled at the same time.
        resync: The time in seconds in which every object is reconciled about once; 0 disables resyncs.
        sync_timeout: The time limit of a reconcile, in seconds. A reconcile that takes longer is cancelled
            and counts as failed. A thread cannot be cancelled: the key is not reconciled again until the
            threads that its reconcile started have ended.
        predicate: Selects the changes that cause a reconcile. It is not called for a deleted object, which
            never causes one.
        on_timeout: Called with the key and the time limit when a reconcile timed out, to report it in the
            object's status.
        on_defect: Called with the key and the error when a reconcile ended with an unexpected error, to
            report it in the object's status.
        own_writes: An `OwnWrites` that the reconciles already use, if they were created before the
            controller. By default the controller creates one.
        admits: Whether this process reconciles an object: `Manager.admits`. It is called when a worker has
            taken the key; if it returns False, the key is skipped. Call `enqueue_all` when its results may
            have changed. By default it admits every object.
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
        on_timeout: Callable[[ObjectKey, float], Awaitable[None]] = _ignore,
        on_defect: Callable[[ObjectKey, BaseException], Awaitable[None]] = _ignore,
        own_writes: OwnWrites[T] | None = None,
        admits: Callable[[T], bool] = every_object,
    ) -> None:
        self.name = name
        self.own_writes = own_writes or OwnWrites(api, informer, WorkQueue(name))
        self.queue = self.own_writes.queue
        self.admits = admits
        self._informer = informer
        self._store = informer.store
        self._sync = sync
        self._workers = workers
        self._resync = resync
        self._deadline = Deadline(sync_timeout, self._report_swallowed)
        self._predicate = predicate
        self._on_timeout = on_timeout
        self._on_defect = on_defect
        self._kind = informer.resource.kind
        self._loop = asyncio.get_running_loop()
        self._metrics = ControllerMetrics(name, workers)
        self._syncing: dict[ObjectKey, T] = {}
        # The asyncio task of the worker that reconciles a key.
        self._workers_at: dict[ObjectKey, asyncio.Task[Any] | None] = {}
        # Running calls of `on_timeout` for reconciles that have swallowed their cancellation.
        self._reporting: set[asyncio.Task[None]] = set()
        # Whether a cancelled worker ends. Before that, only its reconcile is cancelled.
        self._ending = False
        # Keys that failed permanently: resyncs skip them until something changes.
        self._failed: set[ObjectKey] = set()
        # Whether a request for a delay below the shortest one is logged already.
        self._raised = False
        informer.add_handler(self._observe)
        informer.store.add_misfit_handler(lambda key, misfit: self._wake(key, initial=False))

    def watch(self, informer: Informer[S], mapper: Mapper[S], predicate: Predicate[S] = any_change) -> None:
        """Reconciles objects when related objects of another kind change.

        Args:
            informer: The informer of the other kind.
            mapper: Returns the keys of the objects to reconcile, for example `owner_mapper(...)`. For a
                changed object it is called with the old and the new state, so that both the old and the new
                owner are reconciled. For a deleted object it is called with the last known state.
            predicate: Selects the changes that cause a reconcile.
        """

        def observe(old: S | None, new: S | None, initial: bool) -> None:
            if _passes(predicate, old, new):
                states = [state for state in (old, new) if state is not None]
                for key in dict.fromkeys(key for state in states for key in mapper(state)):
                    if not isinstance(key, ObjectKey):
                        raise TypeError(f"The mapper returned {key!r}: it must return ObjectKeys.")
                    self._wake(key, initial)

        informer.add_handler(observe)

    def enqueue_all(self, where: Callable[[T], bool] = every_object) -> None:
        """Queues every matching object at low priority: objects that change come first.

        Args:
            where: Selects the objects.
        """
        for obj in self._store.values():
            if where(obj):
                self.queue.add(obj.metadata.key, Priority.BACKGROUND)
        for misfit in self._store.misfits:
            if where(_known(misfit)):
                self.queue.add(misfit.metadata.key, Priority.BACKGROUND)

    @property
    def syncing(self) -> Collection[T]:
        """The objects that are being reconciled now, in the state in which their reconcile began."""
        return self._syncing.values()

    def stop_syncs(self, where: Callable[[T], bool]) -> None:
        """Cancels the running reconciles of matching objects immediately, as if they had met a closed fence.

        Args:
            where: Selects the objects.
        """
        for key, obj in self._syncing.items():
            if where(obj) and (worker := self._workers_at.get(key)):
                self._deadline.stop(worker, Fenced())

    async def run(self) -> None:
        """Runs the workers until the queue is shut down or the caller cancels.

        Running reconciles are then cancelled. A reconcile that does not end within a fraction of a second is
        left running, behind a closed fence: code that swallows the cancellation must not delay the stop.

        Raises:
            RuntimeError: A worker has ended before the controller was stopped.
            Exception: The error that ended a worker or the resync.
        """
        workers = [self._loop.create_task(self._work()) for _ in range(self._workers)]
        parts = [*workers, self._loop.create_task(self._resync_forever())] if self._resync else workers
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self.queue.shut:
                await asyncio.wait(workers)
                return
            for part in ended:
                # Raises the error that ended it.
                if not part.cancelled():
                    part.result()
            raise RuntimeError(f"A worker of the controller {self.name} has ended.")
        finally:
            self._ending = True
            await cancel([*parts, *self._reporting], SYNC_END_SECONDS)
            self._deadline.close()
            self.own_writes.close()

    async def drain(self) -> None:
        """Stops taking keys, and returns when the running reconciles have ended."""
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
        self._failed.discard(key)
        self.queue.add(key, Priority.BACKGROUND if initial else Priority.CHANGE)

    def _forget(self, key: ObjectKey) -> None:
        self.queue.forget(key)
        self.own_writes.forget(key)
        self._failed.discard(key)

    async def _work(self) -> None:
        # A reconcile may have swallowed its cancellation.
        while not self._ending:
            try:
                key = await self.queue.get()
            except ShutDown:
                return
            threads = threads_left()
            try:
                if self._is_due(key):
                    await self._process(key)
                # A reconcile that has nothing to do never waits: give the watch and the probes a turn.
                await asyncio.sleep(0)
            except BaseException as error:
                if self._ending or isinstance(error, KeyboardInterrupt | GeneratorExit):
                    raise
                await self._recover(key, error)
            finally:
                if threads:
                    self._hold(key, threads)
                else:
                    self._done(key)

    async def _recover(self, key: ObjectKey, error: BaseException) -> None:
        """Requeues and reports a key whose reconcile let an error escape, and keeps the worker running.

        The reconcile may even have cancelled its own task, which ends the reconcile but not the worker.
        """
        worker = asyncio.current_task()
        while worker is not None and worker.cancelling():
            worker.uncancel()
        delay = self.queue.add_rate_limited(key)
        with object_context(self._kind, key.namespace, key.name):
            log_defect(log, error, "Unexpected error at %s %s, retrying in %.4g s", self._kind, key, delay)
            await self._report(self._on_defect(key, error))

    def _done(self, key: ObjectKey) -> None:
        self._syncing.pop(key, None)
        self.queue.done(key)

    def _hold(self, key: ObjectKey, threads: list[asyncio.Future[None]]) -> None:
        """Blocks a key until the threads that its reconcile left running have ended."""
        if not self.queue.shut and not all(each.done() for each in threads):
            log.warning(
                "%s %s is blocked until a thread that its last reconcile started has ended; give the "
                "blocking call in that thread a time limit of its own",
                self._kind,
                key,
            )
        asyncio.gather(*threads).add_done_callback(lambda _: self._done(key))

    def _is_due(self, key: ObjectKey) -> bool:
        """Returns whether to reconcile a key now.

        The object must be one of ours, and the watches must have shown our last writes. Until they have, the
        key is parked; then it is queued again.
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
            log.log(level, "Conflict, the object has changed, retrying in %.4g s: %s", delay, conflict)
            return Result.REQUEUE
        except PermanentError as error:
            log.warning("Failed permanently, not retrying until the object changes: %s", error)
            self.queue.forget(key)
            if not error.resync:
                self._failed.add(key)
            self._requeue(key, error.requeue_after)
            return Result.TERMINAL_ERROR
        except Fenced as fenced:
            # Not a failure of this key: the elector logs the loss of the Lease once for all keys.
            log.debug("Reconcile stopped: %s", fenced)
            self.queue.add_after(key, FENCED_SECONDS, Priority.BACKGROUND)
            return Result.REQUEUE_AFTER
        except (SyncError, KubeError) as error:
            delay = self._retry(key, error)
            known = isinstance(error, SyncError) and error.repeated
            log.log(logging.DEBUG if known else logging.WARNING, "Retrying in %.4g s: %s", delay, error)
            return Result.ERROR
        except DeadlineExceeded as error:
            delay = self._retry(key, error)
            log.error("Reconcile timed out after %g s, retrying in %.4g s", self._deadline.seconds, delay)
            await self._report(self._on_timeout(key, self._deadline.seconds))
            return Result.TIMEOUT
        except BaseException as error:
            if ends_task(error):
                raise
            delay = self._retry(key, error)
            log_defect(log, error, "Unexpected error, retrying in %.4g s", delay)
            await self._report(self._on_defect(key, error))
            return Result.PANIC
        if outcome.requeue_after is not None and outcome.requeue_after <= 0:
            # Not immediately: a reconcile that always asks for the next one would occupy a whole core.
            self.queue.add_rate_limited(key)
            return Result.REQUEUE
        self._requeue(key, outcome.requeue_after)
        self.queue.forget(key)
        return Result.SUCCESS if outcome.requeue_after is None else Result.REQUEUE_AFTER

    def _requeue(self, key: ObjectKey, seconds: float | None) -> None:
        """Queues a key after the given time, in addition to its back-off; does nothing for 0 and None."""
        if seconds is None or seconds <= 0:
            return
        self.queue.add_after(key, self._at_least(seconds))

    def _at_least(self, seconds: float) -> float:
        """Returns a requested delay, raised to the shortest one. The first time, that is logged."""
        if not 0 < seconds < SHORTEST_SECONDS:
            return seconds
        if not self._raised:
            self._raised = True
            log.warning(
                "The next reconcile was requested after %.4g s. The controller %s waits at least %g s. Pass "
                "a longer requeue_after, fallback or retry_after, or watch the objects that the task waits "
                "for. This is logged once",
                seconds,
                self.name,
                SHORTEST_SECONDS,
            )
        return SHORTEST_SECONDS

    def _report_swallowed(self, worker: asyncio.Task[Any]) -> None:
        """Reports a reconcile that swallowed its cancellation, in the log and in the object's status."""
        key = next(key for key, at in self._workers_at.items() if at is worker)
        with object_context(self._kind, key.namespace, key.name):
            log.error(
                "Still running after it was cancelled at its time limit of %g s, cancelling again: a "
                "playbook task is swallowing CancelledError",
                self._deadline.seconds,
            )
            reporting = self._loop.create_task(self._report(self._on_timeout(key, self._deadline.seconds)))
        self._reporting.add(reporting)
        reporting.add_done_callback(self._reporting.discard)

    async def _report(self, report: Awaitable[None]) -> None:
        """Awaits a report of a failure into the object's status. The failure itself is already in the log."""
        try:
            await report
        except Fenced as fenced:
            log.debug("Could not record the failure in the object's status: %s", fenced)
        except (SyncError, KubeError) as error:
            log.warning("Could not record the failure in the object's status: %s", error)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "Could not record the failure in the object's status")

    def _retry(self, key: ObjectKey, error: BaseException) -> float:
        """Queues a key whose reconcile failed, and returns the seconds until its retry."""
        if isinstance(error, SyncError):
            self._requeue(key, error.requeue_after)
        after = error.retry_after if isinstance(error, SyncError | ApiError) else None
        if after is None or after < KNOWN_DELAY_SECONDS:
            return self.queue.add_rate_limited(key, least=self._at_least(after or 0.0))
        # One API server gives many keys the same delay: spread them.
        after *= random.uniform(1.0, 1.1)  # noqa: S311 - jitter
        self.queue.add_after(key, after, Priority.BACKGROUND)
        return after

    async def _resync_forever(self) -> None:
        """Queues every object of the store once per period, evenly spread over it."""
        while True:
            keys = list(self._store.keys())
            period = self._resync * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            steps = max(1, min(len(keys), int(period)))
            for step in range(steps):
                await asyncio.sleep(period / steps)
                for key in keys[step * len(keys) // steps : (step + 1) * len(keys) // steps]:
                    if key not in self._failed:
                        self.queue.add(key, Priority.BACKGROUND)
