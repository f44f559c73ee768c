"""The engine: what happens around the tasks of a play at the API server."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar, cast

import msgspec

from pilothouse.controller import (
    Api,
    Event,
    EventRecorder,
    EventType,
    ObjectReference,
    Outcome,
    PermanentError,
    SyncError,
    meaningful_change,
)
from pilothouse.informer import Store
from pilothouse.kube import NotFound, ObjectKey, PatchType, Resource
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.play import Play, PlayEvent, PlayObject, PlayStatus
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.status import merge_patch, with_ready
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

T = TypeVar("T", bound=PlayObject[Any])
S = TypeVar("S", bound=PlayStatus)

PAUSED = "pilothouse.dev/paused"
"""An annotation: "true" leaves the object alone, its deletion included, until it is taken away."""

RECONCILE = "pilothouse.dev/reconcile"
"""An annotation: any new value has the object played once more, also after a permanent failure."""

# When an object whose CRD has no status subresource is played again, seconds: nothing tells when it has one.
MISSING_STATUS_SECONDS = 30.0


class Reconciler(Generic[T]):
    """Plays a playbook over the objects of a kind.

    The finalizer is stored before the first task. The status is written once per play, only where it differs,
    and only onto the very object that was played; an object that changed meanwhile is played again. An object
    that is as it should be costs no request.

    Attributes:
        wrote: Takes what an own write returned. A controller's `wrote` also knows that it is no news.

    Args:
        api: Reaches the API server.
        resource: The kind.
        store: Where objects are read.
        playbook: What is played.
        recorder: Takes Events.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource[T],
        store: Store[T],
        playbook: Playbook[Any],
        recorder: EventRecorder,
    ) -> None:
        self._api = api
        self._resource = resource
        self._store = store
        self._playbook = playbook
        self._recorder = recorder
        # The statuses whose writes have not been answered yet.
        self._writing: dict[ObjectKey, PlayStatus] = {}
        self.wrote: Callable[[T], None] = store.observe
        self._metrics = TaskMetrics(resource.kind.lower())

    async def sync(self, key: ObjectKey) -> Outcome:
        """Plays the playbook over one object.

        Raises:
            SyncError: A task failed.
            PermanentError: A task failed, and would again until the object changes.
            Conflict: The object changed meanwhile.
            KubeError: The API server cannot be reached or refused a write.
        """
        obj = self._store.get(key)
        if obj is None or not self._concerns(obj):
            return Outcome()
        try:
            obj = await self._with_finalizer(obj)
        except NotFound:
            return Outcome()
        play = self._playbook.play(obj, check=False)
        recap = await self._playbook.run(play)
        self._tell(play, recap)
        if play.deleting and recap.failure is None and play.after is None:
            await self._remove_finalizer(play.object)
            return Outcome()
        news = await self._write_status(play, recap)
        failure = recap.failure
        if failure is None:
            return Outcome(play.after)
        if failure.permanent:
            raise PermanentError(failure.message)
        raise SyncError(failure.message, retry_after=failure.retry_after, repeated=not news)

    async def check(self, obj: T) -> tuple[Recap, dict[str, object]]:
        """Plays in check mode: nothing is written, no outside call is made, no Event recorded.

        Returns:
            The recap, with what would change, and the patch of the status that would be written.
        """
        play = self._playbook.play(obj, check=True)
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
        play = self._playbook.play(obj, check=False)
        failure = TaskFailed(
            "Timeout",
            f"It was not done after {seconds:g} s and was stopped; it is tried again. "
            "Should it need longer, raise the operator's SYNC_TIMEOUT.",
        )
        play.failed(failure)
        await self._write_status(play, Recap([], failure, seconds))

    def worth_a_play(self, old: T | None, new: T | None) -> bool:
        """Whether a change is a reason to play: a controller's predicate.

        So is a status that somebody else wrote: it is the operator's, and is put right. The watch may bring
        our own finalizer or status back before the write of it has been answered: that is no news.
        """
        if old is None or new is None:
            return meaningful_change(old, new)
        if new.status not in (old.status, self._writing.get(new.metadata.key)):
            return True
        finalizer = self._playbook.finalizer
        if finalizer not in new.metadata.finalizers:
            return meaningful_change(old, new)
        expected = (*old.metadata.finalizers, finalizer)
        if new.metadata.finalizers != expected:
            return meaningful_change(old, new)
        metadata = msgspec.structs.replace(old.metadata, finalizers=expected)
        return meaningful_change(msgspec.structs.replace(cast("Any", old), metadata=metadata), new)

    def _concerns(self, obj: T) -> bool:
        metadata = obj.metadata
        if metadata.annotations.get(PAUSED) == "true":
            log.info("paused by the annotation %s", PAUSED)
            return False
        # A deleted object without our finalizer is held back by somebody else's.
        return metadata.deletion_timestamp is None or self._playbook.finalizer in metadata.finalizers

    async def _with_finalizer(self, obj: T) -> T:
        finalizer = self._playbook.finalizer
        if not finalizer or finalizer in obj.metadata.finalizers:
            return obj
        return await self._write_finalizers(obj, [*obj.metadata.finalizers, finalizer])

    async def _remove_finalizer(self, obj: T) -> None:
        others = [each for each in obj.metadata.finalizers if each != self._playbook.finalizer]
        try:
            await self._write_finalizers(obj, others)
        except NotFound:
            log.debug("gone already")

    async def _write_finalizers(self, obj: T, finalizers: Sequence[str]) -> T:
        metadata = {"resourceVersion": obj.metadata.resource_version, "finalizers": finalizers}
        return await self._patch(obj, {"metadata": metadata})

    async def _write_status(self, play: Play[T, Any], recap: Recap) -> bool:
        """Writes the status where it differs; returns whether it did."""
        obj = play.object
        status = _final_status(play, recap)
        patch = merge_patch(obj.status, status)
        if not patch:
            return False
        body = {"metadata": {"resourceVersion": obj.metadata.resource_version}, "status": patch}
        self._writing[obj.metadata.key] = status
        try:
            play.object = await self._patch(obj, body, subresource="status")
        except NotFound:
            await self._require_status_subresource(obj)
        finally:
            del self._writing[obj.metadata.key]
        return True

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
        self.wrote(written)
        return written

    def _tell(self, play: Play[T, Any], recap: Recap) -> None:
        self._metrics.played(recap)
        # A failure has a line of its own, from the controller, with the time of the next try.
        told = recap.eventful and recap.failure is None
        log.log(logging.INFO if told else logging.DEBUG, "play: %s", recap)
        events = list(play.events)
        if recap.failure is not None:
            failure = recap.failure
            events.append(
                PlayEvent(EventType.WARNING, failure.reason, failure.message, recap.results[-1].task)
            )
        for event in events:
            metadata = play.object.metadata
            regarding = ObjectReference(
                self._resource.api_version, self._resource.kind, metadata.key, metadata.uid
            )
            self._recorder.record(Event(regarding, event.type, event.reason, event.action, event.note))


def _final_status(play: Play[T, S], recap: Recap) -> S:
    generation = play.object.metadata.generation
    failure = recap.failure
    if failure is not None:
        return with_ready(
            play.status, generation, ready=False, reason=failure.reason, message=failure.message
        )
    return with_ready(
        play.status, generation, ready=play.ready, reason=play.ready_reason, message=play.ready_message
    )
