"""Reports objects that a user has paused: in the status, or by an Event if the operator writes no status."""

import logging
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from pilothouse.controller import EventType
from pilothouse.kube import KubeObject, ObjectKey
from pilothouse.playbook.annotations import PAUSED
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.play import PlayEvent
from pilothouse.playbook.plays import Plays
from pilothouse.playbook.status import READY, Aspect, with_conditions
from pilothouse.playbook.status_reporter import StatusReporter

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

PAUSED_READY = Aspect(
    READY, None, "Paused", f"Not reconciled while the annotation {PAUSED} is true. Remove it to continue."
)


class PausedObjects(Generic[T]):
    """Reports the paused objects of one kind.

    Args:
        plays: Creates the plays.
        reporter: Writes the status.
        announcer: Records the Events.
        later: Queues an object after a number of seconds, when its status may be restored.
        writes_status: Whether the operator writes the status of the objects.
    """

    def __init__(
        self,
        plays: Plays[T],
        reporter: StatusReporter[T],
        announcer: Announcer,
        *,
        later: Callable[[ObjectKey, float], None],
        writes_status: bool,
    ) -> None:
        self._plays = plays
        self._reporter = reporter
        self._announcer = announcer
        self._later = later
        self._writes_status = writes_status
        # For kinds without a status: the objects that are known to be paused.
        self._paused: set[ObjectKey] = set()

    async def report(self, obj: T) -> None:
        """Reports once that an object is paused.

        Raises:
            Conflict: The object has changed since it was read.
            KubeError: The API server cannot be reached, or it refused the write.
            SyncError: The API server refused the write, which is reported on the object.
        """
        if not self._writes_status:
            if obj.metadata.key not in self._paused:
                self._paused.add(obj.metadata.key)
                log.info("Paused by the annotation %s", PAUSED)
                event = PlayEvent(EventType.NORMAL, PAUSED_READY.reason, PAUSED_READY.message, "Pause")
                self._announcer.record(obj.metadata, event)
            return
        for condition in cast("Any", obj).status.conditions:
            if (condition.type, condition.reason) == (READY, PAUSED_READY.reason):
                return
        play = self._plays.create(obj, check=False)
        if not play.writes_status:
            return
        log.info("Paused by the annotation %s", PAUSED)
        play.paused()
        status = with_conditions(play.status, obj.metadata.generation, [PAUSED_READY])
        _, wait = await self._reporter.write(obj, status)
        if wait:
            self._later(obj.metadata.key, wait)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that is not paused, or that no longer exists."""
        self._paused.discard(key)
