"""Failures and waits, which end a reconcile early. One of them becomes the reason of Ready."""

from typing import NamedTuple

from pilothouse.playbook.tasks import TaskFailed, Waiting


class End(NamedTuple):
    """A task that failed or waits.

    Attributes:
        cause: The failure or the wait.
        step: The name of the task, or of the plan whose trigger failed.
        plan: The name of the plan that contains the task; empty outside a plan.
    """

    cause: TaskFailed | Waiting
    step: str
    plan: str = ""


class Ends(NamedTuple):
    """The failures and waits of some steps.

    Attributes:
        all: The failures and waits, in the order of the steps.
        stopped: Whether the steps that follow are not run.
        failed: Whether they are not run because of a failure, and not only because of a wait.
    """

    all: tuple[End, ...] = ()
    stopped: bool = False
    failed: bool = False

    @property
    def failures(self) -> list[TaskFailed]:
        """The failures, in the order of the steps."""
        return [end.cause for end in self.all if isinstance(end.cause, TaskFailed)]

    @property
    def waits(self) -> list[Waiting]:
        """The waits, in the order of the steps."""
        return [end.cause for end in self.all if isinstance(end.cause, Waiting)]

    @property
    def first(self) -> End | None:
        """The one that Ready shows: a failure, otherwise a wait, otherwise a routine wait."""
        return min(self.all, key=_severity) if self.all else None

    def then(self, other: "Ends") -> "Ends":
        """Returns the ends of these steps followed by those of later steps."""
        return Ends(self.all + other.all, self.stopped or other.stopped, self.failed or other.failed)

    @property
    def not_blocking(self) -> "Ends":
        """The same failures and waits, for a group that does not stop later steps."""
        return Ends(self.all)


DONE = Ends()


def failed(failure: TaskFailed) -> Ends:
    """Returns the end of a reconcile that failed outside its tasks."""
    return Ends((End(failure, ""),), stopped=True, failed=True)


def _severity(end: End) -> int:
    if isinstance(end.cause, TaskFailed):
        return 0
    return 2 if end.cause.ready else 1
