"""Reports how a reconcile ended: a line in the log, and Events."""

import logging
from typing import Any

from pilothouse.controller import Event, EventRecorder, EventType, ObjectReference
from pilothouse.kube import ObjectKey, ObjectMeta, Resource
from pilothouse.playbook.play import Play, PlayEvent
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.tasks import TaskFailed, Waiting

log = logging.getLogger(__name__)

PLAN_IN_PROGRESS = "PlanInProgress"
PLAN_COMPLETED = "PlanCompleted"


class Announcer:
    """Reports how the reconciles of one kind ended.

    Args:
        resource: The kind.
        recorder: Records Events.
    """

    def __init__(self, resource: Resource[Any], recorder: EventRecorder) -> None:
        self._resource = resource
        self._recorder = recorder
        # The plans in progress of each object, with the current step of each: an Event reports a step once.
        self._plans: dict[ObjectKey, dict[str, str]] = {}

    def report(self, play: Play[Any, Any], recap: Recap) -> None:
        """Logs the recap of a reconcile, and records its Events."""
        # The controller logs a failure, with the time of the retry.
        noteworthy = recap.eventful and recap.failure is None
        log.log(logging.INFO if noteworthy else logging.DEBUG, "Reconciled: %s", recap)
        events = play.pending_events
        for end in recap.ends.all:
            if isinstance(end.cause, TaskFailed):
                events.append(PlayEvent(EventType.WARNING, end.cause.reason, end.cause.message, end.step))
        if self._plans or (recap.ends.all and recap.plan):
            self._report_plans(play, recap)
        for event in events:
            self.record(play.object.metadata, event)

    def warn(self, metadata: ObjectMeta, failure: TaskFailed) -> None:
        """Records a failure outside of the tasks as a Warning Event."""
        self.record(metadata, PlayEvent(EventType.WARNING, failure.reason, failure.message, "Reconcile"))

    def record(self, metadata: ObjectMeta, event: PlayEvent) -> None:
        """Records an Event about the object with this metadata."""
        resource = self._resource
        regarding = ObjectReference(resource.api_version, resource.kind, metadata.key, metadata.uid)
        self._recorder.record(Event(regarding, event.type, event.reason, event.action, event.note))

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._plans.pop(key, None)

    def _report_plans(self, play: Play[Any, Any], recap: Recap) -> None:
        key = play.object.metadata.key
        before = self._plans.pop(key, {})
        now = {end.plan: end for end in reversed(recap.ends.all) if end.plan}
        for plan, end in reversed(now.items()):
            if isinstance(end.cause, Waiting) and before.get(plan) != end.step:
                note = f"The plan {plan!r} has reached the step {end.step!r}. {end.cause}"
                play.pending_events.append(PlayEvent(EventType.NORMAL, PLAN_IN_PROGRESS, note, plan))
        # A plan that the reconcile did not reach may still be in progress. One that never began is dropped
        # without an Event, because it has changed nothing.
        over = play.records.plans_over
        for plan in before.keys() & play.records.plans_finished - now.keys():
            note = f"The plan {plan!r} has finished."
            play.pending_events.append(PlayEvent(EventType.NORMAL, PLAN_COMPLETED, note, plan))
        kept = {plan: step for plan, step in before.items() if plan not in over}
        if plans := {**kept, **{plan: end.step for plan, end in now.items()}}:
            self._plans[key] = plans
