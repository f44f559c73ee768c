"""Writes the status of a reconcile, restores it after changes by other clients, and reports refusals."""

import logging
from typing import Any, Generic, TypeVar, cast

from pilothouse.controller import SyncError
from pilothouse.kube import Conflict, KubeError, KubeObject, ObjectKey
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.conclusion import final_status
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.rivals import StatusRivals
from pilothouse.playbook.status import PlayStatus
from pilothouse.playbook.status_writer import NoStatusSubresource, StatusWriter
from pilothouse.playbook.tasks import TaskFailed
from pilothouse.playbook.trouble import STATUS_NOT_WRITTEN, Trouble
from pilothouse.playbook.unstored import RETRY_SECONDS, UnstoredFields
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)


class StatusReporter(Generic[T]):
    """Writes the statuses of reconciles, restores what other clients changed, and reports refusals.

    Args:
        statuses: Writes the status.
        rivals: Decides when a status that another client keeps changing is restored.
        trouble: Reports a refusal.
        announcer: Records the Events.
    """

    def __init__(
        self, statuses: StatusWriter[T], rivals: StatusRivals, trouble: Trouble[T], announcer: Announcer
    ) -> None:
        self._statuses = statuses
        self._rivals = rivals
        self._trouble = trouble
        self._announcer = announcer
        self._unstored = UnstoredFields(announcer)

    async def write(self, obj: T, status: PlayStatus) -> tuple[T, float]:
        """Writes a status, but restores what another client keeps changing only with growing pauses.

        If the API server does not store a field, Ready is False as long as it can be stored, and the status
        is to be written again later.

        Returns:
            The object as written, and the seconds until the rest of the status may be written.

        Raises:
            Conflict: The object has changed since it was read.
            KubeError: The API server cannot be reached, or it refused the write.
            SyncError: The API server refused the write, which is reported on the object.
        """
        if status is cast("Any", obj).status and not self._rivals and not self._unstored:
            return obj, 0.0  # The usual end of a reconcile that changes nothing.
        contested = self._rivals.contested(obj, status)
        status, wait = self._rivals.postpone(obj, status, contested)
        written = await self._write_all(obj, status)
        if contested and not wait:
            await self._rivals.corrected(obj, contested)
        elif not wait:
            self._rivals.forget(obj.metadata.key)
        if obj.metadata.key in self._unstored:
            wait = wait or RETRY_SECONDS
        return written, wait

    async def _write_all(self, obj: T, status: PlayStatus) -> T:
        """Writes a status, and corrects Ready if the response shows that fields were or are not stored."""
        sent = self._unstored.marked(obj.metadata, status)
        written = await self._write(obj, sent)
        if written is obj and (obj.metadata.key not in self._unstored or self._statuses.patch(obj, sent)):
            return written  # Nothing differs, or the object has been deleted.
        if not self._unstored.compare(obj, sent, written):
            return written
        return await self._write(written, self._unstored.marked(written.metadata, status))

    async def _write(self, obj: T, status: PlayStatus) -> T:
        """Writes the differences of a status, reports a refusal, and returns the object as written."""
        try:
            return await self._statuses.write(obj, status)
        except Conflict:
            raise
        except (KubeError, NoStatusSubresource) as error:
            what = "The status of this object cannot be written"
            raise await self._trouble.refused(obj, STATUS_NOT_WRITTEN, what, error) from error

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._rivals.gone(key)
        self._unstored.forget(key)

    async def record(self, obj: T, status: PlayStatus) -> T:
        """Writes a status during a reconcile. It is never postponed, because an effect may depend on it.

        Returns:
            The object as written.

        Raises:
            Conflict: The object has changed since it was read, or no longer exists.
            NoStatusSubresource: The kind has no status subresource.
            KubeError: The API server cannot be reached, or it refused the write.
        """
        contested = self._rivals.contested(obj, status)
        written = await self._statuses.record(obj, status)
        if contested:
            await self._rivals.corrected(obj, contested)
        return written

    async def write_last(self, play: Play[T, Any], recap: Recap) -> T:
        """Writes the status of an object that finalizers of others keep after its cleanup.

        If the status cannot be written, the finalizer is removed all the same.

        Returns:
            The object as written. It is the play's object if nothing was written.

        Raises:
            Conflict: The object has changed since it was read.
            KubeError: The API server refused the write, which may succeed later.
            SyncError: Another process may lead by now.
        """
        obj = play.object
        try:
            return await self._statuses.write(obj, final_status(play, recap))
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
