"""Groups, which run tasks in order or in parallel, and plans, which are groups with a trigger."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.tasks import Task

P = TypeVar("P")


class Group(Generic[P]):
    """A named list of tasks and groups, run in order or in parallel.

    ::

        Group("network", [service_exists, ingress_exists], parallel=True)

    A parallel group starts all members at the same time and waits for all of them, even if one fails: an
    unneeded change is better than an interrupted one. Each member has a result of its own. If several fail,
    the first one in the list sets the reason of Ready.

    Parallel members share the play. An assignment such as `play.status = replace(play.status, ...)` is safe
    as long as it awaits nothing.

    Args:
        name: What the group is for, in words.
        tasks: The tasks and groups.
        parallel: Whether they run at the same time.
        independent: Whether the steps after the group run even if it fails or waits. By default they do not.
            In both cases Ready is not True while the group fails, or waits without `ready=True`.
    """

    def __init__(
        self, name: str, tasks: "Sequence[Step[P]]", *, parallel: bool = False, independent: bool = False
    ) -> None:
        self.name = name
        self.tasks = tuple(tasks)
        self.parallel = parallel
        self.independent = independent


class Plan(Group[P]):
    """A group with a trigger, for steps that run once per change: deploy, upgrade, backup, restore.

    ::

        Plan("upgrade", [stop_readers, migrate], on_change=lambda play: play.object.spec.version)

    A plan runs only while it is due, so nothing restores the objects that a finished plan applied. Apply the
    objects that must stay in tasks after the plan. If a task in the plan fails or waits, the recap names the
    plan and the task.

    There are two triggers. If a plan has both, it is due when either of them is.

    `on_change` is for a change of the spec. The plan is due until it has finished with the current values,
    even if they change again, or are changed back, while it is in progress. An annotation of the object
    stores a digest of the values that the plan last finished with. Before the first task it is set to
    `InProgress`, so that another process continues an interrupted plan. A new object has no annotation, so
    the plan is due.

    `when` is for what earlier tasks have observed. Nothing is stored: the plan is due whenever `when` returns
    True. So `when` must not depend on anything that a later step of the plan sets.

    Args:
        name: What the plan is for, in a word or two: "upgrade". With `on_change` the name is part of the
            annotation, so a renamed plan is due again.
        tasks: The tasks and groups.
        when: Returns whether the plan is due, from what the play has observed so far. It must be a pure
            function. If it raises an error, the plan fails.
        on_change: Returns the values whose change makes the plan due. It must be a pure function of the spec,
            or of other fields that only users change. If it raises an error, the plan fails. Values are
            compared as JSON. If a release returns one field more, or the same fields in another form, the
            plan is due for every object, and so it is if the operator is renamed.
        parallel: Whether the tasks and groups run at the same time.
        independent: Whether the steps after the plan run even if it fails or waits. By default they do not.

    Raises:
        PlaybookError: There is no trigger, a trigger is an async function, or a plan with `on_change` is
            inside another plan, which may never reach it.
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
            raise PlaybookError(f"the plan {name!r} has no trigger. Add `when` or `on_change`.")
        if inner := next(recorded_plans(self.tasks), None):
            raise PlaybookError(
                f"the plan {inner.name!r} has `on_change` and is inside the plan {name!r}, which may never "
                "reach it. Move it out, or use a Group instead."
            )
        self.when = when
        self.on_change = on_change


Step: TypeAlias = Task[P] | Group[P]
"""A step of a playbook or a group: a task, a group or a plan."""


def tasks_of(steps: Sequence[Step[Any]]) -> Iterator[Task[Any]]:
    """Yields all tasks in the steps, including those in groups, in order.

    Raises:
        PlaybookError: A step is neither a task nor a group.
    """
    for step in steps:
        if isinstance(step, Group):
            yield from tasks_of(step.tasks)
        elif isinstance(step, Task):
            yield step
        else:
            raise PlaybookError(f'{step!r} is not a task. Decorate the function with @task("...").')


def recorded_plans(steps: Sequence[Step[Any]]) -> Iterator[Plan[Any]]:
    """Yields all plans with `on_change` in the steps, including those in groups, in order."""
    for step in steps:
        if isinstance(step, Plan) and step.on_change is not None:
            yield step
        if isinstance(step, Group):
            yield from recorded_plans(step.tasks)
