"""Runs tasks and groups of tasks, and notes how each of them ends."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

from pilothouse.controller import SyncError
from pilothouse.controller.outcome import ends_task
from pilothouse.kube import Conflict, KubeError
from pilothouse.playbook.awaited import Calls, PlaybookError, require_nothing
from pilothouse.playbook.groups import Group, Plan, Step
from pilothouse.playbook.play import Play
from pilothouse.playbook.tasks import (
    RESULT,
    State,
    Task,
    TaskFailed,
    TaskResult,
    Waiting,
    refused,
    unexpected,
)
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Play[Any, Any])

End: TypeAlias = TaskFailed | Waiting | None
"""Why a play goes no further; None: it goes on."""

Clock: TypeAlias = Callable[[], float]


async def run_steps(steps: Sequence[Step[P]], play: P, clock: Clock) -> End:
    """Runs tasks and groups in order, until one of them ends the play.

    Raises:
        Conflict: An object changed meanwhile: play again.
        SyncError: Whatever else concerns the play as a whole.
    """
    for step in steps:
        if isinstance(step, Task):
            end = await run_task(step, play, clock)
        else:
            end = await run_group(step, play, clock)
        if end is not None:
            return end
    return None


async def run_task(task: Task[P], play: P, clock: Clock) -> End:
    """Runs one task.

    Raises:
        Conflict, SyncError: See `run_steps`.
    """
    result = TaskResult(task.name)
    play.results.append(result)
    token = RESULT.set(result)
    began = clock()
    end: End = None
    try:
        with Calls():
            require_nothing(await task.function(play))
    except Waiting as waiting:
        end = waiting
        result.note(State.WAITING, str(waiting))
    except (Conflict, SyncError):
        raise
    except BaseException as error:
        if ends_task(error):
            result.note(State.FAILED, "it was stopped")
            raise
        end = _failure(task, error)
        result.note(State.FAILED, end.message)
    finally:
        RESULT.reset(token)
        result.seconds = clock() - began
        if task.notify and result.diff:
            play.notified.update(task.notify)
    return end


async def run_group(group: Group[P], play: P, clock: Clock) -> End:
    """Runs a group; a plan only when it is due.

    Raises:
        Conflict, SyncError: See `run_steps`.
    """
    run = _run_parallel if group.parallel else run_steps
    if not isinstance(group, Plan):
        return await run(group.tasks, play, clock)
    try:
        if not group.when(play):
            return None
    except BaseException as error:
        if ends_task(error):
            raise
        failure = _failure(group, error)
        play.results.append(TaskResult(group.name, State.FAILED, message=failure.message))
        return failure
    outer, play.plan = play.plan, group.name
    end = await run(group.tasks, play, clock)
    if end is None:
        play.plan = outer
    return end


async def _run_parallel(steps: Sequence[Step[P]], play: P, clock: Clock) -> End:
    # Waits for all, whatever becomes of some; cancelled, it cancels them.
    ends = await asyncio.gather(*(run_steps([step], play, clock) for step in steps), return_exceptions=True)
    end: End = None
    for step, its_end in zip(steps, ends, strict=True):
        if its_end is None or isinstance(its_end, TaskFailed | Waiting):
            end = first(end, its_end)
        elif isinstance(its_end, asyncio.CancelledError):
            # Not the play was cancelled (it would not have come here), but this member alone.
            end = first(end, _failure(step, its_end))
        else:
            raise its_end
    return end


def first(one: End, other: End) -> End:
    """What ends a play: a failure before a wait, the earlier one before the later one."""
    if one is None or (isinstance(one, Waiting) and isinstance(other, TaskFailed)):
        return other
    return one


def _failure(step: Step[Any], error: BaseException) -> TaskFailed:
    if isinstance(error, TaskFailed):
        return error
    if isinstance(error, KubeError):
        return refused(step.name, error)
    if isinstance(error, PlaybookError):
        return unexpected(step.name, error)  # The sentence is enough, and the failure's own line logs it.
    log_defect(log, error, "%s %r has a defect", type(step).__name__.lower(), step.name)
    return unexpected(step.name, error)
