"""Groups of tasks, in order or at the same time; and plans: groups that run when their trigger says so."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.tasks import Task

P = TypeVar("P")


class Group(Generic[P]):
    """A named list of tasks and groups.

    A parallel group runs its members at the same time and waits for all of them, also when one fails: a
    change that is cut off half-way is worse than one that is not needed any more. Each reports for itself;
    the failure of the first of them, in the order of the list, ends the play.

    Members share the play. On the event loop `play.status = replace(play.status, ...)` is one step, as long
    as nothing is awaited in it.

    Args:
        name: What it is for, in words.
        tasks: Its members.
        parallel: Whether they run at the same time.
    """

    def __init__(self, name: str, tasks: "Sequence[Step[P]]", *, parallel: bool = False) -> None:
        self.name = name
        self.tasks = tuple(tasks)
        self.parallel = parallel


class Plan(Group[P]):
    """A group for an occasion: deploy, upgrade, backup, restore. It runs when its trigger says so.

    A play that ends inside of a plan, because a task of it failed or waits, names the plan and the step in
    its recap. The next play finds by the same trigger that the plan is not done: the trigger looks at what
    earlier tasks have found out and nothing else, so it stays true until the plan has reached its end.

    Args:
        name: What it is for, in a word or two: "upgrade".
        tasks: Its members.
        when: The trigger: whether the plan is due, by what the play has observed so far. A pure function;
            an error in it is a failure of the plan.
        parallel: Whether the members run at the same time.
    """

    def __init__(
        self, name: str, tasks: "Sequence[Step[P]]", *, when: Callable[[P], bool], parallel: bool = False
    ) -> None:
        super().__init__(name, tasks, parallel=parallel)
        if inspect.iscoroutinefunction(when):
            raise PlaybookError(f"the trigger of the plan {name!r} is an async def. Make it a plain def.")
        self.when = when


Step: TypeAlias = Task[P] | Group[P]
"""What a playbook, or a group in it, consists of."""


def tasks_of(steps: Sequence[Step[Any]]) -> Iterator[Task[Any]]:
    """All tasks in some steps, those of groups included, in order."""
    for step in steps:
        if isinstance(step, Group):
            yield from tasks_of(step.tasks)
        elif isinstance(step, Task):
            yield step
        else:
            raise PlaybookError(f'{step!r} is not a task. Decorate the function with @task("...").')
