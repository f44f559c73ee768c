"""Reconciles objects: the order of finalizer, tasks, status and Events in one reconcile."""

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any, Generic, TypeVar, cast

from pilothouse.controller import (
    EventRecorder,
    Fence,
    Outcome,
    Predicate,
    SyncError,
    Written,
    meaningful_change,
    noting_writes,
)
from pilothouse.informer import Store
from pilothouse.kube import Api, Conflict, KubeError, KubeObject, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook.annotations import PAUSED
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.changes import Changes, wanted
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.conclusion import final_status, outcome_of, ready
from pilothouse.playbook.ends import End, Ends, failed
from pilothouse.playbook.indexes import index_failure
from pilothouse.playbook.interruptions import Interruptions
from pilothouse.playbook.metadata_writer import MetadataWriter
from pilothouse.playbook.metrics import TaskMetrics
from pilothouse.playbook.pace import WRITES_REPEATED, Pace
from pilothouse.playbook.paused import PausedObjects
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.plays import Plays
from pilothouse.playbook.remaining import RemainingFinalizers
from pilothouse.playbook.rivals import StatusRivals
from pilothouse.playbook.status_reporter import StatusReporter
from pilothouse.playbook.status_writer import StatusWriter
from pilothouse.playbook.tasks import TaskFailed, refused, running_task, unexpected
from pilothouse.playbook.trouble import PLAN_NOT_RECORDED, Trouble

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

DONE = Outcome()


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

    Attributes:
        changes: Decides which changes cause a reconcile. Its method `worth_a_play` is the predicate of the
            controller.
        interruptions: Reports reconciles that ended outside of their tasks. Its methods `timed_out` and
            `met_defect` are the controller's `on_timeout` and `on_defect`.
        plays: Creates and runs the plays. Its method `due` returns the handlers that have not run.

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
        cluster = cluster or Cluster(api, Fence(), resource, manager="")
        wrote = wrote or store.observe
        later = later or _never
        enabled = "status" in resource.view.__struct_fields__ if writes_status is None else writes_status
        finalizers = playbook.finalizers
        announcer = Announcer(resource, recorder)
        statuses = StatusWriter(api, resource, wrote, enabled=enabled)
        trouble = Trouble(statuses, announcer)
        rivals = StatusRivals(api, resource, cluster.contention, announcer, cluster.manager)
        reporter = StatusReporter(statuses, rivals, trouble, announcer)
        metadata = MetadataWriter(api, resource, finalizers, wrote, statuses, trouble)
        self.plays: Plays[T] = Plays(
            resource,
            playbook,
            cluster,
            owner,
            annotate=metadata.annotate,
            record=reporter.record,
            warn=announcer.warn,
            writes_status=enabled,
        )
        self.changes = Changes(
            resource, finalizers, metadata, statuses, rivals, meaningful=meaningful, later=later
        )
        self.interruptions = Interruptions(store, self.plays, statuses, announcer)
        self._resource = resource
        self._store = store
        self._playbook = playbook
        self._played: Callable[[Recap], None] = played or TaskMetrics(resource.kind.lower()).played
        self._announcer = announcer
        self._statuses = statuses
        self._trouble = trouble
        self._reporter = reporter
        self._metadata = metadata
        self._pace = Pace(wanted)
        self._paused = PausedObjects(self.plays, reporter, announcer, later=later, writes_status=enabled)
        self._remaining = RemainingFinalizers(resource.group, finalizers, known_finalizers, announcer)

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
        except PlaybookError as mistake:
            # Outside of a task, such as in a hook of the play. Its text is enough, without a traceback.
            self._trouble.no_conflict(key)
            await self.interruptions.met_defect(key, mistake)
            obj = self._store.get(key)
            repeated = obj is not None and self._trouble.repeated(obj.metadata, unexpected("play", mistake))
            raise SyncError(f"play: {mistake}", repeated=repeated) from mistake
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
        wait = self._pace.wait(obj)
        if wait:
            return Outcome(wait)
        outcome: Outcome | None = None
        with noting_writes(running_task) as writes:
            try:
                outcome = await self._sync(key, obj)
            finally:
                if writes or self._pace:
                    self._note_writes(obj, writes, outcome)
        return outcome

    async def _sync(self, key: ObjectKey, obj: T) -> Outcome:
        if not self._concerns(obj.metadata):
            return self._remaining.report(obj.metadata)
        if obj.metadata.annotations.get(PAUSED) == "true":
            await self._paused.report(obj)
            return DONE
        self._paused.forget(key)
        self._remaining.log_unknown(obj.metadata)
        stored = await self._metadata.store_finalizer(obj)
        if stored is None:
            return DONE
        play = self.plays.create(stored, check=False)
        recap = self._with_index_failure(key, play, await self.plays.run(play))
        self._played(recap)
        self._announcer.report(play, recap)
        if play.deleting and not recap.ends.all and play.after is None:
            return await self._release(play, recap)
        if play.records.has_waits(play.object.metadata):
            recap = await self._record_waits(play, recap)
        return await self._conclude(key, play, recap)

    async def _report_misfit(self, metadata: ObjectMeta, why: str) -> Outcome:
        """Reports an object that cannot be decoded. It is neither reconciled nor cleaned up."""
        if not self._concerns(metadata):
            return self._remaining.report(metadata)
        self._remaining.log_unknown(metadata)
        finalizers = self._playbook.finalizers
        deleting = metadata.deletion_timestamp is not None
        await self._trouble.undecodable(metadata, why, str(finalizers) if deleting else "")
        return DONE

    def _concerns(self, metadata: ObjectMeta) -> bool:
        """Returns whether to reconcile an object: not if it is being deleted and our finalizer is removed."""
        return metadata.deletion_timestamp is None or self._playbook.finalizers.hold(metadata)

    def _note_writes(self, obj: T, writes: Sequence[Written], outcome: Outcome | None) -> None:
        """Counts the writes of a reconcile, and reports writes that repeat."""
        asked = outcome.requeue_after if outcome is not None else None
        if not isinstance(asked, int | float):  # The controller reports an author's invalid value.
            asked = float("inf")
        report = self._pace.note(obj, writes, failed=outcome is None, asked=asked)
        if report:
            log.warning("%s", report)
            self._announcer.warn(obj.metadata, TaskFailed(WRITES_REPEATED, report))

    def _with_index_failure(self, key: ObjectKey, play: Play[T, Any], recap: Recap) -> Recap:
        """Adds the failure of an object that an index of its kind lacks, because mappers cannot find it."""
        failure = None
        if self._store.indexes and not play.deleting:
            failure = index_failure(self._resource, key, self._store)
        if failure is None:
            return recap
        return recap._replace(ends=recap.ends.then(Ends((End(failure, "Index"),))))

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

    async def _release(self, play: Play[T, Any], recap: Recap) -> Outcome:
        """Removes the finalizer from an object after its cleanup."""
        held = play.object
        others = self._playbook.finalizers.released(held.metadata.finalizers)
        if others and play.writes_status:
            held = await self._reporter.write_last(play, recap)
        released = await self._metadata.remove_finalizer(held)
        self._trouble.forget(held.metadata.key)
        return DONE if released is None else self._remaining.report(released.metadata)

    async def _conclude(self, key: ObjectKey, play: Play[T, Any], recap: Recap) -> Outcome:
        """Writes the status and the plans after the tasks, and returns when to reconcile the object again.

        Raises:
            SyncError: A task failed, or the API server refused the status or the annotations.
        """
        before = play.object
        complete = await self._write_status(play, recap)
        repeated = play.object is before
        if complete and play.records.has_plans(play.object.metadata):
            await self._record_plans(play)
        if not self._statuses.enabled:
            self.plays.note_settled(play, settled=bool(ready(play, recap).status))
        if recap.failure is None:
            self._trouble.forget(key)
        elif not play.writes_status:
            repeated = self._trouble.repeated(play.object.metadata, recap.failure)
        return outcome_of(play, recap.ends, repeated=repeated)

    async def _write_status(self, play: Play[T, Any], recap: Recap) -> bool:
        """Writes the status after the tasks, and returns whether all of it is stored now."""
        if not play.writes_status:
            return True
        play.object, wait = await self._reporter.write(play.object, final_status(play, recap))
        if wait:
            play.requeue_after(wait)
        return not wait

    async def _record_plans(self, play: Play[T, Any]) -> None:
        """Records the plans that have finished."""
        try:
            await play.records.save_plans(play)
        except Conflict:
            raise
        except KubeError as error:
            what = "The end of a plan cannot be recorded in the annotations of this object"
            raise await self._trouble.refused(play.object, PLAN_NOT_RECORDED, what, error) from error

    async def check(self, obj: T) -> tuple[Recap, dict[str, object]]:
        """Reconciles in check mode: writes nothing, makes no outside calls and records no Events.

        Args:
            obj: The object.

        Returns:
            The recap with the changes that would be made, and the merge patch of the status.
        """
        play = self.plays.create(obj, check=True)
        recap = self._with_index_failure(obj.metadata.key, play, await self._playbook.run(play))
        return recap, self._statuses.patch(obj, final_status(play, recap)) if play.writes_status else {}

    def status_changes(self, before: T, after: T) -> dict[str, object]:
        """Returns how the status differs between two versions of an object, as a merge patch."""
        return self._statuses.patch(before, cast("Any", after).status) if self._statuses.enabled else {}

    def readable(self, key: ObjectKey) -> None:
        """Records that an object can be decoded again."""
        self._trouble.forget(key)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._playbook.forget(key)
        self.plays.forget(key)
        self._paused.forget(key)
        self._reporter.forget(key)
        self._pace.forget(key)
        self._announcer.forget(key)
        self._trouble.forget(key)
        self._remaining.forget(key)


def _never(key: ObjectKey, seconds: float) -> None:
    """Does nothing: without a controller, there is no queue."""
