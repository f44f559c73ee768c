"""What ends the steps of a play early: failures and waits, one of which becomes the reason of Ready."""

from typing import NamedTuple

from pilothouse.playbook.tasks import TaskFailed, Waiting


class End(NamedTuple):
    """Why a task did not reach its end.

    Attributes:
        cause: Its failure, or what it waits for.
        step: The name of the task, or of the plan whose trigger failed.
        plan: The name of the plan that the task is in; empty outside a plan.
    """

    cause: TaskFailed | Waiting
    step: str
    plan: str = ""


class Ends(NamedTuple):
    """How some steps ended.

    Attributes:
        all: What did not reach its end, in the order of the steps.
        stopped: Whether the steps that follow do not run.
        failed: Whether a failure is the reason for that, and not only a wait.
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
        """What is waited for, in the order of the steps."""
        return [end.cause for end in self.all if isinstance(end.cause, Waiting)]

    @property
    def first(self) -> End | None:
        """What Ready shows: a failure, else a wait that keeps Ready from being True, else a routine wait."""
        return min(self.all, key=_severity, default=None)

    def then(self, other: "Ends") -> "Ends":
        """Returns how both ended, those of `other` being the later steps."""
        return Ends(self.all + other.all, self.stopped or other.stopped, self.failed or other.failed)

    @property
    def independent(self) -> "Ends":
        """The same for a group that does not keep later steps from running."""
        return Ends(self.all)


DONE = Ends()


def failed(failure: TaskFailed) -> Ends:
    """How a play ended that failed outside of its tasks."""
    return Ends((End(failure, ""),), stopped=True, failed=True)


def _severity(end: End) -> int:
    if isinstance(end.cause, TaskFailed):
        return 0
    return 2 if end.cause.ready else 1
