"""Reports failures outside of tasks on the object, as the condition Ready and as an Event.

The API server may refuse a finalizer or a status, every reconcile may end with a conflict, and an object may
not be decodable. Without a report on the object, only the log would show such a failure, and the object would
still show Ready=True.
"""

import asyncio
import logging
from typing import Generic, NamedTuple, TypeVar

from pilothouse.controller import SyncError
from pilothouse.kube import (
    ApiError,
    Conflict,
    KubeError,
    KubeObject,
    ObjectKey,
    ObjectMeta,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Undecodable,
    Unreachable,
)
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.status_writer import NoStatusSubresource, StatusWriter
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

CONFLICT = "Conflict"
FINALIZER_NOT_STORED = "FinalizerNotStored"
FINALIZER_NOT_REMOVED = "FinalizerNotRemoved"
PLAN_NOT_RECORDED = "PlanNotRecorded"
STATUS_NOT_WRITTEN = "StatusNotWritten"
UNDECODABLE = "Undecodable"
"""Reasons of the condition Ready and of Events."""

# Errors that usually pass without intervention. They are reported from the third one in a row on, because a
# report is a request, too. An answer that cannot be decoded may come from a proxy. Or the object has changed:
# then `undecodable` reports it when the watch shows it.
PASSING = (ServerError, TooManyRequests, Unauthorized, Undecodable, Unreachable)
PASSING_TRIES = 3

# Conflicts in a row are normal while other clients change the object. They are reported once there were at
# least this many, over at least this number of seconds.
CONFLICT_TRIES = 5
CONFLICT_SECONDS = 2.0


class Conflicts(NamedTuple):
    """The conflicts of an object in a row.

    Attributes:
        number: The number of conflicts.
        since: The time of the first one, in seconds of the event loop's clock.
    """

    number: int
    since: float


class Trouble(Generic[T]):
    """Reports failures outside of tasks on the objects of one kind.

    Args:
        statuses: Writes the condition.
        announcer: Records the Events.
    """

    def __init__(self, statuses: StatusWriter[T], announcer: Announcer) -> None:
        self._statuses = statuses
        self._announcer = announcer
        # The number of passing errors in a row, by object.
        self._passing: dict[ObjectKey, int] = {}
        self._conflicts: dict[ObjectKey, Conflicts] = {}
        # The last report, by object: its UID and the failure.
        self._reported: dict[ObjectKey, tuple[str, str]] = {}

    def forget(self, key: ObjectKey) -> None:
        """Resets the count of errors of an object that was reconciled or no longer exists."""
        self._passing.pop(key, None)
        self._reported.pop(key, None)
        self._conflicts.pop(key, None)

    def no_conflict(self, key: ObjectKey) -> None:
        """Resets the count of conflicts of an object whose reconcile ended in another way."""
        self._conflicts.pop(key, None)

    def passes(self, key: ObjectKey, error: KubeError | SyncError) -> bool:
        """Counts an error, and returns whether it may pass without intervention and is not yet reported."""
        if not isinstance(error, PASSING):
            return False
        row = self._passing[key] = self._passing.get(key, 0) + 1
        return row < PASSING_TRIES

    def repeated(self, metadata: ObjectMeta, failure: TaskFailed) -> bool:
        """Records a failure of an object, and returns whether it is the same as the previous one."""
        before = self._reported.get(metadata.key)
        seen = self._reported[metadata.key] = _seen(metadata, failure)
        return before == seen

    async def refused(
        self, obj: T, reason: str, sentence: str, error: KubeError | SyncError
    ) -> KubeError | SyncError:
        """Reports that the API server refused a write of the engine.

        Args:
            obj: The object.
            reason: What was refused, for machines.
            sentence: What was refused, for people: a sentence without full stop.
            error: The refusal.

        Returns:
            The error to raise. With it, the object is retried with back-off.

        Raises:
            Conflict: The object has changed since it was read.
        """
        key = obj.metadata.key
        if self.passes(key, error):
            return error
        failure = TaskFailed(reason, f"{sentence}: {error}. The operator keeps retrying.")
        repeated = self.repeated(obj.metadata, failure)
        await self.report(obj, failure)
        after = error.retry_after if isinstance(error, ApiError | SyncError) else None
        return SyncError(failure.message, retry_after=after, repeated=repeated)

    async def conflicted(self, obj: T, conflict: Conflict) -> KubeError | SyncError:
        """Counts a conflict that ended a reconcile, and reports it if the conflicts last.

        An admission webhook may answer with a conflict, and another client may always be faster.

        Args:
            obj: The object as last seen.
            conflict: The conflict.

        Returns:
            The error to raise. With it, the object is retried with back-off.

        Raises:
            SyncError: Another process may lead by now.
        """
        key, now = obj.metadata.key, asyncio.get_running_loop().time()
        before = self._conflicts.get(key, Conflicts(0, now))
        row = self._conflicts[key] = Conflicts(before.number + 1, before.since)
        if row.number < CONFLICT_TRIES or now - row.since < CONFLICT_SECONDS:
            return conflict
        failure = TaskFailed(
            CONFLICT,
            f"Every reconcile of this object ends with a conflict: {conflict}. Another client, or a task of "
            "this operator, keeps changing the same object, or an admission webhook refuses the request. The "
            "operator keeps retrying.",
        )
        repeated = self.repeated(obj.metadata, failure)
        try:
            await self.report(obj, failure)
        except Conflict as error:
            log.debug("Could not record the conflict in the object's status: %s", error)
        return SyncError(failure.message, retry_after=conflict.retry_after, repeated=repeated)

    async def report(self, obj: T, failure: TaskFailed) -> None:
        """Reports a failure by an Event and, if the status can be written, by Ready=False.

        Args:
            obj: The object.
            failure: The reason and message.

        Raises:
            Conflict: The object has changed since it was read.
            SyncError: Another process may lead by now.
        """
        self._announcer.warn(obj.metadata, failure)
        try:
            await self._statuses.write_failure(obj, failure)
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            log.debug("Could not record the failure in the object's status: %s", error)

    async def undecodable(self, metadata: ObjectMeta, why: str, held_by: str) -> None:
        """Reports, once, an object that cannot be decoded and is therefore not reconciled.

        Args:
            metadata: The metadata of the object.
            why: Which field cannot be decoded, and why.
            held_by: Our finalizer, if the object is being deleted; else empty.

        Raises:
            Conflict: The object has changed since it was read.
            SyncError: Another process may lead by now, or the report must be retried.
        """
        failure = TaskFailed(UNDECODABLE, _undecodable(why, held_by))
        if self._reported.get(metadata.key) == _seen(metadata, failure):
            return
        self._announcer.warn(metadata, failure)
        try:
            await self._statuses.mark_undecodable(metadata, failure)
        except Conflict:
            raise
        except (KubeError, SyncError) as error:
            # Undecodable: status.conditions is not a list of conditions, and stays so.
            if isinstance(error, PASSING) and not isinstance(error, Undecodable):
                raise SyncError(f"{failure.message} ({error})") from error
            log.debug("Could not record the failure in the object's status: %s", error)
        self._reported[metadata.key] = _seen(metadata, failure)


def _seen(metadata: ObjectMeta, failure: TaskFailed) -> tuple[str, str]:
    return metadata.uid, f"{failure.reason}: {failure.message}"


def _undecodable(why: str, held_by: str) -> str:
    message = f"The operator cannot read this object and does not reconcile it: {why}."
    if not held_by:
        return f"{message} Correct the field, or install a release of the operator that knows it."
    return (
        f"{message} The object is being deleted, and the cleanup cannot run. Correct the field, and the "
        "operator cleans up. Or delete manually what belongs to the object, then remove its finalizer "
        f"{held_by}."
    )
