"""Reports on an object that its reconcile timed out, or met an unexpected error outside of its tasks."""

import asyncio
import logging
from typing import Generic, TypeVar

from pilothouse.controller import SyncError
from pilothouse.controller.outcome import ends_task
from pilothouse.informer import Store
from pilothouse.kube import Conflict, KubeError, KubeObject, ObjectKey
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.conclusion import final_status
from pilothouse.playbook.ends import failed
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.plays import Plays
from pilothouse.playbook.status_writer import StatusWriter
from pilothouse.playbook.tasks import TaskFailed, unexpected
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

CANCELLED = (
    "a task, or a library that it uses, cancelled the reconcile, as asyncio.current_task().cancel() does. To "
    "end the reconcile, raise TaskFailed or Waiting."
)


class Interruptions(Generic[T]):
    """Reports the interrupted reconciles of one kind.

    Args:
        store: The store of the objects.
        plays: Creates the plays.
        statuses: Writes the status.
        announcer: Records the Events.
    """

    def __init__(
        self, store: Store[T], plays: Plays[T], statuses: StatusWriter[T], announcer: Announcer
    ) -> None:
        self._store = store
        self._plays = plays
        self._statuses = statuses
        self._announcer = announcer

    async def timed_out(self, key: ObjectKey, seconds: float) -> None:
        """Reports on an object that its reconcile timed out.

        Args:
            key: The object.
            seconds: The time limit.

        Raises:
            KubeError: The API server cannot be reached, or it refused the write.
        """
        obj = self._store.get(key)
        if obj is None:
            return
        failure = TaskFailed(
            "Timeout",
            f"Timed out after {seconds:g} s; retrying. If the object needs longer, raise the operator's "
            "SYNC_TIMEOUT.",
        )
        self._announcer.warn(obj.metadata, failure)
        if not self._statuses.enabled:
            return
        try:
            play = self._plays.create(obj, check=False)
            play.failed(failure)
            await self._statuses.write(obj, final_status(play, Recap([], failed(failure))))
        except (Conflict, SyncError):
            raise
        except KubeError:
            await self._statuses.write_failure(obj, failure)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "Could not let the playbook report the timeout")
            await self._statuses.write_failure(obj, failure)

    async def met_defect(self, key: ObjectKey, error: BaseException) -> None:
        """Reports on an object that its reconcile met an unexpected error outside of any task.

        Args:
            key: The object.
            error: The unexpected error.

        Raises:
            KubeError: The API server cannot be reached, or it refused the write.
        """
        obj = self._store.get(key)
        if obj is not None:
            if isinstance(error, asyncio.CancelledError):
                error = PlaybookError(CANCELLED)
            failure = unexpected("play", error)
            self._announcer.warn(obj.metadata, failure)
            await self._statuses.write_failure(obj, failure)
