"""Ends the asyncio tasks that a playbook task left running: they must change nothing after the reconcile.

It is imported only for a mistake, to save memory in a running operator.
"""

import asyncio
import gc
import inspect
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any, TypeAlias

from pilothouse.playbook.awaited import PlaybookError

log = logging.getLogger(__name__)

_Coroutine: TypeAlias = Coroutine[Any, Any, Any]
_Handler: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]

_LEFT = "left running by a playbook task"

# Objects of CPython that stand between an awaitable and what it awaits, without an attribute for it.
_WRAPPERS = ("async_generator_asend", "async_generator_athrow", "coroutine_wrapper")


class LateCall(PlaybookError):
    """A module was called after its task had ended. The error has been reported already."""


def cancel_running(coroutines: Collection[_Coroutine]) -> dict[_Coroutine, asyncio.Task[Any]]:
    """Cancels the asyncio tasks that run coroutines, except for the current one.

    Their errors are not reported: the caller reports the mistake.

    Args:
        coroutines: The coroutines, which have not ended.

    Returns:
        The coroutines that tasks run, with their tasks.
    """
    running = _tasks_of(coroutines)
    for task in running.values():
        task.add_done_callback(_retrieve)
        task.cancel(_LEFT)
        _silence(task.get_loop())
    return running


async def until_ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Waits for cancelled tasks, so that the object is not reconciled again while they run."""
    await asyncio.wait(set(tasks))


def refuse_late(sentence: str) -> LateCall:
    """Returns the error for a call after the end of the task, which asyncio does not report again."""
    task = None
    with suppress(RuntimeError):  # There is no event loop in a thread.
        task = asyncio.current_task()
    if task is not None:
        task.add_done_callback(_retrieve)
        _silence(task.get_loop())
    return LateCall(sentence)


def _silence(loop: asyncio.AbstractEventLoop) -> None:
    """Stops asyncio from reporting these cancelled tasks and refused calls.

    A result of `asyncio.gather` that is not awaited would report them when it is collected.
    """
    previous = loop.get_exception_handler()
    if not isinstance(previous, _Quiet):
        loop.set_exception_handler(_Quiet(previous))


class _Quiet:
    """An exception handler of an event loop that drops the errors that have been reported already.

    Args:
        previous: The handler for all other errors; None: the default one.
    """

    def __init__(self, previous: _Handler | None) -> None:
        self._previous = previous

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        cancelled = isinstance(error, asyncio.CancelledError) and error.args == (_LEFT,)
        if cancelled or isinstance(error, LateCall):
            log.debug("A background call of a task has ended: %r", error)
        elif self._previous is None:
            loop.default_exception_handler(context)
        else:
            self._previous(loop, context)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Retrieves the error of a task. Otherwise asyncio would report it when the task is collected."""
    if not task.cancelled():
        log.debug("A background call of a task has ended: %r", task.exception())


def _tasks_of(coroutines: Collection[_Coroutine]) -> dict[_Coroutine, asyncio.Task[Any]]:
    current = asyncio.current_task()
    own = current.get_coro() if current is not None else None
    found = {}
    for task in asyncio.all_tasks():
        if task is current:
            continue
        reached = _reached(task.get_coro(), own)
        found.update({each: task for each in coroutines if id(each) in reached})
    return found


def _reached(outermost: object, excluded: object) -> set[int]:
    """Returns the IDs of everything that a coroutine awaits, directly or through others."""
    reached: set[int] = set()
    left = [outermost]
    while left:
        each = left.pop()
        if each is None or each is excluded or id(each) in reached:
            continue
        reached.add(id(each))
        left += _awaited_by(each)
    return reached


def _awaited_by(awaitable: object) -> Iterable[object]:
    """Returns what an awaitable awaits. If it has not started: what it may await, its arguments."""
    if inspect.iscoroutine(awaitable):
        unstarted = inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED
        return _locals(awaitable.cr_frame) if unstarted else [awaitable.cr_await]
    if inspect.isgenerator(awaitable):
        # A generator may drive a coroutine itself, as pilothouse.testing does to stop a process.
        return [awaitable.gi_yieldfrom, *_locals(awaitable.gi_frame)]
    if inspect.isasyncgen(awaitable):
        return [awaitable.ag_await]
    return gc.get_referents(awaitable) if type(awaitable).__name__ in _WRAPPERS else ()


def _locals(frame: FrameType | None) -> list[object]:
    return list(frame.f_locals.values()) if frame is not None else []
