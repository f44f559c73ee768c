"""Playbooks, which run tasks in order, and the recap of a reconcile."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pilothouse.informer import DEFECTS
from pilothouse.kube import ObjectKey
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.ends import DONE, End, Ends
from pilothouse.playbook.finalizers import finalizers_of
from pilothouse.playbook.groups import (
    Plan,
    Step,
    outer_plans,
    plan_on_change,
    plans_of,
    require_distinct,
    require_steps,
    tasks_of,
)
from pilothouse.playbook.play import PLAN, Play
from pilothouse.playbook.runner import is_due, run_steps, run_task
from pilothouse.playbook.status import shortened
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult, Waiting, described
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Play[Any, Any])


# The states that a recap always counts, in Ansible's order.
_TOTALS = tuple((state, state.value) for state in (State.OK, State.CHANGED, State.SKIPPED, State.FAILED))


class Recap(NamedTuple):
    """The summary of a reconcile: how each task ended, and what it changed.

    As text: `ok=2 changed=1 skipped=0 failed=0 in 0.012 s: seats are booked: book 2 seats`.

    Attributes:
        results: The results of the tasks that ran, in the order in which they started, and of plans whose
            trigger failed.
        ends: The failures and waits.
        unfinished: After a routine wait: the name of a plan that has not finished, with `on_change` or begun
            by an earlier reconcile. Otherwise empty.
        not_run: After a failure that blocks later steps: the names of the plans that are due and did not run.
        seconds: How long all tasks took.
    """

    results: Sequence[TaskResult]
    ends: Ends = DONE
    unfinished: str = ""
    not_run: Sequence[str] = ()
    seconds: float = 0.0

    @property
    def failure(self) -> TaskFailed | None:
        """The first failure; None if no task failed."""
        return next(iter(self.ends.failures), None) if self.ends.all else None

    @property
    def consequence(self) -> str:
        """A sentence about the plans that were not run because of a failure; empty if there are none."""
        return f"Plans that were not run: {', '.join(self.not_run)}." if self.not_run else ""

    @property
    def waiting(self) -> Waiting | None:
        """The wait that ended the reconcile; None if no task waits or a task has failed.

        A routine wait is returned only if there is no other wait.
        """
        first = self.ends.first
        return first.cause if first is not None and isinstance(first.cause, Waiting) else None

    @property
    def plan(self) -> str:
        """The name of the plan in which the reconcile ended; empty if it ended outside a plan."""
        first = self.ends.first
        return first.plan if first is not None else ""

    @property
    def eventful(self) -> bool:
        """Whether a task changed something or failed."""
        return any(result.diff or result.state is State.FAILED for result in self.results)

    @property
    def step(self) -> str:
        """The name of the task that failed or waits, or of the plan whose trigger failed; otherwise empty."""
        first = self.ends.first
        return first.step if first is not None else ""

    def __str__(self) -> str:
        states = [result.state for result in self.results]
        details = [
            f"{result.task}: {shortened(result.message) or result.state}"
            for result in self.results
            if result.diff or result.state is State.FAILED or result.state is State.WAITING
        ]
        totals = " ".join([f"{name}={states.count(state)}" for state, name in _TOTALS])
        waiting = f" waiting={states.count(State.WAITING)}" if State.WAITING in states else ""
        plan = f", plan {self.plan}" if self.plan else ""
        return f"{totals}{waiting} in {self.seconds:.3f} s{plan}{': ' if details else ''}{'; '.join(details)}"


class Playbook(Generic[P]):
    """The ordered list of tasks that reconciles one kind, and the tasks that clean up a deleted object.

    ::

        Playbook(TicketPlay, tasks=[book_seats], cleanup=[release_seats], finalizer="example.com/seats")

    Every task must be idempotent. A reconcile may be interrupted at any instruction, and another process then
    starts it again from the first task.

    Handlers run once, at the end of a reconcile in which a task that notifies them changed something. They
    run in the order in which the tasks first name them, even if a later task fails or waits: the next
    reconcile would find nothing to change and would not notify them again. A handler that fails, or is not
    reached, runs in the next reconcile of the same process. If the process is killed in between, the handler
    is lost. If that must not happen, write a task that compares the actual state with the desired one.

    Args:
        play: A subclass of `Play`, or a function that returns a play. It is called with the object and
            keyword arguments, which it passes on to `Play`.
        tasks: The tasks and groups, in order. A failure or a wait ends the reconcile, except in a group or
            plan with `blocking=False`. If the failure blocks plans that are due, Ready names them.
        cleanup: The tasks that run, in order, when the object is being deleted. They are repeated until no
            task fails, waits or calls `requeue_after`. Then the finalizer is removed.
        finalizer: The finalizer that keeps a deleted object until the cleanup has succeeded, such as
            `example.com/cleanup`. Required with `cleanup`. It is stored before the first task runs.
        retired_finalizers: Finalizers that earlier releases stored and this one no longer uses. They are
            removed by the write that stores `finalizer`. If an object that is being deleted has only a
            retired finalizer, `cleanup` runs before it is removed. Without `cleanup`, a retired finalizer is
            removed immediately. Keep a name in this list until no object has it.
        on_gone: A plain function that is called with the key of an object that no longer exists, or that the
            watch no longer selects. Free in it what the process keeps for the object, such as connections and
            metrics. It is not called if the process is killed.

    Raises:
        PlaybookError: An argument has the wrong type, two tasks or plans have the same name, or a plan with
            `on_change` is in `cleanup`. There is a cleanup without a finalizer, a finalizer without a
            cleanup, or a finalizer whose name the API server would refuse.
    """

    def __init__(
        self,
        play: Callable[..., P],
        *,
        tasks: Sequence[Step[P]],
        cleanup: Sequence[Step[P]] = (),
        finalizer: str = "",
        retired_finalizers: Sequence[str] = (),
        on_gone: Callable[[ObjectKey], None] | None = None,
    ) -> None:
        _require_play(play)
        require_steps("the Playbook", tasks=tasks, cleanup=cleanup)
        if bool(cleanup) != bool(finalizer):
            raise PlaybookError("a playbook needs both cleanup tasks and a finalizer, or neither")
        if plan := plan_on_change(cleanup):
            raise PlaybookError(
                f"the plan {plan.name!r} in `cleanup` has `on_change`. A cleanup runs until it succeeds: use "
                "a Group instead."
            )
        self._plans = tuple(plans_of(tasks))
        self._outer_plans = tuple(outer_plans(tasks))
        names = [plan.name for plan in plans_of((*tasks, *cleanup))]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PlaybookError(f"there are two plans {twice!r}. Rename one of them.")
        self.plan_names = names
        self.play = play
        self.tasks = tuple(tasks)
        self.cleanup = tuple(cleanup)
        self.finalizers = finalizers_of(finalizer, retired_finalizers)
        self.handlers = handlers_of((*tasks, *cleanup))
        self._on_gone = on_gone
        require_distinct("`tasks` of the Playbook", (*tasks, *self.handlers))
        require_distinct("`cleanup` of the Playbook", (*cleanup, *self.handlers))

    def forget(self, key: ObjectKey) -> None:
        """Calls `on_gone` for an object that no longer exists, or that the watch no longer selects."""
        if self._on_gone is None:
            return
        try:
            self._on_gone(key)
        except DEFECTS as error:
            log_defect(log, error, "Unexpected error in on_gone for %s", key)

    async def run(self, play: P) -> Recap:
        """Runs the tasks or the cleanup, and then the handlers that were notified.

        Args:
            play: The play of the object.

        Returns:
            The recap of the tasks that ran.

        Raises:
            Conflict: An object has changed since it was read. Reconcile again.
            SyncError: Another error that concerns the whole reconcile, such as a lost Lease.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        ends = await run_steps(self.cleanup if play.deleting else self.tasks, play, clock)
        if play.notified:
            ends = ends.then(await self._run_handlers(play))
        unfinished, not_run = "", self._not_run(play) if ends.failed else ()
        if ends.first is not None:
            if isinstance(ends.first.cause, Waiting) and ends.first.cause.ready:
                unfinished = self._unfinished(play)
            _call_hook(play, ends.first)
        for result in play.results:
            result.hide_secrets()
        return Recap(play.results, ends, unfinished, not_run, clock() - began)

    def _unfinished(self, play: P) -> str:
        """Returns the name of a plan that has not finished, so that Ready is not True; empty if all have.

        The reconcile may not have reached the plan. A plan whose values cannot be read has not finished.
        """
        if play.deleting:
            return ""
        for plan in self._plans:
            try:
                if not play.records.unfinished(play, plan):
                    continue
            except Exception:
                log.debug("Could not read the values of the plan %s", plan.name, exc_info=True)
            return plan.name
        return ""

    def _not_run(self, play: P) -> Sequence[str]:
        """Returns the names of the plans that are due and that the reconcile did not reach."""
        if play.deleting:
            return ()
        left = [plan for plan in self._outer_plans if plan.name not in play.records.plans_reached]
        return [plan.name for plan in left if _seems_due(plan, play)]

    async def _run_handlers(self, play: P) -> Ends:
        ends = DONE
        clock = asyncio.get_running_loop().time
        for handler in self.handlers:
            if handler not in play.notified:
                continue
            its_ends = await run_task(handler, play, clock)
            if not its_ends.all:
                play.notified.discard(handler)
            ends = ends.then(its_ends)
        return ends


def _seems_due(plan: Plan[P], play: P) -> bool:
    """Returns whether a plan is due. A trigger may fail because the tasks before it have not run."""
    try:
        return is_due(plan, play)
    except Exception:
        log.debug("Could not evaluate the trigger of the plan %s", plan.name, exc_info=True)
        return False


def _require_play(play: object) -> None:
    """Refuses anything but a subclass of Play, or a function that returns a play.

    Raises:
        PlaybookError: The text says what it is.
    """
    if callable(play) and not (isinstance(play, type) and not issubclass(play, Play)):
        return
    raise PlaybookError(
        f"the Playbook: play is {described(play)}, but must be Play, a subclass of Play, or a function that "
        "returns a play: Playbook(Play, tasks=[...])"
    )


def _call_hook(play: Play[Any, Any], end: End) -> None:
    """Calls the play's hook for a failure or a wait."""
    token = PLAN.set(end.plan)
    try:
        if isinstance(end.cause, Waiting):
            play.waits(end.cause)
        else:
            play.failed(end.cause)
    finally:
        PLAN.reset(token)


def handlers_of(steps: Iterable[Step[Any]]) -> tuple[Task[Any], ...]:
    """Returns the handlers that the tasks, and the handlers themselves, notify, in the order of first use."""
    found: dict[Task[Any], None] = {}
    named = [handler for task in tasks_of(tuple(steps)) for handler in task.notify]
    while named:
        handler = named.pop(0)
        if handler not in found:
            found[handler] = None
            named.extend(handler.notify)
    return tuple(found)
