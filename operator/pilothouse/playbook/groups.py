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
    the failure of the first of them, in the order of the list, becomes the reason of Ready.

    Members share the play. On the event loop `play.status = replace(play.status, ...)` is one step, as long
    as nothing is awaited in it.

    Args:
        name: What it is for, in words.
        tasks: Its members.
        parallel: Whether they run at the same time.
        independent: Whether the steps after the group run even if it fails or waits. By default they do not.
            In both cases a failure or a wait in the group keeps Ready from being True.
    """

    def __init__(
        self, name: str, tasks: "Sequence[Step[P]]", *, parallel: bool = False, independent: bool = False
    ) -> None:
        self.name = name
        self.tasks = tuple(tasks)
        self.parallel = parallel
        self.independent = independent


class Plan(Group[P]):
    """A group for an occasion: deploy, upgrade, backup, restore. It runs when its trigger says so.

    A play that ends inside a plan, because one of its tasks failed or waits, names the plan and the step in
    its recap. A plan is for what happens in order and once. A finished plan does not run, so nothing checks
    the objects that it applied: state those that must stay in tasks after the plan.

    There are two triggers. With both, the plan is due when either says so.

    `on_change` is for a change of the spec. The plan is due until it has finished with the present values,
    also if they change or are put back while it is under way. The object carries an annotation with a digest
    of the values that the plan last finished with. The annotation says `InProgress` from before the first
    task until after the last one, so a process that is killed in between changes nothing. A new object has
    no such annotation: the plan is due.

    `when` is for what tasks before the plan have observed. Nothing is stored, so the plan is due as long as
    `when` returns True: it must look at what there is, and at nothing that a later step of the plan sets.

    Args:
        name: What it is for, in a word or two: "upgrade". With `on_change` the name is part of an annotation:
            under another name the plan is due again.
        tasks: Its members.
        when: Returns whether the plan is due, by what the play has observed so far. A pure function; an error
            in it is a failure of the plan.
        on_change: Returns the values whose change makes the plan due:
            `lambda play: play.object.spec.version`. A pure function of the spec, or of other fields that only
            users change; an error in it is a failure of the plan. Values are compared as JSON.
        parallel: Whether the members run at the same time.
        independent: Whether the steps after the plan run even if it fails or waits. By default they do not.

    Raises:
        PlaybookError: There is no trigger, a trigger is an async function, or a plan with `on_change` is
            inside another plan, whose trigger would decide whether it is ever reached.
    """

    def __init__(
        self,
        name: str,
        tasks: "Sequence[Step[P]]",
        *,
        when: Callable[[P], bool] | None = None,
        on_change: Callable[[P], object] | None = None,
        parallel: bool = False,
        independent: bool = False,
    ) -> None:
        super().__init__(name, tasks, parallel=parallel, independent=independent)
        for trigger in (when, on_change):
            if inspect.iscoroutinefunction(trigger):
                raise PlaybookError(f"the trigger of the plan {name!r} is an async def. Make it a plain def.")
        if when is None and on_change is None:
            raise PlaybookError(f"the plan {name!r} has no trigger. Give it `when` or `on_change`.")
        if inner := next(recorded_plans(self.tasks), None):
            raise PlaybookError(
                f"the plan {inner.name!r} has `on_change` and is inside the plan {name!r}, which may never "
                "reach it. Move it out, or use a Group."
            )
        self.when = when
        self.on_change = on_change


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


def recorded_plans(steps: Sequence[Step[Any]]) -> Iterator[Plan[Any]]:
    """All plans in some steps that have `on_change`, those in groups included, in order."""
    for step in steps:
        if isinstance(step, Plan) and step.on_change is not None:
            yield step
        if isinstance(step, Group):
            yield from recorded_plans(step.tasks)
