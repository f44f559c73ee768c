"""The engine around the tasks of a reconcile: finalizer, status, Events, pauses and failures."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from pilothouse.controller import (
    EventRecorder,
    EventType,
    Fence,
    Outcome,
    PermanentError,
    Predicate,
    SyncError,
    Written,
    meaningful_change,
    noting_writes,
)
from pilothouse.controller.outcome import ends_task
from pilothouse.informer import Store
from pilothouse.kube import (
    Api,
    Conflict,
    KubeError,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    hide_contents,
)
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.ends import Ends, failed
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.pace import WRITES_REPEATED, Pace
from pilothouse.playbook.play import Play, PlayEvent
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.records import Records
from pilothouse.playbook.rivals import StatusRivals
from pilothouse.playbook.status import READY, Aspect, PlayStatus, with_conditions
from pilothouse.playbook.status_writer import NoStatusSubresource, StatusWriter
from pilothouse.playbook.tasks import Task, TaskFailed, refused, unexpected
from pilothouse.playbook.trouble import (
    FINALIZER_NOT_REMOVED,
    FINALIZER_NOT_STORED,
    STATUS_NOT_WRITTEN,
    UNKNOWN_FINALIZER,
    Trouble,
)
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)
S = TypeVar("S", bound=PlayStatus)

PAUSED = "pilothouse.dev/paused"
"""An annotation. While it is "true", the operator neither reconciles the object nor cleans it up, and the
condition Ready is Unknown."""

RECONCILE = "pilothouse.dev/reconcile"
"""An annotation. Any new value causes a reconcile, also after a permanent failure."""

PAUSED_READY = Aspect(
    READY, None, "Paused", f"Not reconciled while the annotation {PAUSED} is true. Remove it to continue."
)

DONE = Outcome()


class Notified(NamedTuple):
    """Handlers that were notified in an object's last reconcile and have not run."""

    uid: str
    handlers: set[Task[Any]]


class Settled(NamedTuple):
    """A state of an object: its UID and generation; for kinds without generation, its resourceVersion."""

    uid: str
    state: str


class Reconciler(Generic[T]):
    """Reconciles the objects of a kind with a playbook.

    The finalizer is stored before the first task. The status is written once per reconcile, and only if it
    differs. The write carries the resourceVersion of the object that was reconciled; if the object has
    changed in between, it is reconciled again. An object that already matches its spec costs no request. A
    deleted object is not reconciled again after its cleanup. If finalizers of others remain, its status is
    written before its own finalizer is removed.

    If the reconciles of an object keep making the same writes, they run with growing pauses, and an Event
    reports that. See `pilothouse.playbook.pace`.

    If the API server refuses a write of the engine itself, or if conflicts last, this is reported on the
    object, by an Event and, if the status can be written, by the condition Ready. The object is retried with
    back-off.

    Args:
        api: The client of the API server.
        resource: The kind.
        store: The store of the objects.
        playbook: The playbook.
        recorder: Records the Events.
        cluster: What the modules use. By default they can use no other kind, and no Lease fences them.
        wrote: Called with the object that a write returned. By default it is put into the store.
            `OwnWrites.wrote` also prevents another reconcile because of the write.
        played: Called with each recap. By default it is counted in the metrics.
        meaningful: Selects the changes by other clients, apart from those of the status, that cause a
            reconcile.
        owner: The name of this operator, and of this watch if it has several of the kind, in annotations.
        writes_status: Whether the operator writes the status of the objects. By default it does if the view
            has one. Otherwise the results are reported by Events and in the log.
        later: Queues an object after a number of seconds, when its status may be restored. A controller needs
            it.
        known_finalizers: Returns the finalizers of all watches of the kind in the process.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource[T],
        store: Store[T],
        playbook: Playbook[Any],
        recorder: EventRecorder,
        cluster: Cluster | None = None,
        *,
        wrote: Callable[[T], None] | None = None,
        played: Callable[[Recap], None] | None = None,
        meaningful: Predicate[T] = meaningful_change,
        owner: str = "",
        writes_status: bool | None = None,
        later: Callable[[ObjectKey, float], None] | None = None,
        known_finalizers: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._api = api
        self._resource = resource
        self._store = store
        self._playbook = playbook
        self._cluster = cluster or Cluster(api, Fence(), resource, manager="")
        # Annotations that are being written: the watch may show them before the response arrives.
        self._annotating: dict[ObjectKey, Mapping[str, str]] = {}
        self._owner = owner
        self._notified: dict[ObjectKey, Notified] = {}
        self._wrote: Callable[[T], None] = wrote or store.observe
        self._played: Callable[[Recap], None] = played or TaskMetrics(resource.kind.lower()).played
        self._meaningful = meaningful
        self._announcer = Announcer(resource, recorder)
        self._has_status = "status" in resource.view.__struct_fields__
        enabled = self._has_status if writes_status is None else writes_status
        self._statuses = StatusWriter(api, resource, self._wrote, enabled=enabled)
        self._pace = Pace()
        # The finalizers of our domain that were logged because this release does not know them.
        self._unknown: set[str] = set()
        self._known_finalizers = known_finalizers
        self._trouble = Trouble(self._statuses, self._announcer)
        self._later = later or _never
        self._rivals = StatusRivals(
            api, resource, self._cluster.contention, self._announcer, self._cluster.manager
        )
        # For kinds without a status: the objects that are known to be paused, and the states that were
        # reconciled.
        self._paused: set[ObjectKey] = set()
        self._settled: dict[ObjectKey, Settled] = {}

    async def sync(self, key: ObjectKey) -> Outcome:
        """Reconciles one object.

        Raises:
            SyncError: A task failed, the conflicts of the object last, or another process may lead by now.
            PermanentError: A task failed and will fail again until the object changes.
            Conflict: The object has changed since it was read.
            KubeError: The API server cannot be reached, or it refused a write.
        """
        try:
            outcome = await self._reconcile(key)
        except Conflict as conflict:
            obj = self._store.get(key)
            if obj is None or self._store.misfit(key):
                raise
            error = await self._trouble.conflicted(obj, conflict)
            if error is conflict:
                raise
            raise error from conflict
        except BaseException:
            self._trouble.no_conflict(key)
            raise
        self._trouble.no_conflict(key)
        return outcome

    async def _reconcile(self, key: ObjectKey) -> Outcome:
        if misfit := self._store.misfit(key):
            return await self._report_misfit(misfit.metadata, misfit.why)
        obj = self._store.get(key)
        if obj is None:
            return DONE
        wait = self._pace.wait(obj, _wanted(obj))
        if wait:
            return Outcome(wait)
        outcome: Outcome | None = None
        with noting_writes() as writes:
            try:
                outcome = await self._sync(obj)
            finally:
                self._note_writes(obj, writes, outcome)
        return outcome

    def _note_writes(self, obj: T, writes: Sequence[Written], outcome: Outcome | None) -> None:
        """Counts the writes of a reconcile, and reports writes that repeat."""
        asked = outcome.requeue_after if outcome is not None else None
        if not isinstance(asked, int | float):  # The controller reports an author's invalid value.
            asked = float("inf")
        report = self._pace.note(obj, _wanted(obj), writes, failed=outcome is None, asked=asked)
        if report:
            log.warning("%s", report)
            self._announcer.warn(obj.metadata, TaskFailed(WRITES_REPEATED, report))

    async def _sync(self, obj: T) -> Outcome:
        if not self._concerns(obj.metadata):
            self._report_unknown_finalizers(obj.metadata)
            return DONE
        if obj.metadata.annotations.get(PAUSED) == "true":
            await self._pause(obj)
            return DONE
        self._paused.discard(obj.metadata.key)
        self._log_unknown_finalizers(obj.metadata)
        stored = await self._store_finalizer(obj)
        if stored is None:
            return DONE
        play = self._play(stored, check=False)
        recap = await self._run(play)
        self._played(recap)
        self._announcer.report(play, recap)
        if play.deleting and not recap.ends.all and play.after is None:
            return await self._release(play, recap)
        return await self._conclude(play, await self._record_waits(play, recap))

    async def _record_waits(self, play: Play[T, Any], recap: Recap) -> Recap:
        """Records since when tasks have been waiting. If that cannot be written, the reconcile has failed."""
        try:
            await play.records.save_waits(play, ended=not recap.ends.all)
        except Conflict:
            raise
        except KubeError as error:
            failure = refused("The start of a wait could not be recorded", error)
            return recap._replace(ends=recap.ends.then(failed(failure)))
        return recap

    async def _conclude(self, play: Play[T, Any], recap: Recap) -> Outcome:
        """Writes the status after the tasks, and returns when to reconcile the object again.

        Raises:
            SyncError: A task failed, or the API server refused the status.
        """
        repeated = not await self._write_status(play, recap)
        if recap.failure is None:
            self._trouble.forget(play.object.metadata.key)
        elif not self._statuses.enabled:
            repeated = self._trouble.repeated(play.object.metadata, recap.failure)
        return _outcome(play, recap.ends, repeated=repeated)

    async def _write_status(self, play: Play[T, Any], recap: Recap) -> bool:
        """Writes the status after the tasks, and returns whether it differed."""
        if not self._statuses.enabled:
            self._note_settled(play, recap)
            return False
        written, wait = await self._write_contested(play.object, _final_status(play, recap))
        if wait:
            play.requeue_after(wait)
        return written is not play.object

    async def _write_contested(self, obj: T, status: PlayStatus) -> tuple[T, float]:
        """Writes a status, but restores what another client keeps changing only with growing pauses.

        Returns:
            The object as written, and the seconds until the rest of the status may be written.
        """
        contested = self._rivals.contested(obj, status)
        status, wait = self._rivals.postpone(obj, status, contested)
        written = await self._write(obj, status)
        if contested and not wait:
            await self._rivals.corrected(obj, contested)
        elif not wait:
            self._rivals.forget(obj.metadata.key)
        return written, wait

    async def _record(self, obj: T, status: PlayStatus) -> T:
        """Writes a status during a reconcile. It is never postponed, because an effect may depend on it."""
        contested = self._rivals.contested(obj, status)
        written = await self._statuses.record(obj, status)
        if contested:
            await self._rivals.corrected(obj, contested)
        return written

    async def _write(self, obj: T, status: PlayStatus) -> T:
        """Writes the differences of a status, reports a refusal, and returns the object as written."""
        try:
            return await self._statuses.write(obj, status)
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            what = "The status of this object cannot be written"
            raise await self._trouble.refused(obj, STATUS_NOT_WRITTEN, what, error) from error

    async def _release(self, play: Play[T, Any], recap: Recap) -> Outcome:
        """Removes the finalizer from an object after its cleanup."""
        held = play.object
        others = self._playbook.finalizers.released(held.metadata.finalizers)
        if others and self._statuses.enabled:
            held = await self._write_last_status(play, recap)
        what = f"The cleanup is done, but the finalizer {self._playbook.finalizers} cannot be removed"
        await self._write_finalizers(held, others, FINALIZER_NOT_REMOVED, what)
        self._trouble.forget(held.metadata.key)
        return DONE

    async def check(self, obj: T) -> tuple[Recap, dict[str, object]]:
        """Reconciles in check mode: writes nothing, makes no outside calls and records no Events.

        Args:
            obj: The object.

        Returns:
            The recap with the changes that would be made, and the merge patch of the status.
        """
        play = self._play(obj, check=True)
        recap = await self._playbook.run(play)
        return recap, self._statuses.patch(obj, _final_status(play, recap)) if self._statuses.enabled else {}

    def status_changes(self, before: T, after: T) -> dict[str, object]:
        """Returns how the status differs between two versions of an object, as a merge patch."""
        return self._statuses.patch(before, cast("Any", after).status) if self._statuses.enabled else {}

    async def timed_out(self, key: ObjectKey, seconds: float) -> None:
        """Reports on an object that its reconcile timed out.

        Args:
            key: The object.
            seconds: The time limit.

        Raises:
            KubeError: The API server cannot be reached, or it refused the write.
        """
        obj = self._store.get(key)
        if obj is None:
            return
        failure = TaskFailed(
            "Timeout",
            f"Timed out after {seconds:g} s; retrying. If the object needs longer, raise the operator's "
            "SYNC_TIMEOUT.",
        )
        self._announcer.warn(obj.metadata, failure)
        if not self._statuses.enabled:
            return
        try:
            play = self._play(obj, check=False)
            play.failed(failure)
            await self._statuses.write(obj, _final_status(play, Recap([], failed(failure))))
        except (Conflict, SyncError):
            raise
        except KubeError:
            await self._statuses.write_failure(obj, failure)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "Could not let the playbook report the timeout")
            await self._statuses.write_failure(obj, failure)

    async def met_defect(self, key: ObjectKey, error: BaseException) -> None:
        """Reports on an object that its reconcile met an unexpected error outside of any task.

        Args:
            key: The object.
            error: The unexpected error.

        Raises:
            KubeError: The API server cannot be reached, or it refused the write.
        """
        obj = self._store.get(key)
        if obj is not None:
            failure = unexpected("play", error)
            self._announcer.warn(obj.metadata, failure)
            await self._statuses.write_failure(obj, failure)

    async def _write_last_status(self, play: Play[T, Any], recap: Recap) -> T:
        """Writes the status of an object that finalizers of others keep after its cleanup.

        If the status cannot be written, the finalizer is removed all the same.
        """
        obj = play.object
        try:
            return await self._statuses.write(obj, _final_status(play, recap))
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            if self._trouble.passes(obj.metadata.key, error):
                raise
            log.warning("Removing the finalizer although the last status cannot be written: %s", error)
            message = f"The status after the cleanup cannot be written: {error}"
            self._announcer.warn(obj.metadata, TaskFailed(STATUS_NOT_WRITTEN, message))
        except SyncError:
            raise
        except Exception as error:
            log_defect(log, error, "Removing the finalizer although the last status cannot be written")
        return obj

    def worth_a_play(self, old: T | None, new: T | None) -> bool:
        """Returns whether a change causes a reconcile: the predicate of the controller.

        A status that another client wrote does: if the operator writes the status, it is restored. The watch
        may show a finalizer, annotation or status of our own before the response to the write arrives; that
        does not cause a reconcile.
        """
        if old is None or new is None:
            return True
        if self._has_status and self._status_differs(old, new):
            key = new.metadata.key
            wait = self._rivals.overwritten(key, cast("Any", old).status) if self._statuses.enabled else 0.0
            if not wait:
                return True
            self._later(key, wait)
        # Kinds without metadata.generation, such as ConfigMap, have no spec either.
        if not new.metadata.generation and _content_differs(old, new):
            return True
        own: dict[str, Any] = {}
        finalizers = self._playbook.finalizers.stored(old.metadata.finalizers)
        if new.metadata.finalizers == finalizers:
            own["finalizers"] = finalizers
        annotations = self._annotating.get(new.metadata.key)
        if new.metadata.annotations == annotations:
            own["annotations"] = annotations
        if not own:
            return self._meaningful(old, new)
        metadata = msgspec.structs.replace(old.metadata, **own)
        return self._meaningful(msgspec.structs.replace(cast("Any", old), metadata=metadata), new)

    def _status_differs(self, old: Any, new: Any) -> bool:
        return new.status not in (old.status, self._statuses.unanswered(new.metadata.key))

    def _play(self, obj: T, *, check: bool) -> Play[T, Any]:
        hide_contents(self._resource, obj)
        enabled = self._statuses.enabled
        play: Play[T, Any] = self._playbook.play(
            obj,
            check=check,
            cluster=self._cluster,
            records=Records(self._owner, None if check else self._annotate),
            writes_status=enabled,
            settled=None if enabled else self._settled.get(obj.metadata.key) == _state(obj),
        )
        play.status_writer = self._record
        return play

    async def _run(self, play: Play[T, Any]) -> Recap:
        """Runs the playbook, including handlers that were notified earlier and have not run."""
        if not self._playbook.handlers:
            return await self._playbook.run(play)
        metadata = play.object.metadata
        pending = self._notified.pop(metadata.key, None)
        if pending is not None and pending.uid == metadata.uid:
            play.notified |= pending.handlers
        try:
            return await self._playbook.run(play)
        finally:
            if play.notified:
                self._notified[metadata.key] = Notified(metadata.uid, play.notified)

    def due(self, key: ObjectKey) -> Sequence[str]:
        """Returns the names of the handlers that were notified in the last reconcile and have not run."""
        pending = self._notified.get(key)
        handlers = self._playbook.handlers if pending is not None else ()
        return [handler.name for handler in handlers if pending and handler in pending.handlers]

    def readable(self, key: ObjectKey) -> None:
        """Records that an object can be decoded again."""
        self._trouble.forget(key)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._notified.pop(key, None)
        self._paused.discard(key)
        self._settled.pop(key, None)
        self._rivals.gone(key)
        self._pace.forget(key)
        self._announcer.forget(key)
        self._trouble.forget(key)

    async def _report_misfit(self, metadata: ObjectMeta, why: str) -> Outcome:
        """Reports an object that cannot be decoded. It is neither reconciled nor cleaned up."""
        if not self._concerns(metadata):
            self._report_unknown_finalizers(metadata)
            return DONE
        self._log_unknown_finalizers(metadata)
        finalizers = self._playbook.finalizers
        deleting = metadata.deletion_timestamp is not None
        await self._trouble.undecodable(metadata, why, str(finalizers) if deleting else "")
        return DONE

    def _concerns(self, metadata: ObjectMeta) -> bool:
        """Returns whether to reconcile an object: not if it is being deleted and our finalizer is removed."""
        return metadata.deletion_timestamp is None or self._playbook.finalizers.hold(metadata)

    def _report_unknown_finalizers(self, metadata: ObjectMeta) -> None:
        """Reports finalizers of our domain on a deleted object that this release does not know.

        Another controller of the group may remove them. But an earlier release may also have stored them.
        """
        unknown = self._unknown_finalizers(metadata)
        if not unknown:
            return
        failure = TaskFailed(
            UNKNOWN_FINALIZER,
            f"The object cannot be deleted because of the finalizer {unknown}, which this release "
            "of the operator does not know. If an earlier release stored it, add it to the playbook's "
            "retired_finalizers. Or delete manually what belongs to the object, and remove the finalizer.",
        )
        if not self._trouble.repeated(metadata, failure):
            log.warning("%s", failure.message)
            self._announcer.warn(metadata, failure)

    def _log_unknown_finalizers(self, metadata: ObjectMeta) -> None:
        """Logs the finalizers of our domain that this release does not know, once for each name.

        They are no trouble before an object is deleted. The log line shows them when the release is
        installed, before a user waits for a deletion.
        """
        unknown = self._unknown_finalizers(metadata)
        if not unknown or unknown in self._unknown:
            return
        self._unknown.add(unknown)
        log.warning(
            "Found the finalizer %s, which this release of the operator does not know. If no other "
            "controller removes it, the deletion of its objects will not finish. If an earlier release "
            "stored it, add it to the playbook's retired_finalizers. It is logged for the first object only",
            unknown,
        )

    def _unknown_finalizers(self, metadata: ObjectMeta) -> str:
        """Returns the finalizers of our domains that the playbook does not have, separated by commas."""
        finalizers = self._playbook.finalizers
        domains = {self._resource.group, *finalizers.domains}
        others = [name for name in metadata.finalizers if name.partition("/")[0] in domains]
        if not others:
            return ""
        known = {finalizers.current, *finalizers.retired, *self._known_finalizers()}
        return ", ".join(name for name in others if name not in known)

    async def _pause(self, obj: T) -> None:
        """Reports once that an object is paused: in its status, or by an Event if it has no status."""
        if not self._statuses.enabled:
            if obj.metadata.key not in self._paused:
                self._paused.add(obj.metadata.key)
                log.info("Paused by the annotation %s", PAUSED)
                event = PlayEvent(EventType.NORMAL, PAUSED_READY.reason, PAUSED_READY.message, "Pause")
                self._announcer.record(obj.metadata, event)
            return
        for condition in cast("Any", obj).status.conditions:
            if (condition.type, condition.reason) == (READY, PAUSED_READY.reason):
                return
        log.info("Paused by the annotation %s", PAUSED)
        play = self._play(obj, check=False)
        play.paused()
        status = with_conditions(play.status, obj.metadata.generation, [PAUSED_READY])
        _, wait = await self._write_contested(obj, status)
        if wait:
            self._later(obj.metadata.key, wait)

    def _note_settled(self, play: Play[T, Any], recap: Recap) -> None:
        """Records whether an object without a status of ours was reconciled in its current state."""
        key = play.object.metadata.key
        if _ready(play, recap).status:
            self._settled[key] = _state(play.object)
        else:
            self._settled.pop(key, None)

    async def _store_finalizer(self, obj: T) -> T | None:
        """Stores the finalizer and removes retired ones in one write; returns None if the object is gone."""
        metadata = obj.metadata
        finalizers = self._playbook.finalizers.stored(metadata.finalizers)
        if metadata.deletion_timestamp is not None or finalizers == metadata.finalizers:
            return obj
        what = f"No task runs, because the finalizer {self._playbook.finalizers} cannot be stored"
        return await self._write_finalizers(obj, finalizers, FINALIZER_NOT_STORED, what)

    async def _annotate(self, obj: T, annotations: Mapping[str, str | None]) -> T:
        """Sets annotations, removes those with the value None, and returns the object as written."""
        key, metadata = obj.metadata.key, obj.metadata
        merged = {**metadata.annotations, **annotations}
        self._annotating[key] = {name: value for name, value in merged.items() if value is not None}
        body = {"metadata": {"resourceVersion": metadata.resource_version, "annotations": annotations}}
        try:
            written = await self._api.patch(self._resource, key, body, type=PatchType.MERGE)
        finally:
            self._annotating.pop(key, None)
        self._wrote(written)
        return written

    async def _write_finalizers(
        self, obj: T, finalizers: Sequence[str], reason: str, sentence: str
    ) -> T | None:
        """Writes the finalizers, and reports a refusal.

        Returns:
            The object as written; None if it no longer exists.
        """
        key = obj.metadata.key
        metadata = {"resourceVersion": obj.metadata.resource_version, "finalizers": finalizers}
        try:
            written = await self._api.patch(self._resource, key, {"metadata": metadata}, type=PatchType.MERGE)
        except Conflict:
            raise
        except KubeError as error:
            if isinstance(error, NotFound) and not await self._statuses.exists(key):
                return None
            raise await self._trouble.refused(obj, reason, sentence, error) from error
        self._wrote(written)
        return written


def _outcome(play: Play[Any, Any], ends: Ends, *, repeated: bool) -> Outcome:
    """Returns when to reconcile the object again, if no task failed.

    Raises:
        PermanentError: All failures are permanent.
        SyncError: At least one failure is not permanent.
    """
    asked = [waiting.fallback for waiting in ends.waits]
    if play.after is not None and not ends.failed:
        asked.append(play.after)
    after = min(asked, default=None)
    failures = ends.failures
    if not failures:
        return DONE if after is None else Outcome(after)
    message = "; ".join(dict.fromkeys(failure.message for failure in failures))
    passing = [failure for failure in failures if not failure.permanent]
    if not passing:
        raise PermanentError(message, requeue_after=after, resync=not ends.failed)
    known = [failure.retry_after for failure in passing if failure.retry_after is not None]
    # If one failure has no known delay, the back-off decides.
    retry_after = min(known) if len(known) == len(passing) else None
    raise SyncError(message, retry_after=retry_after, requeue_after=after, repeated=repeated)


def _never(key: ObjectKey, seconds: float) -> None:
    """Does nothing: without a controller, there is no queue."""


def _state(obj: KubeObject) -> Settled:
    metadata = obj.metadata
    return Settled(
        metadata.uid, str(metadata.generation) if metadata.generation else metadata.resource_version
    )


def _wanted(obj: Any) -> object:
    """Returns what a user changes of an object: its spec, its deletion, and the engine's annotations.

    Kinds without metadata.generation, such as ConfigMap, have no spec either: all their fields count.
    """
    metadata: ObjectMeta = obj.metadata
    content: tuple[object, ...] = ()
    if not metadata.generation:
        content = tuple(getattr(obj, name) for name in _content_fields(obj))
    annotations = [metadata.annotations.get(name) for name in (PAUSED, RECONCILE)]
    return metadata.uid, metadata.generation, metadata.deletion_timestamp, annotations, content


def _content_fields(obj: Any) -> list[str]:
    return [name for name in obj.__struct_fields__ if name not in ("metadata", "status")]


def _content_differs(old: KubeObject, new: KubeObject) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in _content_fields(new))


def _final_status(play: Play[T, S], recap: Recap) -> S:
    generation = play.object.metadata.generation
    return with_conditions(
        play.status,
        generation,
        (_ready(play, recap), *play.pending_conditions),
        observed_generation=generation,
    )


def _ready(play: Play[Any, Any], recap: Recap) -> Aspect:
    failure, waiting = recap.failure, recap.waiting
    if failure is not None:
        return Aspect(READY, False, failure.reason, failure.message)
    if waiting is None:
        return Aspect(READY, play.ready, play.ready_reason, play.ready_message)
    if recap.unfinished:
        message = f"The plan {recap.unfinished} has not finished. {waiting}"
        return Aspect(READY, False, waiting.reason, message)
    if waiting.ready:
        return Aspect(READY, play.ready, play.ready_reason, f"{play.ready_message} {waiting}")
    return Aspect(READY, False, waiting.reason, str(waiting))
