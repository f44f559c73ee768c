"""The time limit of a wait, which belongs to a call in the code of a task and not to the text of the wait."""

import inspect
from dataclasses import dataclass
from types import FrameType

from pilothouse.controller.outcome import SHORTEST_SECONDS
from pilothouse.kube import ObjectMeta
from pilothouse.playbook.records import Records, elapsed
from pilothouse.playbook.tasks import TaskFailed, TaskResult, Waiting

WAIT_TIMED_OUT = "WaitTimedOut"


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """The time limit of one wait.

    Attributes:
        seconds: Seconds that the wait may last.
        task: The name of the task that waits.
        call: The call that waits. It must be the same in each reconcile, and differ from those of other waits
            of the task.
        metadata: The metadata of the play's object.
        records: The times when tasks began to wait.
    """

    seconds: float
    task: str
    call: str
    metadata: ObjectMeta
    records: Records

    def end(self) -> None:
        """Ends the wait: the next one of the same call starts again."""
        self.records.end_wait(self.metadata, self.task, self.call)

    def of(self, wait: Waiting, what: str, *, detail: str = "") -> Waiting:
        """Returns a wait whose next check is at most 0.1 s later than its time limit.

        Args:
            wait: The wait.
            what: What the task waits for, in words.
            detail: Another sentence for the failure.

        Raises:
            TaskFailed: WaitTimedOut: The wait has lasted longer.
        """
        waited = elapsed(self.records.waiting_since(self.metadata, self.task, self.call))
        if waited < self.seconds:
            fallback = min(wait.fallback, max(self.seconds - waited, SHORTEST_SECONDS))
            return Waiting(wait.reason, wait.message, fallback=fallback, ready=wait.ready)
        message = f"Timed out after {self.seconds:g} s of waiting until {what}. The operator keeps checking."
        raise TaskFailed(WAIT_TIMED_OUT, f"{message} {detail}".rstrip())


def time_limit(
    seconds: float, result: TaskResult, call: str, metadata: ObjectMeta, records: Records
) -> TimeLimit:
    """Returns the time limit of a call. If a task makes the same call several times, each has its own."""
    number = records.number_of_call(result, call)
    return TimeLimit(seconds, result.task, f"{call} {number}", metadata, records)


def calling_code() -> str:
    """Returns where the code of the task calls the module: its functions, and the position in each of them.

    The position is that in the bytecode of the function. So it changes only with the function itself, and not
    with the lines before it.
    """
    frame = inspect.currentframe()
    while frame is not None and _is_framework(frame):
        frame = frame.f_back
    places = []
    while frame is not None and not _is_framework(frame):
        places.append(f"{frame.f_code.co_qualname}:{frame.f_lasti}")
        frame = frame.f_back
    return " ".join(places)


def _is_framework(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("pilothouse.")
