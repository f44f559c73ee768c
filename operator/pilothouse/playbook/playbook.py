"""Playbooks: ordered tasks, and the recap of running them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pilothouse.kube import Conflict, KubeError
from pilothouse.playbook.play import Play
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Play[Any, Any])


@dataclass(frozen=True)
class Recap:
    """How a play ended.

    Attributes:
        results: Of the tasks that ran, in order.
        failure: Of the task that failed, the last one; None when none did.
        seconds: How long all tasks took.
    """

    results: Sequence[TaskResult]
    failure: TaskFailed | None
    seconds: float

    @property
    def eventful(self) -> bool:
        """Whether a task changed something or failed."""
        return any(result.state in (State.CHANGED, State.FAILED) for result in self.results)

    def __str__(self) -> str:
        counts = Counter(result.state for result in self.results)
        totals = " ".join(f"{state}={counts[state]}" for state in State)
        told = "; ".join(
            f"{result.task}: {result.message or result.state}"
            for result in self.results
            if result.state in (State.CHANGED, State.FAILED)
        )
        return f"{totals} in {self.seconds:.3f} s" + (f": {told}" if told else "")


class Playbook(Generic[P]):
    """What makes one kind of object as its spec asks: tasks in order, and tasks for its deletion.

    Every task must be idempotent: a play may be stopped at any instruction, and is then played again from the
    start by another process.

    Args:
        play: Makes the play of an object: called with the object and `check=`.
        tasks: In order; a failure ends the play.
        cleanup: What must be done before the object may go, in order. It is played, again and again, until no
            task fails and none asked for another play.
        finalizer: The name that holds a deleted object back until cleanup is done; needed with cleanup. It is
            stored before the first task runs.
    """

    def __init__(
        self,
        play: Callable[..., P],
        *,
        tasks: Sequence[Task[P]],
        cleanup: Sequence[Task[P]] = (),
        finalizer: str = "",
    ) -> None:
        if bool(cleanup) != bool(finalizer):
            raise ValueError("a playbook has cleanup tasks and a finalizer, or neither")
        self.play = play
        self.tasks = tuple(tasks)
        self.cleanup = tuple(cleanup)
        self.finalizer = finalizer

    async def run(self, play: P) -> Recap:
        """Runs the tasks, or those of the cleanup, over a play.

        Raises:
            Conflict: A task's object changed meanwhile: play again.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        failure = None
        for task in self.cleanup if play.deleting else self.tasks:
            result = TaskResult(task.name)
            play.results.append(result)
            started = loop.time()
            failure = await _run_task(task, play)
            result.seconds = loop.time() - started
            if failure is not None:
                result.state = State.FAILED
                result.message = failure.message
                play.failed(failure)
                break
        return Recap(play.results, failure, loop.time() - began)


async def _run_task(task: Task[P], play: P) -> TaskFailed | None:
    try:
        await task(play)
    except TaskFailed as failure:
        return failure
    except Conflict:
        raise
    except KubeError as error:
        return TaskFailed("KubernetesRefused", f"{task.name}: {error}")
    except Exception as error:
        log.exception("task %r has a defect", task.name)
        # The text of an error that nobody foresaw may hold what a status must not show.
        return TaskFailed(
            "UnexpectedError",
            f"{task.name}: unexpected {type(error).__name__}; the operator's log has the details.",
        )
    return None
