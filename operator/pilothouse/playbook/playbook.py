"""Playbooks: ordered tasks, and the recap of running them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from pilothouse.playbook.finalizers import finalizers_of
from pilothouse.playbook.groups import Step, tasks_of
from pilothouse.playbook.play import Play
from pilothouse.playbook.runner import End, first, run_steps, run_task
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult, Waiting

P = TypeVar("P", bound=Play[Any, Any])


# What a recap always counts, in Ansible's order.
_TOTALS = tuple((state, state.value) for state in (State.OK, State.CHANGED, State.SKIPPED, State.FAILED))


class Recap(NamedTuple):
    """How a play ended.

    Attributes:
        results: Of the tasks that ran, in the order in which they began; of a plan whose trigger failed, too.
        failure: Of the task that failed; None when none did.
        waiting: What a task waits for; None when none does, or one has failed.
        plan: The plan that the play ended in; empty when in none.
        seconds: How long all tasks took.
    """

    results: Sequence[TaskResult]
    failure: TaskFailed | None = None
    waiting: Waiting | None = None
    plan: str = ""
    seconds: float = 0.0

    @property
    def eventful(self) -> bool:
        """Whether a task changed something or failed."""
        return any(result.diff or result.state is State.FAILED for result in self.results)

    @property
    def step(self) -> str:
        """The name of the task that ended the play, or of a plan whose trigger did; empty when none did."""
        how = State.FAILED if self.failure else State.WAITING if self.waiting else None
        return next((result.task for result in self.results if result.state is how), "")

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
        tasks: Tasks and groups, in order; a failure ends the play.
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
        end = await run_steps(self.cleanup if play.deleting else self.tasks, play, clock)
        if play.notified:
            # What a task has to say goes before what a handler has.
            end = first(end, await self._run_handlers(play))
        failure = waiting = None
        if isinstance(end, TaskFailed):
            failure = end
            play.failed(failure)
        elif end is not None:
            waiting = end
            play.waits(waiting)
        return Recap(play.results, failure, waiting, play.plan, clock() - began)

    async def _run_handlers(self, play: P) -> End:
        end: End = None
        clock = asyncio.get_running_loop().time
        for handler in self.handlers:
            if handler not in play.notified:
                continue
            its_end = await run_task(handler, play, clock)
            if its_end is None:
                play.notified.discard(handler)
            end = first(end, its_end)
        return end


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
