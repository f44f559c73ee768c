"""Fields of a status that the API server does not store, because the schema of the CRD lacks them.

The API server drops such fields without an error. Only its response shows it.
"""

import logging
from typing import Any, TypeVar

from pilothouse.kube import KubeObject, ObjectKey, ObjectMeta
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.status import READY, Aspect, PlayStatus, not_stored, with_conditions
from pilothouse.playbook.tasks import TaskFailed, status_not_stored

log = logging.getLogger(__name__)

S = TypeVar("S", bound=PlayStatus)

# Delay in seconds before the status is written again: no watch shows when the CRD changes.
RETRY_SECONDS = 300.0


class UnstoredFields:
    """Remembers for each object which fields of its status were not stored, and reports them once.

    Args:
        announcer: Records the Events.
    """

    def __init__(self, announcer: Announcer) -> None:
        self._announcer = announcer
        self._found: dict[ObjectKey, list[str]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def __contains__(self, key: ObjectKey) -> bool:
        return key in self._found

    def compare(self, obj: KubeObject, sent: PlayStatus, written: KubeObject) -> bool:
        """Compares a status with the response to its write, and reports fields that are missing there.

        Args:
            obj: The object before the write.
            sent: The status that was written.
            written: The object in the response.

        Returns:
            Whether the missing fields have changed: others are missing now, or all are stored.
        """
        key, stored = obj.metadata.key, _status(written)
        fields = [] if stored == sent else not_stored(_status(obj), sent, stored)
        if fields == self._found.get(key, []):
            return False
        if not fields:
            del self._found[key]
            return True
        self._found[key] = fields
        self._report(obj.metadata, status_not_stored(fields))
        return True

    def marked(self, metadata: ObjectMeta, status: S) -> S:
        """Returns a status with Ready=False if fields of the object's status were not stored."""
        fields = self._found.get(metadata.key) if self._found else None
        if not fields:
            return status
        failure = status_not_stored(fields)
        return with_conditions(
            status, metadata.generation, [Aspect(READY, False, failure.reason, failure.message)]
        )

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._found.pop(key, None)

    def _report(self, metadata: ObjectMeta, failure: TaskFailed) -> None:
        log.warning("%s", failure.message)
        self._announcer.warn(metadata, failure)


def _status(obj: Any) -> PlayStatus:
    """Returns the stored status. The views of kinds whose status the operator writes have one."""
    status: PlayStatus = obj.status
    return status
