"""Tells people how plays end: a line in the log, and Events for an administrator's timeline."""

import logging
from typing import Any

from pilothouse.controller import Event, EventRecorder, EventType, ObjectReference
from pilothouse.kube import ObjectKey, Resource
from pilothouse.playbook.play import Play, PlayEvent
from pilothouse.playbook.playbook import Recap

log = logging.getLogger(__name__)

PLAN_IN_PROGRESS = "PlanInProgress"
PLAN_COMPLETED = "PlanCompleted"


class Announcer:
    """Tells how the plays of one kind end.

    Args:
        resource: The kind.
        recorder: Takes Events.
    """

    def __init__(self, resource: Resource[Any], recorder: EventRecorder) -> None:
        self._resource = resource
        self._recorder = recorder
        # The plan and the step that an object is in: an Event tells of each once.
        self._plans: dict[ObjectKey, tuple[str, str]] = {}

    def tell(self, play: Play[Any, Any], recap: Recap) -> None:
        """Tells how a play has ended."""
        # A failure has a line of its own, from the controller, with the time of the next try.
        told = recap.eventful and recap.failure is None
        log.log(logging.INFO if told else logging.DEBUG, "play: %s", recap)
        events = play.pending_events
        if recap.failure is not None:
            events.append(
                PlayEvent(EventType.WARNING, recap.failure.reason, recap.failure.message, recap.step)
            )
        if recap.plan or self._plans:
            self._tell_plan(play, recap)
        if events:
            metadata = play.object.metadata
            regarding = ObjectReference(
                self._resource.api_version, self._resource.kind, metadata.key, metadata.uid
            )
            for event in events:
                self._recorder.record(Event(regarding, event.type, event.reason, event.action, event.note))

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._plans.pop(key, None)

    def _tell_plan(self, play: Play[Any, Any], recap: Recap) -> None:
        key = play.object.metadata.key
        before = self._plans.get(key)
        if not recap.plan:
            # A play that failed outside of the plan does not tell whether it is done.
            if before is not None and recap.failure is None:
                del self._plans[key]
                note = f"The plan {before[0]} is done."
                play.pending_events.append(PlayEvent(EventType.NORMAL, PLAN_COMPLETED, note, before[0]))
            return
        now = self._plans[key] = (recap.plan, recap.step)
        if recap.waiting is not None and now != before:
            note = f"The plan {recap.plan} is at the step {recap.step!r}: {recap.waiting}"
            play.pending_events.append(PlayEvent(EventType.NORMAL, PLAN_IN_PROGRESS, note, recap.plan))
