"""The engine: what happens around the tasks of a play at the API server."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from pilothouse.controller import (
    EventRecorder,
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
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    KubeError,
    NotFound,
    ObjectKey,
    PatchType,
    Resource,
)
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.ends import Ends, failed
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.play import Play, PlayObject
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.records import Records
from pilothouse.playbook.status import READY, Aspect, PlayStatus, merge_patch, with_conditions
from pilothouse.playbook.tasks import Task, TaskFailed, refused, unexpected
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=PlayObject[Any])
S = TypeVar("S", bound=PlayStatus)

PAUSED = "pilothouse.dev/paused"
"""An annotation: "true" leaves the object alone, its deletion included, until it is taken away. The condition
Ready is Unknown meanwhile."""

RECONCILE = "pilothouse.dev/reconcile"
"""An annotation: any new value has the object played once more, also after a permanent failure."""

PAUSED_READY = Aspect(
    READY, None, "Paused", f"Nothing is done while the annotation {PAUSED} is true: take it away to go on."
)

# When an object whose CRD has no status subresource is played again, seconds: nothing tells when it has one.
MISSING_STATUS_SECONDS = 30.0

# What the API server says of a status that breaks the kind's schema.
REFUSED = (BadRequest, Invalid)

DONE = Outcome()


class Notified(NamedTuple):
    """Handlers that an object's last play was to run and did not."""

    uid: str
    handlers: set[Task[Any]]


class Reconciler(Generic[T]):
    """Plays a playbook over the objects of a kind.

    The finalizer is stored before the first task. The status is written once per play, only where it differs,
    and only onto the very object that was played; an object that changed meanwhile is played again. An object
    that is as it should be costs no request. Once it is cleaned up a deleted object is left alone; its status
    is written before that if finalizers of others hold it back.

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
    ) -> None:
        self._api = api
        self._resource = resource
        self._store = store
        self._playbook = playbook
        self._cluster = cluster or Cluster(api, Fence(), resource, manager="")
        # The statuses whose writes have not been answered yet.
        self._writing: dict[ObjectKey, PlayStatus] = {}
        # The annotations whose writes have not been answered yet.
        self._annotating: dict[ObjectKey, Mapping[str, str]] = {}
        self._owner = owner
        self._notified: dict[ObjectKey, Notified] = {}
        self._wrote: Callable[[T], None] = wrote or store.observe
        self._played: Callable[[Recap], None] = played or TaskMetrics(resource.kind.lower()).played
        self._meaningful = meaningful
        self._announcer = Announcer(resource, recorder)

    async def sync(self, key: ObjectKey) -> Outcome:
        """Plays the playbook over one object.

        Raises:
            SyncError: A task failed, or another process may lead by now.
            PermanentError: A task failed, and would again until the object changes.
            Conflict: The object changed meanwhile.
            KubeError: The API server cannot be reached or refused a write.
        """
        obj = self._store.get(key)
        if obj is None or not self._concerns(obj):
            return DONE
        if obj.metadata.annotations.get(PAUSED) == "true":
            await self._tell_paused(obj)
            return DONE
        try:
            obj = await self._with_finalizer(obj)
        except NotFound:
            return DONE
        play = self._play(obj, check=False)
        recap = await self._run(play)
        self._played(recap)
        self._announcer.tell(play, recap)
        if play.deleting and not recap.ends.all and play.after is None:
            held = play.object
            if self._playbook.finalizers.released(held.metadata.finalizers):
                held = await self._last_word(play, recap)
            await self._remove_finalizer(held)
            return DONE
        recap = await self._record_waits(play, recap)
        try:
            written = await self._write_status(play.object, _final_status(play, recap))
        except REFUSED as error:
            await self._write_failure(play.object, refused("its status", error))
            raise
        return _outcome(play, recap.ends, repeated=written is play.object)

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

    async def check(self, obj: T) -> tuple[Recap, dict[str, object]]:
        """Plays in check mode: nothing is written, no outside call is made, no Event recorded.

        Returns:
            The recap, with what would change, and the patch of the status that would be written.
        """
        play = self._play(obj, check=True)
        recap = await self._playbook.run(play)
        return recap, merge_patch(obj.status, _final_status(play, recap))

    async def timed_out(self, key: ObjectKey, seconds: float) -> None:
        """Says in an object's status that its sync was stopped after so many seconds.

        Raises:
            KubeError: The API server cannot be reached or refused the write.
        """
        obj = self._store.get(key)
        if obj is None:
            return
        failure = TaskFailed(
            "Timeout",
            f"It was not done after {seconds:g} s and was stopped; it is tried again. "
            "Should it need longer, raise the operator's SYNC_TIMEOUT.",
        )
        try:
            play = self._play(obj, check=False)
            play.failed(failure)
            await self._write_status(obj, _final_status(play, Recap([], failed(failure))))
        except REFUSED:
            await self._write_failure(obj, failure)
        except (KubeError, SyncError):
            raise
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "what the playbook has to say of it is left out")
            await self._write_failure(obj, failure)

    async def met_defect(self, key: ObjectKey, error: BaseException) -> None:
        """Says in an object's status that its play met an error that nobody foresaw, outside of any task.

        Raises:
            KubeError: The API server cannot be reached or refused the write.
        """
        obj = self._store.get(key)
        if obj is not None:
            await self._write_failure(obj, unexpected("play", error))

    async def _write_failure(self, obj: T, failure: TaskFailed) -> None:
        """Writes a failure into the status as it is stored: what tasks made of it may be what is wrong."""
        ready = Aspect(READY, False, failure.reason, failure.message)
        generation = obj.metadata.generation
        status = with_conditions(obj.status, generation, [ready], observed_generation=generation)
        await self._write_status(obj, status)

    async def _last_word(self, play: Play[T, Any], recap: Recap) -> T:
        """Writes the status of an object that stays because others hold it back, and is not played again.

        A status that cannot be written must not hold it back, too.
        """
        obj = play.object
        try:
            return await self._write_status(obj, _final_status(play, recap))
        except (*REFUSED, Forbidden) as error:
            log.warning("its status is not written: %s", error)
        except (KubeError, SyncError):
            raise
        except Exception as error:
            log_defect(log, error, "its status is not written")
        return obj

    def worth_a_play(self, old: T | None, new: T | None) -> bool:
        """Whether a change is a reason to play: a controller's predicate.

        So is a status that another client wrote: it is the operator's, and is restored. The watch may bring
        our own finalizer, annotations or status back before the write has been answered: that is not a
        reason.
        """
        if old is None or new is None:
            return True
        if new.status not in (old.status, self._writing.get(new.metadata.key)):
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

    def _play(self, obj: T, *, check: bool) -> Play[T, Any]:
        records = Records(self._owner, None if check else self._annotate)
        play: Play[T, Any] = self._playbook.play(obj, check=check, cluster=self._cluster, records=records)
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

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that is gone."""
        self._notified.pop(key, None)
        self._announcer.forget(key)

    def _concerns(self, obj: T) -> bool:
        """Whether there is anything to do: a deleted object without our finalizer is held back by others'."""
        metadata = obj.metadata
        return metadata.deletion_timestamp is None or self._playbook.finalizers.hold(metadata)

    async def _tell_paused(self, obj: T) -> None:
        """Says in an object's status that it is paused, once."""
        for condition in obj.status.conditions:
            if (condition.type, condition.reason) == (READY, PAUSED_READY.reason):
                return
        log.info("paused by the annotation %s", PAUSED)
        play = self._play(obj, check=False)
        play.paused()
        generation = obj.metadata.generation
        await self._write_status(obj, with_conditions(play.status, generation, [PAUSED_READY]))

    async def _with_finalizer(self, obj: T) -> T:
        """Stores the finalizer, and removes retired ones by the same write."""
        metadata = obj.metadata
        if metadata.deletion_timestamp is not None:
            return obj
        finalizers = self._playbook.finalizers.stored(metadata.finalizers)
        return obj if finalizers == metadata.finalizers else await self._write_finalizers(obj, finalizers)

    async def _remove_finalizer(self, obj: T) -> None:
        try:
            await self._write_finalizers(obj, self._playbook.finalizers.released(obj.metadata.finalizers))
        except NotFound:
            log.debug("gone already")

    async def _write_finalizers(self, obj: T, finalizers: Sequence[str]) -> T:
        metadata = {"resourceVersion": obj.metadata.resource_version, "finalizers": finalizers}
        return await self._patch(obj, {"metadata": metadata})

    async def _annotate(self, obj: T, annotations: Mapping[str, str | None]) -> T:
        """Sets annotations, or removes those that are None; returns the object as written."""
        key, metadata = obj.metadata.key, obj.metadata
        merged = {**metadata.annotations, **annotations}
        self._annotating[key] = {name: value for name, value in merged.items() if value is not None}
        body = {"metadata": {"resourceVersion": metadata.resource_version, "annotations": annotations}}
        try:
            return await self._patch(obj, body)
        finally:
            self._annotating.pop(key, None)

    async def _write_status(self, obj: T, status: PlayStatus) -> T:
        """Writes the status where it differs; returns the object as written, or the same one."""
        patch = merge_patch(obj.status, status)
        if not patch:
            return obj
        body = {"metadata": {"resourceVersion": obj.metadata.resource_version}, "status": patch}
        self._writing[obj.metadata.key] = status
        try:
            return await self._patch(obj, body, subresource="status")
        except NotFound:
            await self._require_status_subresource(obj)
            return obj
        finally:
            # A sync that swallows its cancellation may be writing, too.
            self._writing.pop(obj.metadata.key, None)

    async def _require_status_subresource(self, obj: T) -> None:
        """Tells apart the two reasons why a status is not found: the object is gone, or its kind has none."""
        try:
            await self._api.get(self._resource, obj.metadata.key)
        except NotFound:
            log.debug("its status was not written: it is gone")
            return
        raise SyncError(
            f"its status cannot be written: the CRD {self._resource} has no status subresource; "
            "apply the operator's own CRD",
            retry_after=MISSING_STATUS_SECONDS,
        )

    async def _patch(self, obj: T, body: object, subresource: str = "") -> T:
        key = obj.metadata.key
        written = await self._api.patch(
            self._resource, key, body, type=PatchType.MERGE, subresource=subresource
        )
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
