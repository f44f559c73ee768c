"""What follows from the recap of a reconcile: the final status, and when to reconcile the object again."""

from typing import Any, TypeVar

from pilothouse.controller import Outcome, PermanentError, SyncError
from pilothouse.playbook.ends import Ends
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Recap
from pilothouse.playbook.status import READY, Aspect, PlayStatus, shortened, with_conditions

S = TypeVar("S", bound=PlayStatus)


def final_status(play: Play[Any, S], recap: Recap) -> S:
    """Returns the status to write at the end of a reconcile."""
    generation = play.object.metadata.generation
    return with_conditions(
        play.status,
        generation,
        (ready(play, recap), *play.pending_conditions),
        observed_generation=generation,
    )


def ready(play: Play[Any, Any], recap: Recap) -> Aspect:
    """Returns the condition Ready at the end of a reconcile."""
    failure, waiting = (recap.failure, recap.waiting) if recap.ends.all else (None, None)
    if failure is not None:
        return Aspect(READY, False, failure.reason, _with_sentence(failure.message, recap.consequence))
    if waiting is None:
        return Aspect(READY, play.ready, play.ready_reason, play.ready_message)
    if recap.unfinished:
        message = f"The plan {recap.unfinished} has not finished. {waiting}"
        return Aspect(READY, False, waiting.reason, message)
    if waiting.ready:
        return Aspect(READY, play.ready, play.ready_reason, f"{play.ready_message} {waiting}")
    return Aspect(READY, False, waiting.reason, str(waiting))


def outcome_of(play: Play[Any, Any], ends: Ends, *, repeated: bool) -> Outcome:
    """Returns when to reconcile the object again, if no task failed.

    Raises:
        PermanentError: All failures are permanent.
        SyncError: At least one failure is not permanent.
    """
    if not ends.all:
        return Outcome(play.after)
    asked = [waiting.fallback for waiting in ends.waits]
    if play.after is not None and not ends.failed:
        asked.append(play.after)
    after = min(asked, default=None)
    failures = ends.failures
    if not failures:
        return Outcome(after)
    message = "; ".join(dict.fromkeys(shortened(failure.message) for failure in failures))
    passing = [failure for failure in failures if not failure.permanent]
    if not passing:
        raise PermanentError(message, requeue_after=after, resync=not ends.failed)
    known = [failure.retry_after for failure in passing if failure.retry_after is not None]
    # If one failure has no known delay, the back-off decides.
    retry_after = min(known) if len(known) == len(passing) else None
    raise SyncError(message, retry_after=retry_after, requeue_after=after, repeated=repeated)


def _with_sentence(message: str, sentence: str) -> str:
    if not sentence:
        return message
    return f"{message}{'' if message.endswith(('.', '!', '?')) else '.'} {sentence}"
