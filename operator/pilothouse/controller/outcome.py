"""The results of a reconcile: an `Outcome`, or an error."""

import asyncio
from dataclasses import dataclass

# The shortest delay that a reconcile can request, in seconds. It allows 10 reconciles a second of one object,
# which is also the rate of all retries of a queue (client-go's). Without it, a task that only reads could
# request 1,000 reconciles a second, and no limit of writes and no failure would show that.
SHORTEST_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reconcile without failure.

    Attributes:
        requeue_after: Seconds until the object is reconciled again, at least 0.1. 0 means with back-off; None
            means when the object changes, or at the next resync.
    """

    requeue_after: float | None = None


class SyncError(Exception):
    """An expected failure of a reconcile. It is logged as one line and retried.

    Args:
        message: What failed, why, and what to do about it.
        retry_after: Seconds until the retry, at least 0.1, if known; 0 and None mean with back-off. If it is
            less than 1 s, the retry comes after the back-off if that is longer.
        requeue_after: Seconds until the object is reconciled in any case, at least 0.1, because a part of the
            reconcile that did not fail asked for it; None if no part did.
        repeated: Whether the previous reconcile failed in the same way. Repeated failures are logged at debug
            level.
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
    """A failure that a retry cannot fix until the object changes.

    Args:
        message: What failed, why, and what to do about it.
        requeue_after: See `SyncError`.
        resync: Whether resyncs still reconcile the object, because a part of the reconcile did not fail.
    """

    def __init__(self, message: str, *, requeue_after: float | None = None, resync: bool = False) -> None:
        super().__init__(message, requeue_after=requeue_after)
        self.resync = resync


def ends_task(error: BaseException) -> bool:
    """Returns whether an error requires the current asyncio task to end.

    A CancelledError requires that only if the current task itself was cancelled. If something that it
    awaited was cancelled, the CancelledError is a failure like any other. Anything else that a reconcile
    raises is a failure of its object only, including SystemExit and other subclasses of BaseException.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
