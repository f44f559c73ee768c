"""How a sync ends."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """A sync that did what it could.

    Attributes:
        requeue_after: Seconds until the key is synced again, 0 for as soon as its back-off allows; None: when
            it changes, or at the next resync.
    """

    requeue_after: float | None = None


class SyncError(Exception):
    """A sync failed in a way that is understood: it is logged as one line and tried again.

    Args:
        message: What happened, and what to do about it.
        retry_after: Seconds until the next try, where that is known; None: the back-off says.
        requeue_after: Seconds until the key is synced in any case, because a part of the sync that did not
            fail asked for that; None: no part did.
        repeated: The last sync failed in the same way: no news for a log.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        requeue_after: float | None = None,
        repeated: bool = False,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.requeue_after = requeue_after
        self.repeated = repeated


class PermanentError(SyncError):
    """Trying again is of no use until the object changes.

    Args:
        message: What happened, and what to do about it.
        requeue_after: See `SyncError`.
        resync: Whether resyncs go on, because a part of the sync did not fail.
    """

    def __init__(self, message: str, *, requeue_after: float | None = None, resync: bool = False) -> None:
        super().__init__(message, requeue_after=requeue_after)
        self.resync = resync


def ends_task(error: BaseException) -> bool:
    """Whether an error is more than a defect of what has raised it: somebody wants the current task to end.

    A CancelledError need not be: if what the task awaited was cancelled by somebody, that is an error like
    any other. Whatever else a sync raises concerns its key alone, be it no Exception: SystemExit, or what a
    library derives from BaseException itself.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
