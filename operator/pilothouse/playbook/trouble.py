"""Trouble outside of any task: makes it visible on the object, as the condition Ready and as an Event.

The API server may refuse a finalizer or a status, and an object may not be decodable. Without a report on the
object only the log shows it, while the object keeps reading Ready=True.
"""

import logging
from typing import Generic, TypeVar

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
from pilothouse.playbook.status_writer import StatusWriter
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

FINALIZER_NOT_STORED = "FinalizerNotStored"
FINALIZER_NOT_REMOVED = "FinalizerNotRemoved"
STATUS_NOT_WRITTEN = "StatusNotWritten"
UNDECODABLE = "Undecodable"
UNKNOWN_FINALIZER = "UnknownFinalizer"
"""Reasons of the condition Ready and of Events."""

# Errors that pass by themselves as a rule. Only a row of them is reported: the report is a request, too.
PASSING = (ServerError, TooManyRequests, Unauthorized, Unreachable)
PASSING_TRIES = 3


class Trouble(Generic[T]):
    """Reports what went wrong outside of tasks on the objects of one kind.

    Args:
        statuses: Writes the condition.
        announcer: Records the Events.
    """

    def __init__(self, statuses: StatusWriter[T], announcer: Announcer) -> None:
        self._statuses = statuses
        self._announcer = announcer
        # How many passing errors in a row an object has met.
        self._passing: dict[ObjectKey, int] = {}
        # What was last reported of an object.
        self._reported: dict[ObjectKey, tuple[str, str]] = {}

    def forget(self, key: ObjectKey) -> None:
        """Ends the row of errors of an object that was reconciled, or is gone."""
        self._passing.pop(key, None)
        self._reported.pop(key, None)

    def passes(self, key: ObjectKey, error: KubeError | SyncError) -> bool:
        """Counts an error; returns whether it is one that may well pass and is not worth a report yet."""
        if not isinstance(error, PASSING):
            return False
        row = self._passing[key] = self._passing.get(key, 0) + 1
        return row < PASSING_TRIES

    def repeated(self, metadata: ObjectMeta, failure: TaskFailed) -> bool:
        """Notes a failure of an object; returns whether it is the same as the one before."""
        before = self._reported.get(metadata.key)
        seen = self._reported[metadata.key] = _seen(metadata, failure)
        return before == seen

    async def refused(
        self, obj: T, reason: str, sentence: str, error: KubeError | SyncError
    ) -> KubeError | SyncError:
        """Reports what the API server refused to the engine.

        Args:
            obj: The object.
            reason: What was refused, for machines.
            sentence: What was refused, for people.
            error: The refusal.

        Returns:
            The error to raise, by which the object is retried with back-off.

        Raises:
            Conflict: The object changed meanwhile.
        """
        key = obj.metadata.key
        # The watch brings an object that cannot be decoded, and that is reported then.
        if isinstance(error, Undecodable) or self.passes(key, error):
            return error
        failure = TaskFailed(reason, f"{sentence}: {error}. The operator keeps retrying.")
        repeated = self.repeated(obj.metadata, failure)
        await self.report(obj, failure)
        after = error.retry_after if isinstance(error, ApiError | SyncError) else None
        return SyncError(failure.message, retry_after=after, repeated=repeated)

    async def report(self, obj: T, failure: TaskFailed) -> None:
        """Reports a failure: an Event, and Ready=False where the status can be written.

        Raises:
            Conflict: The object changed meanwhile.
            SyncError: Another process may lead by now.
        """
        self._announcer.warn(obj.metadata, failure)
        try:
            await self._statuses.write_failure(obj, failure)
        except Conflict:
            raise
        except KubeError as error:
            log.debug("could not record the failure in the object's status: %s", error)

    async def undecodable(self, metadata: ObjectMeta, why: str, held_by: str) -> None:
        """Reports once an object that cannot be decoded, and is not reconciled before it can be.

        Args:
            metadata: Of the object.
            why: Which field cannot be decoded, and why.
            held_by: Our finalizer on it, if it is being deleted.

        Raises:
            Conflict: The object changed meanwhile.
            SyncError: Another process may lead by now, or it is reported again later.
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
            if isinstance(error, PASSING):
                raise SyncError(f"{failure.message} ({error})") from error
            log.debug("could not record the failure in the object's status: %s", error)
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
