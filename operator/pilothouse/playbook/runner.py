"""Runs tasks and groups, and records how each of them ends."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

from pilothouse.controller import SyncError
from pilothouse.controller.before_change import before_each_change
from pilothouse.controller.outcome import ends_task
from pilothouse.kube import Conflict, KubeError
from pilothouse.playbook.arguments import wrong_attribute, wrong_call
from pilothouse.playbook.awaited import Calls, PlaybookError, not_awaitable, require_nothing, require_truth
from pilothouse.playbook.ends import DONE, End, Ends
from pilothouse.playbook.groups import Group, Plan, Step, tasks_of
from pilothouse.playbook.modules import ObjectModules
from pilothouse.playbook.play import PLAN, Play
from pilothouse.playbook.tasks import (
    RESULT,
    NamespaceTerminating,
    State,
    Task,
    TaskFailed,
    TaskResult,
    Waiting,
    in_task,
    refused,
    unexpected,
)
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Play[Any, Any])

Clock: TypeAlias = Callable[[], float]


async def run_steps(steps: Sequence[Step[P]], play: P, clock: Clock) -> Ends:
    """Runs tasks and groups in order, until one that blocks the others fails or waits.

    Raises:
        Conflict: An object has changed since it was read. Reconcile again.
        SyncError: Another error that concerns the whole reconcile.
    """
    ends = DONE
    for step in steps:
        ends = ends.then(await _run_step(step, play, clock))
        if ends.stopped:
            break
    return ends


async def _run_step(step: Step[P], play: P, clock: Clock) -> Ends:
    if isinstance(step, Task):
        return await run_task(step, play, clock)
    if isinstance(step, Plan):
        ends = await _run_plan(step, play, clock)
    else:
        ends = await _run_group(step, play, clock)
    return ends if step.blocking else ends.not_blocking


async def run_task(task: Task[P], play: P, clock: Clock) -> Ends:
    """Runs one task.

    Raises:
        Conflict: An object has changed since it was read. Reconcile again.
        SyncError: Another error that concerns the whole reconcile.
    """
    result = TaskResult(task.name)
    play.results.append(result)
    token = RESULT.set(result)
    began = clock()
    ends = DONE
    calls = Calls(task.name, play.refused_late)
    try:
        with calls:
            require_nothing(await _ungrouped(task, play))
    except (Conflict, SyncError):
        raise
    except BaseException as error:
        if ends_task(error):
            result.note(State.FAILED, "cancelled")
            raise
        ends = _ends_of(task, error)
        if play.deleting:
            ends = _without_impossible(task, ends, play, result)
        for end in ends.all:
            result.note(State.FAILED if ends.failed else State.WAITING, str(end.cause))
    finally:
        RESULT.reset(token)
        result.seconds = clock() - began
        if task.notify and result.diff:
            play.notified.update(task.notify)
        if calls.cancelled:
            await _until_ended(calls)
    return ends


async def _until_ended(calls: Calls) -> None:
    from pilothouse.playbook.background import until_ended

    await until_ended(calls.cancelled)


async def _ungrouped(task: Task[P], play: P) -> object:
    """Calls the function of a task, and raises what takes precedence over all other errors in a group.

    A task that uses asyncio.TaskGroup raises an ExceptionGroup.

    Raises:
        Conflict: An object has changed since it was read. Reconcile again.
        SyncError: Another error that concerns the whole reconcile.
    """
    try:
        return await task.function(play)
    except BaseExceptionGroup as group:
        errors = list(_members(group))
        foremost = [each for each in errors if ends_task(each)] or [
            each for each in errors if isinstance(each, Conflict | SyncError)
        ]
        if not foremost:
            raise
        for each in errors:
            if not isinstance(each, Conflict | SyncError | Waiting) and not ends_task(each):
                _failure(task, each)  # Logs a defect, which the reconcile would otherwise not report.
        raise foremost[0] from group


def _members(error: BaseException) -> Iterator[BaseException]:
    """Yields the errors in an ExceptionGroup, also in nested ones; otherwise the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _members(each)
    else:
        yield error


async def _run_group(group: Group[P], play: P, clock: Clock) -> Ends:
    run = _run_parallel if group.parallel else run_steps
    return await run(group.tasks, play, clock)


async def _run_plan(plan: Plan[P], play: P, clock: Clock) -> Ends:
    """Runs a plan if it is due. The plan has finished if no task in it fails or waits."""
    records = play.records
    records.plans_reached.add(plan.name)
    try:
        if not is_due(plan, play):
            records.pass_over(plan)
            return DONE
        target = records.target(play, plan)
        if plan.on_change is not None and not records.finished(play, plan):
            await _begin(plan, play)
    except BaseException as error:
        return _plan_failed(plan, play, error)
    first, status = len(play.results), play.status
    token = PLAN.set(plan.name)
    try:
        # A plan that is due because of `when` begins with its first change: in many objects that is none.
        with before_each_change(partial(_begin, plan, play)):
            ends = await _run_group(plan, play, clock)
    finally:
        PLAN.reset(token)
    if not ends.all:
        records.finish(play, plan, target)
        return DONE
    if play.status == status and not _has_progressed(plan, play.results[first:]):
        return ends
    try:
        await _begin(plan, play)
    except BaseException as error:
        return ends.then(_plan_failed(plan, play, error))
    return ends


def is_due(plan: Plan[P], play: P) -> bool:
    """Returns whether a plan is due.

    Raises:
        Exception: A trigger raised it.
        PlaybookError: The trigger `when` returned something that is true by mistake, such as a coroutine.
    """
    if play.records.in_progress(play, plan):
        return True
    if plan.on_change is not None and not play.records.finished(play, plan):
        return True
    return plan.when is not None and require_truth(plan.when(play), "the result of the trigger")


async def _begin(plan: Plan[Any], play: Play[Any, Any]) -> None:
    """Records that a plan is in progress.

    Raises:
        TaskFailed: KubernetesRefused: The API server refused the write or is unreachable.
        Conflict: The object has changed. Reconcile again.
    """
    try:
        await play.records.begin(play, plan)
    except Conflict:
        raise
    except KubeError as error:
        raise refused(f"The start of the plan {plan.name!r} could not be recorded", error) from error


def _has_progressed(plan: Plan[Any], results: Sequence[TaskResult]) -> bool:
    """Returns whether a task of a plan has succeeded or has reported a change."""
    names = {task.name for task in tasks_of(plan.tasks)}
    over = (State.OK, State.CHANGED, State.SKIPPED)
    return any(result.task in names and (result.diff or result.state in over) for result in results)


def _plan_failed(plan: Plan[Any], play: Play[Any, Any], error: BaseException) -> Ends:
    """Turns an error in a plan's trigger, or in the write of its annotation, into a failure of the plan."""
    if ends_task(error) or isinstance(error, Conflict | SyncError):
        raise error
    ends = _ends_of(plan, error)
    message = "; ".join(str(end.cause) for end in ends.all)
    play.results.append(TaskResult(plan.name, State.FAILED, message=message))
    return ends


async def _run_parallel(steps: Sequence[Step[P]], play: P, clock: Clock) -> Ends:
    # Waits for all members, even if some fail. If the group is cancelled, gather cancels them.
    results = await asyncio.gather(*(_run_step(step, play, clock) for step in steps), return_exceptions=True)
    ends = DONE
    for step, result in zip(steps, results, strict=True):
        if isinstance(result, Ends):
            ends = ends.then(result)
        elif isinstance(result, asyncio.CancelledError):
            # Only this member was cancelled. Had the whole reconcile been, gather would have raised.
            ends = ends.then(_ended(step, _failure(step, result)))
        else:
            raise result
    return ends


def _ended(step: Step[Any], cause: TaskFailed | Waiting) -> Ends:
    return Ends((End(cause, step.name, PLAN.get()),), stopped=True, failed=isinstance(cause, TaskFailed))


def _ends_of(step: Step[Any], error: BaseException) -> Ends:
    """Returns how a step ends with an error, or with the errors in a group. A defect comes first."""
    errors = sorted(_members(error), key=lambda each: isinstance(each, TaskFailed | KubeError | Waiting))
    causes = [each if isinstance(each, Waiting) else _failure(step, each) for each in errors]
    # Parallel requests often fail for the same reason.
    different = {(cause.reason, cause.message): cause for cause in reversed(causes)}
    ends = DONE
    for cause in reversed(different.values()):
        ends = ends.then(_ended(step, cause))
    return ends


def _without_impossible(task: Task[Any], ends: Ends, play: Play[Any, Any], result: TaskResult) -> Ends:
    """Removes the failures of a cleanup task that no retry can fix. The rest of the cleanup goes on.

    While the namespace of the object is being deleted, no object can be created in it. If the cleanup waited
    for that, the deletion of the object and of its namespace would never end.
    """
    impossible = [
        end
        for end in ends.all
        if isinstance(end.cause, NamespaceTerminating)
        and end.cause.namespace == play.object.metadata.namespace
    ]
    for end in impossible:
        result.note(State.SKIPPED, end.cause.message)
        # The API server refuses Events in the namespace, too.
        play.log.warning("Skipped the rest of a cleanup task: %s", end.cause.message)
    left = DONE
    for end in ends.all:
        if end not in impossible:
            left = left.then(_ended(task, end.cause))
    return left


def _method(owner: str, name: str) -> object:
    """Returns the method of a class of the framework that authors call."""
    classes = (Play, ObjectModules, Task, TaskFailed, Waiting)
    return next((getattr(each, name, None) for each in classes if each.__name__ == owner), None)


def _where(step: Step[Any]) -> str:
    return in_task(step.name) if isinstance(step, Task) else f"The plan {step.name!r} failed"


def _failure(step: Step[Any], error: BaseException) -> TaskFailed:
    if isinstance(error, TaskFailed):
        return error
    if isinstance(error, KubeError):
        return refused(_where(step), error)
    if isinstance(error, TypeError) and (mistake := wrong_call(error, _method)):
        error = mistake
    if isinstance(error, TypeError | RuntimeError) and (sentence := not_awaitable(error)):
        # Rarely needed, so only then imported.
        from pilothouse.playbook.wrong_await import wrong_await

        error = wrong_await(error, sentence)
    if isinstance(error, TypeError) and "'mappingproxy' object does not support" in str(error):
        error = PlaybookError(
            "it changed a mapping of an object in place. Objects are read-only: change a copy"
        )
    if isinstance(error, TypeError | AttributeError) and not isinstance(error, PlaybookError):
        # Rarely needed, so only then imported.
        from pilothouse.playbook.read_only import changed_in_place

        error = changed_in_place(error) or error
    if isinstance(error, AttributeError) and isinstance(error.obj, Play) and error.name:
        error = wrong_attribute(error.name, error.obj)
    if isinstance(error, PlaybookError):
        return unexpected(_where(step), error)  # Its message is enough, and is logged with the failure.
    log_defect(log, error, "Unexpected error in the %s %r", type(step).__name__.lower(), step.name)
    return unexpected(_where(step), error)
