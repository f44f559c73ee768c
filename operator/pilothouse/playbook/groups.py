"""Groups, which run tasks in order or in parallel, and plans, which are groups with a trigger."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from pilothouse.playbook.arguments import require_flags, require_plain_function, require_text
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.tasks import Task, described

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
        blocking: Whether the steps after the group do not run if it fails or waits. They do not by default,
            because a step usually relies on those before it. With `blocking=False` they run. In both cases
            Ready is not True while the group fails, or waits without `ready=True`.

    Raises:
        PlaybookError: The name is not text, `tasks` is not a list of tasks and groups, or a flag is not True
            or False.
    """

    def __init__(
        self, name: str, tasks: "Sequence[Step[P]]", *, parallel: bool = False, blocking: bool = True
    ) -> None:
        what = type(self).__name__
        require_text(name, f"{what}: the name")
        require_steps(f"{what} {name!r}", tasks=tasks)
        require_flags(f"{what} {name!r}", parallel=parallel, blocking=blocking)
        self.name = name
        self.tasks = tuple(tasks)
        self.parallel = parallel
        self.blocking = blocking


class Plan(Group[P]):
    """A group with a trigger, for steps that run once per change: deploy, upgrade, backup, restore.

    ::

        Plan("upgrade", [stop_readers, migrate], on_change=lambda play: play.object.spec.version)

    A plan runs only while it is due, so nothing restores the objects that a finished plan applied. Apply the
    objects that must stay in tasks after the plan. If a task in the plan fails or waits, the recap names the
    plan and the task.

    A plan that has begun stays due until it has finished, even if its trigger is no longer true, for example
    because a user has put the spec back. It has finished when all its tasks have succeeded in one reconcile
    and the status that they set is stored. An annotation of the object records that it is in progress, so
    another process continues it. If the reconcile is interrupted before the end is recorded, because the
    process is killed, the object changes or a later step times out, the plan runs again.

    There are two triggers. If a plan has both, it is due when either of them is.

    `on_change` is for a change of the spec. The plan is due until it has finished with the current values.
    It begins before its first task. When it has finished, the annotation holds a digest of the values. A new
    object has no annotation, so the plan is due.

    `when` is for what earlier tasks have observed. The plan is due when `when` returns True. It begins before
    its first change: a write to the cluster, a `play.call`, a `play.record`, or another change through
    `play.fence`. It has also begun when a reconcile ends in it after one of its tasks has succeeded, or has
    changed `play.status`. Until then it is dropped if `when` no longer returns True. When it has finished,
    the annotation is removed. A plan that finds nothing to change writes no annotation.

    Args:
        name: What the plan is for, in a word or two: "upgrade". The name is part of the annotation. So a
            renamed plan with `on_change` is due again, and a renamed plan with `when` is no longer in
            progress.
        tasks: The tasks and groups.
        when: Returns whether the plan is due, from what the play has observed so far. It must be a pure
            function. If it raises an error, the plan fails. It is not called while the plan is in progress.
        on_change: Returns the values whose change makes the plan due. It must be a pure function of the spec,
            or of other fields that only users change. If it raises an error, the plan fails. Values are
            compared as JSON. If a release returns one field more, or the same fields in another form, the
            plan is due for every object, and so it is if the operator is renamed.
        parallel: Whether the tasks and groups run at the same time.
        blocking: Whether the steps after the plan, including other plans, do not run if it fails or waits.
            They do not by default, because a step usually relies on those before it. If the plan is unrelated
            to them, set `blocking=False`.

    Raises:
        PlaybookError: There is no trigger, a trigger is not a plain function of the play, or a plan with
            `on_change` is inside another plan, which may never reach it. Or see `Group`.
    """

    def __init__(
        self,
        name: str,
        tasks: "Sequence[Step[P]]",
        *,
        when: Callable[[P], bool] | None = None,
        on_change: Callable[[P], object] | None = None,
        parallel: bool = False,
        blocking: bool = True,
    ) -> None:
        super().__init__(name, tasks, parallel=parallel, blocking=blocking)
        for trigger in (when, on_change):
            if trigger is not None:
                require_plain_function(trigger, f"the trigger of the plan {name!r}", "the play")
        if when is None and on_change is None:
            raise PlaybookError(f"the plan {name!r} has no trigger. Add `when` or `on_change`.")
        if inner := plan_on_change(self.tasks):
            raise PlaybookError(
                f"the plan {inner.name!r} has `on_change` and is inside the plan {name!r}, which may never "
                "reach it. Move it out, or use a Group instead."
            )
        self.when = when
        self.on_change = on_change


Step: TypeAlias = Task[P] | Group[P]
"""A step of a playbook or a group: a task, a group or a plan."""


def require_steps(where: str, **lists: object) -> None:
    """Refuses anything but lists of tasks and groups.

    Args:
        where: What has the lists, for the error: "Group 'network'".
        lists: The lists by the name of their argument.

    Raises:
        PlaybookError: A value is not a list, or an item is neither a task nor a group.
    """
    for name, steps in lists.items():
        if not isinstance(steps, list | tuple):
            raise PlaybookError(
                f"{where}: {name} is {_described(steps)}, which is not a list. Pass a list: {name}=[...]."
            )
        if wrong := [step for step in steps if not isinstance(step, Task | Group)]:
            raise PlaybookError(
                f"{where}: {_described(wrong[0])} in {name} is not a task. Decorate the function with "
                '@task("..."), and pass its name without calling it.'
            )


def require_distinct(where: str, steps: Sequence[Step[Any]]) -> None:
    """Refuses different tasks with the same name: logs, metrics and records would mix them up.

    Args:
        where: What has the steps, for the error: "`tasks` of the Playbook".
        steps: The steps, including the handlers.

    Raises:
        PlaybookError: Two of them have the same name.
    """
    seen: dict[str, Task[Any]] = {}
    for each in tasks_of(steps):
        if seen.setdefault(each.name, each) is not each:
            raise PlaybookError(f"{where} has two different tasks {each.name!r}. Rename one of them.")


def _described(step: object) -> str:
    if isinstance(step, Group):
        return f"the {type(step).__name__.lower()} {step.name!r}"
    return described(step)


def tasks_of(steps: Sequence[Step[Any]]) -> Iterator[Task[Any]]:
    """Yields all tasks in the steps, including those in groups, in order."""
    for step in steps:
        if isinstance(step, Group):
            yield from tasks_of(step.tasks)
        else:
            yield step


def plans_of(steps: Sequence[Step[Any]]) -> Iterator[Plan[Any]]:
    """Yields all plans in the steps, including those in groups, in order."""
    for step in steps:
        if isinstance(step, Plan):
            yield step
        if isinstance(step, Group):
            yield from plans_of(step.tasks)


def plan_on_change(steps: Sequence[Step[Any]]) -> Plan[Any] | None:
    """Returns the first plan with `on_change` in the steps, including those in groups, or None."""
    return next((plan for plan in plans_of(steps) if plan.on_change is not None), None)


def outer_plans(steps: Sequence[Step[Any]]) -> Iterator[Plan[Any]]:
    """Yields the plans in the steps, including those in groups, but not those in other plans, in order."""
    for step in steps:
        if isinstance(step, Plan):
            yield step
        elif isinstance(step, Group):
            yield from outer_plans(step.tasks)
