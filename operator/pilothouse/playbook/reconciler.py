"""The engine: what happens around the tasks of a play at the API server."""

import logging
from collections.abc import Callable, Mapping, Sequence
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
    meaningful_change,
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
)
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.ends import Ends, failed
from pilothouse.playbook.metrics import TaskMetrics
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
"""An annotation: "true" leaves the object alone, its deletion included, until it is taken away. The condition
Ready is Unknown meanwhile."""

RECONCILE = "pilothouse.dev/reconcile"
"""An annotation: any new value has the object played once more, also after a permanent failure."""

PAUSED_READY = Aspect(
    READY, None, "Paused", f"Nothing is done while the annotation {PAUSED} is true: take it away to go on."
)

DONE = Outcome()


class Notified(NamedTuple):
    """Handlers that an object's last play was to run and did not."""

    uid: str
    handlers: set[Task[Any]]


class Settled(NamedTuple):
    """A state of an object: its UID and generation; for kinds without generation, its resourceVersion."""

    uid: str
    state: str


class Reconciler(Generic[T]):
    """Plays a playbook over the objects of a kind.

    The finalizer is stored before the first task. The status is written once per play, only where it differs,
    and only onto the very object that was played; an object that changed meanwhile is played again. An object
    that is as it should be costs no request. Once it is cleaned up a deleted object is left alone; its status
    is written before that if finalizers of others hold it back.

    What the API server refuses to the engine itself is reported on the object, as a condition where the
    status can be written and as an Event, and retried with back-off.

    Args:
        api: Reaches the API server.
        resource: The kind.
        store: Where objects are read.
        playbook: What is played.
        recorder: Takes Events.
        cluster: What the modules of plays reach; unless given, they reach no other kind, and no Lease fences
            them.
        wrote: Takes what a write of the object returned. Unless given, the store does; `OwnWrites.wrote` also
            keeps the controller from syncing the object again for it.
        played: Takes each recap; unless given, the metrics do.
        meaningful: Which changes by other clients cause a play, apart from those of the status.
        owner: Names this operator, and of its watches of the kind this one, in annotations.
        writes_status: Whether the status is the operator's to write; unless given, it is if the view has one.
            If not, plays are reported by Events and in the log.
        later: Has an object synced after some seconds, when its status may be restored; for a controller.
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
    ) -> None:
        self._api = api
        self._resource = resource
        self._store = store
        self._playbook = playbook
        self._cluster = cluster or Cluster(api, Fence(), resource, manager="")
        # The annotations whose writes have not been answered yet.
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
        self._trouble = Trouble(self._statuses, self._announcer)
        self._later = later or _never
        self._rivals = StatusRivals(
            api, resource, self._cluster.contention, self._announcer, self._cluster.manager
        )
        # Without a status: the objects that are known to be paused, and the states that were reconciled.
        self._paused: set[ObjectKey] = set()
        self._settled: dict[ObjectKey, Settled] = {}

    async def sync(self, key: ObjectKey) -> Outcome:
        """Plays the playbook over one object.

        Raises:
            SyncError: A task failed, or another process may lead by now.
            PermanentError: A task failed, and would again until the object changes.
            Conflict: The object changed meanwhile.
            KubeError: The API server cannot be reached or refused a write.
        """
        if misfit := self._store.misfit(key):
            return await self._report_misfit(misfit.metadata, misfit.why)
        obj = self._store.get(key)
        if obj is None:
            return DONE
        if not self._concerns(obj.metadata):
            self._report_unknown_finalizers(obj.metadata)
            return DONE
        if obj.metadata.annotations.get(PAUSED) == "true":
            await self._pause(obj)
            return DONE
        self._paused.discard(key)
        stored = await self._store_finalizer(obj)
        if stored is None:
            return DONE
        play = self._play(stored, check=False)
        recap = await self._run(play)
        self._played(recap)
        self._announcer.tell(play, recap)
        if play.deleting and not recap.ends.all and play.after is None:
            return await self._release(play, recap)
        return await self._conclude(play, await self._record_waits(play, recap))

    async def _record_waits(self, play: Play[T, Any], recap: Recap) -> Recap:
        """Records since when tasks wait. If that cannot be written, the object has to show it: a failure."""
        try:
            await play.records.save_waits(play, ended=not recap.ends.all)
        except Conflict:
            raise
        except KubeError as error:
            failure = refused("the start of a wait is not recorded", error)
            return recap._replace(ends=recap.ends.then(failed(failure)))
        return recap

    async def _conclude(self, play: Play[T, Any], recap: Recap) -> Outcome:
        """Writes the status of a play, and returns when the object is reconciled again.

        Raises:
            SyncError: A task failed, or the status is refused.
        """
        repeated = not await self._write_status(play, recap)
        if recap.failure is None:
            self._trouble.forget(play.object.metadata.key)
        elif not self._statuses.enabled:
            repeated = self._trouble.repeated(play.object.metadata, recap.failure)
        return _outcome(play, recap.ends, repeated=repeated)

    async def _write_status(self, play: Play[T, Any], recap: Recap) -> bool:
        """Writes the status of a play; returns whether it differed."""
        if not self._statuses.enabled:
            self._note_settled(play, recap)
            return False
        obj, status = play.object, _final_status(play, recap)
        corrects = self._rivals.corrects(obj, status)
        if corrects and (wait := self._rivals.postponed(obj.metadata.key)):
            play.requeue_after(wait)
            return False
        fields = self._statuses.patch(obj, status) if corrects else {}
        written = await self._write(obj, status)
        self._rivals.forget(obj.metadata.key)
        if corrects:
            await self._rivals.corrected(obj, fields)
        return written is not obj

    async def _write(self, obj: T, status: PlayStatus) -> T:
        """Writes a status where it differs, and reports a refusal; returns the object as written."""
        try:
            return await self._statuses.write(obj, status)
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            what = "The status of this object cannot be written"
            raise await self._trouble.refused(obj, STATUS_NOT_WRITTEN, what, error) from error

    async def _release(self, play: Play[T, Any], recap: Recap) -> Outcome:
        """Removes the finalizer of an object that is cleaned up."""
        held = play.object
        others = self._playbook.finalizers.released(held.metadata.finalizers)
        if others and self._statuses.enabled:
            held = await self._last_word(play, recap)
        what = f"The cleanup is done, but the finalizer {self._playbook.finalizers} cannot be removed"
        await self._write_finalizers(held, others, FINALIZER_NOT_REMOVED, what)
        self._trouble.forget(held.metadata.key)
        return DONE

    async def check(self, obj: T) -> tuple[Recap, dict[str, object]]:
        """Plays in check mode: nothing is written, no outside call is made, no Event recorded.

        Returns:
            The recap, with what would change, and the patch of the status that would be written.
        """
        play = self._play(obj, check=True)
        recap = await self._playbook.run(play)
        return recap, self._statuses.patch(obj, _final_status(play, recap)) if self._statuses.enabled else {}

    def status_changes(self, before: T, after: T) -> dict[str, object]:
        """Returns how the status differs between two versions of an object, as a merge patch."""
        return self._statuses.patch(before, cast("Any", after).status) if self._statuses.enabled else {}

    async def timed_out(self, key: ObjectKey, seconds: float) -> None:
        """Reports on an object that its sync was stopped after the given number of seconds.

        Raises:
            KubeError: The API server cannot be reached or refused the write.
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
        """Reports on an object that its play met an unexpected error outside of any task.

        Raises:
            KubeError: The API server cannot be reached or refused the write.
        """
        obj = self._store.get(key)
        if obj is not None:
            failure = unexpected("play", error)
            self._announcer.warn(obj.metadata, failure)
            await self._statuses.write_failure(obj, failure)

    async def _last_word(self, play: Play[T, Any], recap: Recap) -> T:
        """Writes the status of an object that others hold back after its cleanup.

        A status that cannot be written does not hold the object back, too.
        """
        obj = play.object
        try:
            return await self._statuses.write(obj, _final_status(play, recap))
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            if self._trouble.passes(obj.metadata.key, error):
                raise
            log.warning("removing the finalizer without a last status, which cannot be written: %s", error)
            self._announcer.warn(obj.metadata, TaskFailed(STATUS_NOT_WRITTEN, f"The last status: {error}"))
        except SyncError:
            raise
        except Exception as error:
            log_defect(log, error, "removing the finalizer without a last status")
        return obj

    def worth_a_play(self, old: T | None, new: T | None) -> bool:
        """Whether a change is a reason to play: a controller's predicate.

        So is a status that another client wrote. If it is the operator's, it is restored. The watch may show
        an own finalizer, annotation or status before the write has been answered; that is not a reason.
        """
        if old is None or new is None:
            return True
        if self._has_status and self._status_differs(old, new):
            key = new.metadata.key
            wait = self._rivals.overwritten(key, cast("Any", old).status) if self._statuses.enabled else 0.0
            if not wait:
                return True
            self._later(key, wait)
        # Kinds that do not count generations, such as ConfigMap, have no spec either.
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
        enabled = self._statuses.enabled
        play: Play[T, Any] = self._playbook.play(
            obj,
            check=check,
            cluster=self._cluster,
            records=Records(self._owner, None if check else self._annotate),
            writes_status=enabled,
            settled=None if enabled else self._settled.get(obj.metadata.key) == _state(obj),
        )
        play.status_writer = self._statuses.record
        return play

    async def _run(self, play: Play[T, Any]) -> Recap:
        """Runs the playbook; handlers that an earlier play did not come to are run, too."""
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
        """The handlers that an object's last play was to run and did not, by their names, in order."""
        pending = self._notified.get(key)
        handlers = self._playbook.handlers if pending is not None else ()
        return [handler.name for handler in handlers if pending and handler in pending.handlers]

    def readable(self, key: ObjectKey) -> None:
        """Notes that an object fits the view again."""
        self._trouble.forget(key)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that is gone."""
        self._notified.pop(key, None)
        self._paused.discard(key)
        self._settled.pop(key, None)
        self._rivals.forget(key)
        self._announcer.forget(key)
        self._trouble.forget(key)

    async def _report_misfit(self, metadata: ObjectMeta, why: str) -> Outcome:
        """Reports an object that does not fit the view. It is neither played nor cleaned up."""
        if self._concerns(metadata):
            finalizers = self._playbook.finalizers
            deleting = metadata.deletion_timestamp is not None
            await self._trouble.undecodable(metadata, why, str(finalizers) if deleting else "")
        return DONE

    def _concerns(self, metadata: ObjectMeta) -> bool:
        """Whether there is anything to do: a deleted object without our finalizer is held back by others'."""
        return metadata.deletion_timestamp is None or self._playbook.finalizers.hold(metadata)

    def _report_unknown_finalizers(self, metadata: ObjectMeta) -> None:
        """Reports finalizers of our domain that hold a deleted object and that this release does not know.

        Another controller of the group may remove them. But an earlier release may have stored them, too.
        """
        domains = {self._resource.group, *self._playbook.finalizers.domains}
        unknown = [name for name in metadata.finalizers if name.partition("/")[0] in domains]
        if not unknown:
            return
        failure = TaskFailed(
            UNKNOWN_FINALIZER,
            f"The object is being deleted and held by {', '.join(unknown)}, which this release of the "
            "operator does not know. If an earlier release has stored it, add it to the playbook's "
            "retired_finalizers, or delete manually what belongs to the object and remove the finalizer.",
        )
        if not self._trouble.repeated(metadata, failure):
            log.warning("%s", failure.message)
            self._announcer.warn(metadata, failure)

    async def _pause(self, obj: T) -> None:
        """Reports once that an object is paused: in its status, or by an Event where it has none."""
        if not self._statuses.enabled:
            if obj.metadata.key not in self._paused:
                self._paused.add(obj.metadata.key)
                log.info("paused by the annotation %s", PAUSED)
                event = PlayEvent(EventType.NORMAL, PAUSED_READY.reason, PAUSED_READY.message, "Pause")
                self._announcer.record(obj.metadata, event)
            return
        for condition in cast("Any", obj).status.conditions:
            if (condition.type, condition.reason) == (READY, PAUSED_READY.reason):
                return
        log.info("paused by the annotation %s", PAUSED)
        play = self._play(obj, check=False)
        play.paused()
        await self._write(obj, with_conditions(play.status, obj.metadata.generation, [PAUSED_READY]))

    def _note_settled(self, play: Play[T, Any], recap: Recap) -> None:
        """Remembers whether an object without a status of ours was reconciled in its present state."""
        key = play.object.metadata.key
        if _ready(play, recap).status:
            self._settled[key] = _state(play.object)
        else:
            self._settled.pop(key, None)

    async def _store_finalizer(self, obj: T) -> T | None:
        """Stores the finalizer, and removes retired ones by the same write; None: the object is gone."""
        metadata = obj.metadata
        finalizers = self._playbook.finalizers.stored(metadata.finalizers)
        if metadata.deletion_timestamp is not None or finalizers == metadata.finalizers:
            return obj
        what = f"No task runs, because the finalizer {self._playbook.finalizers} cannot be stored"
        return await self._write_finalizers(obj, finalizers, FINALIZER_NOT_STORED, what)

    async def _annotate(self, obj: T, annotations: Mapping[str, str | None]) -> T:
        """Sets annotations, or removes those that are None; returns the object as written."""
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
        """Writes the finalizers, and reports a refusal; returns the object as written, None if it is gone."""
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
    """Returns when the object is reconciled again, if no task failed.

    Raises:
        PermanentError: All failures are permanent.
        SyncError: A failure is not.
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
    # One whose time is not known is due when the back-off says.
    retry_after = min(known) if len(known) == len(passing) else None
    raise SyncError(message, retry_after=retry_after, requeue_after=after, repeated=repeated)


def _never(key: ObjectKey, seconds: float) -> None:
    """Without a controller, nothing is synced again."""


def _state(obj: KubeObject) -> Settled:
    metadata = obj.metadata
    return Settled(
        metadata.uid, str(metadata.generation) if metadata.generation else metadata.resource_version
    )


def _content_differs(old: KubeObject, new: KubeObject) -> bool:
    names = [name for name in new.__struct_fields__ if name not in ("metadata", "status")]
    return any(getattr(old, name) != getattr(new, name) for name in names)


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
