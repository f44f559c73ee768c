"""Playbooks: ordered tasks, and the recap of running them."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.ends import DONE, End, Ends
from pilothouse.playbook.finalizers import finalizers_of
from pilothouse.playbook.groups import Step, recorded_plans, tasks_of
from pilothouse.playbook.play import PLAN, Play
from pilothouse.playbook.runner import run_steps, run_task
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult, Waiting

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Play[Any, Any])


# What a recap always counts, in Ansible's order.
_TOTALS = tuple((state, state.value) for state in (State.OK, State.CHANGED, State.SKIPPED, State.FAILED))


class Recap(NamedTuple):
    """How a play ended.

    Attributes:
        results: Of the tasks that ran, in the order in which they began; of a plan whose trigger failed, too.
        ends: What did not reach its end.
        unfinished: After a routine wait, a plan with `on_change` that has not finished; else empty.
        seconds: How long all tasks took.
    """

    results: Sequence[TaskResult]
    ends: Ends = DONE
    unfinished: str = ""
    seconds: float = 0.0

    @property
    def failure(self) -> TaskFailed | None:
        """The first failure; None when no task failed."""
        return next(iter(self.ends.failures), None)

    @property
    def waiting(self) -> Waiting | None:
        """What a task waits for; None when no task waits, or one has failed. A routine wait comes last."""
        first = self.ends.first
        return first.cause if first is not None and isinstance(first.cause, Waiting) else None

    @property
    def plan(self) -> str:
        """The plan that the play ended in; empty when it ended in none."""
        first = self.ends.first
        return first.plan if first is not None else ""

    @property
    def eventful(self) -> bool:
        """Whether a task changed something or failed."""
        return any(result.diff or result.state is State.FAILED for result in self.results)

    @property
    def step(self) -> str:
        """The name of the task that ended the play, or of a plan whose trigger did; empty when none did."""
        first = self.ends.first
        return first.step if first is not None else ""

    def __str__(self) -> str:
        states = [result.state for result in self.results]
        told = [
            f"{result.task}: {result.message or result.state}"
            for result in self.results
            if result.diff or result.state is State.FAILED or result.state is State.WAITING
        ]
        totals = " ".join([f"{name}={states.count(state)}" for state, name in _TOTALS])
        waiting = f" waiting={states.count(State.WAITING)}" if State.WAITING in states else ""
        plan = f", plan {self.plan}" if self.plan else ""
        return f"{totals}{waiting} in {self.seconds:.3f} s{plan}{': ' if told else ''}{'; '.join(told)}"


class Playbook(Generic[P]):
    """What makes one kind of object as its spec asks: tasks in order, and tasks for its deletion.

    Every task must be idempotent: a play may be stopped at any instruction, and is then played again from the
    start by another process.

    Handlers, which tasks notify, run at the end, each once, in the order in which they are first named. They
    run also when a task after the notifying one failed or waits, because the next play will find the
    notifying task fulfilled and would not notify them again. A handler that failed, or was not reached, is
    run by the next play of the same process. A process that is killed in between forgets it: where that must
    not happen, make it a task that compares what is with what should be.

    Args:
        play: Makes the play of an object: a subclass of `Play`, or a function that is called with the object
            and the keyword arguments of `Play`, and hands those on.
        tasks: Tasks and groups, in order. A failure or a wait ends the play, except in a group that is
            `independent`.
        cleanup: What must be done before the object may go, in order. It is played, again and again, until no
            task fails or waits and none asked for another play.
        finalizer: The name that holds a deleted object back until cleanup is done, such as
            `example.com/cleanup`; needed with cleanup. It is stored before the first task runs.
        retired_finalizers: Names that earlier releases stored, and that this one no longer uses. They are
            removed from an object together with the write that stores `finalizer`. An object that is being
            deleted and has only a retired name is cleaned up by the present `cleanup`; then the name is
            removed. Without `cleanup` they are removed without any. Keep a name here until no object has it.

    Raises:
        ValueError: There is cleanup without a finalizer or the reverse, or the API server would refuse the
            name of a finalizer.
        PlaybookError: Two plans with `on_change` have one name, or such a plan is in `cleanup`.
    """

    def __init__(
        self,
        play: Callable[..., P],
        *,
        tasks: Sequence[Step[P]],
        cleanup: Sequence[Step[P]] = (),
        finalizer: str = "",
        retired_finalizers: Sequence[str] = (),
    ) -> None:
        if bool(cleanup) != bool(finalizer):
            raise ValueError("a playbook has cleanup tasks and a finalizer, or neither")
        if plan := next(recorded_plans(cleanup), None):
            raise PlaybookError(
                f"the plan {plan.name!r} in `cleanup` has `on_change`. A cleanup runs until it succeeds: use "
                "a Group instead."
            )
        self._plans = tuple(recorded_plans(tasks))
        names = [plan.name for plan in self._plans]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise PlaybookError(
                f"there are two plans {twice!r} with `on_change`. Give each a name of its own."
            )
        self.play = play
        self.tasks = tuple(tasks)
        self.cleanup = tuple(cleanup)
        self.finalizers = finalizers_of(finalizer, retired_finalizers)
        self.handlers = handlers_of((*tasks, *cleanup))

    async def run(self, play: P) -> Recap:
        """Runs the tasks, or those of the cleanup, over a play; then the handlers that were notified.

        Raises:
            Conflict: A task's object changed meanwhile: play again.
            SyncError: Whatever else concerns the play as a whole, such as a lost Lease.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        ends = await run_steps(self.cleanup if play.deleting else self.tasks, play, clock)
        if play.notified:
            ends = ends.then(await self._run_handlers(play))
        unfinished = ""
        if ends.first is not None:
            if isinstance(ends.first.cause, Waiting) and ends.first.cause.ready:
                unfinished = self._unfinished(play)
            _tell(play, ends.first)
        for result in play.results:
            result.hide_secrets()
        return Recap(play.results, ends, unfinished, clock() - began)

    def _unfinished(self, play: P) -> str:
        """The name of a plan with `on_change` that has not finished; empty: there is none.

        The play may not have reached it. A plan whose values cannot be read has not finished.
        """
        if play.deleting:
            return ""
        for plan in self._plans:
            try:
                if play.records.finished(play, plan):
                    continue
            except Exception:
                log.debug("the values of the plan %s cannot be read", plan.name, exc_info=True)
            return plan.name
        return ""

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


def _tell(play: Play[Any, Any], end: End) -> None:
    """Calls the hook for what ended a play."""
    token = PLAN.set(end.plan)
    try:
        if isinstance(end.cause, Waiting):
            play.waits(end.cause)
        else:
            play.failed(end.cause)
    finally:
        PLAN.reset(token)


def handlers_of(steps: Iterable[Step[Any]]) -> tuple[Task[Any], ...]:
    """The handlers that tasks and handlers notify, each once, in the order in which they are first named."""
    found: dict[Task[Any], None] = {}
    named = [handler for task in tasks_of(tuple(steps)) for handler in task.notify]
    while named:
        handler = named.pop(0)
        if handler not in found:
            found[handler] = None
            named.extend(handler.notify)
    return tuple(found)
