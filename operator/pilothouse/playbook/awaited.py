"""Detects forgotten awaits in tasks, which Python does not report as an error.

Each call of an async method of the play, or of another task, registers its coroutine with the running task.
When that task ends, every registered coroutine must have finished. This does not depend on when Python
collects an unreferenced coroutine.

Coroutines of an author's own functions are registered when CPython destroys them before they have started:
at the end of the statement, or of the task's function if a variable refers to the coroutine.
"""

import asyncio
import functools
import inspect
import re
import reprlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, TypeVar

from pilothouse.controller import SyncError
from pilothouse.kube import Conflict
from pilothouse.kube.patches import on_unawaited
from pilothouse.telemetry import redacted

C = TypeVar("C", bound=type)
R = TypeVar("R")

_Coroutine = Coroutine[Any, Any, Any]

_HOW = "Write `await` before the call."

# What CPython reports about a value that cannot be awaited or iterated over asynchronously, in `await`,
# `async for` and `async with`, and in the functions of asyncio.
_NOT_AWAITABLE = re.compile(
    r"object (?P<await>\w+) can't be used in 'await' expression"
    r"|'async for' requires an object with __aiter__ method, got (?P<loop>\w+)"
    r"|'(?P<context>\w+)' object does not support the asynchronous context manager protocol"
    r"|(?:a coroutine was expected, got|An asyncio.Future, a coroutine or an awaitable is required) ?.*",
    re.DOTALL,
)
_AWAITED_TWICE = "cannot reuse already awaited coroutine"


class PlaybookError(TypeError):
    """A mistake in a playbook. The message explains how to fix it.

    If a task makes the mistake, the task fails, and the object's status shows the message.
    """


class Calls:
    """The coroutines that one task has called. A context manager around that task.

    At its end, it closes the coroutines that were never started, and cancels the asyncio tasks that still run
    one, as after `asyncio.create_task` without await. Calls that such a task makes later are refused.

    Attributes:
        cancelled: The asyncio tasks that the end of the context has cancelled.

    Args:
        task: The name of the task.
        refused_late: Called with a sentence about a call that was refused because the task has ended.

    Raises:
        PlaybookError: At the end of the context: a coroutine was not awaited. This replaces an error of the
            task, which is probably a consequence, unless the engine reconciles again or the task was
            cancelled. Or the task has caught a wait.
        Conflict: At the end of the context: the task has caught it.
    """

    __slots__ = (
        "_conflict",
        "_dropped",
        "_ended",
        "_loop",
        "_made",
        "_refused_late",
        "_task",
        "_token",
        "_wait",
        "cancelled",
    )

    def __init__(self, task: str, refused_late: Callable[[str], None]) -> None:
        self.cancelled: Collection[asyncio.Task[Any]] = ()
        self._task = task
        self._refused_late = refused_late
        self._ended = False
        self._made: list[tuple[str, _Coroutine]] = []
        self._dropped = ""
        self._conflict: Conflict | None = None
        self._wait = ""
        self._loop = asyncio.get_running_loop()
        self._token: Token[Calls]

    def add(self, name: str, coroutine: _Coroutine) -> None:
        """Registers a coroutine.

        Raises:
            PlaybookError: The caller does not run on the operator's event loop, or the task has ended.
        """
        if self._ended:
            coroutine.close()
            raise self._late(name)
        self._made.append((name, coroutine))
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if not here:
            coroutine.close()
            raise PlaybookError(
                f"{name} was called in a plain def, which runs in a thread and cannot await it. "
                "Make the task an async def and await the call."
            )

    def _late(self, name: str) -> PlaybookError:
        """Reports a call after the end of the task, and returns the error for the caller."""
        from pilothouse.playbook.background import refuse_late

        sentence = (
            f"{name} was called after the task {self._task!r} had ended, so it did nothing. The task has "
            "started the call in the background, for example with asyncio.create_task. Await it before the "
            "task returns."
        )
        self._refused_late(sentence)
        return refuse_late(sentence)

    def drop(self, name: str) -> None:
        """Registers a coroutine of another function that was destroyed before it started."""
        self._dropped = self._dropped or name

    def raised_conflict(self, conflict: Conflict) -> None:
        """Registers a conflict that a module raises. If the task catches it, its end raises it again."""
        self._conflict = conflict

    def raised_wait(self, message: str) -> None:
        """Registers a wait that a module raises."""
        self._wait = message

    def requeued(self) -> None:
        """Registers a call of `requeue_after`, which a task makes if it catches a wait on purpose."""
        self._wait = ""

    def __enter__(self) -> "Calls":
        self._token = _CALLS.set(self)
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        _CALLS.reset(self._token)
        self._ended = True
        unfinished = [each for each in self._made if each[1].cr_frame is not None]  # type: ignore[attr-defined]
        forgotten = self._end(unfinished, error) if unfinished else ""
        if error is None:
            self._require_passed()
        if self._dropped and not forgotten:
            forgotten = f"{self._dropped} was called without await, so it did nothing. {_HOW}"
        if forgotten and (error is None or isinstance(error, Exception)) and not _passes(error):
            raise PlaybookError(forgotten) from error

    def _end(self, unfinished: list[tuple[str, _Coroutine]], error: BaseException | None) -> str:
        """Cancels or closes unfinished coroutines, and returns a sentence about the first of them."""
        running: Mapping[_Coroutine, asyncio.Task[Any]] = {}
        # With GeneratorExit, the task's own coroutine is closed, possibly after the end of the event loop.
        if not isinstance(error, GeneratorExit):
            # Rarely needed, so only then imported.
            from pilothouse.playbook.background import cancel_running

            running = cancel_running([coroutine for _, coroutine in unfinished])
        self.cancelled = running.values()
        return _close(unfinished, running, failed=error is not None)

    def _require_passed(self) -> None:
        """Refuses a task that has caught what must end the reconcile, probably with `except Exception`.

        Raises:
            Conflict: The task has caught it. The engine reconciles the object again.
            PlaybookError: The task has caught a wait and does not reconcile the object later.
        """
        if self._conflict is not None:
            raise self._conflict
        if self._wait:
            raise PlaybookError(
                f"it caught a wait ({self._wait.rstrip('.')}), probably with `except Exception`, so the "
                "reconcile did not end there. Catch only the errors that you expect, such as TaskFailed. To "
                "continue in spite of a wait, catch Waiting and call play.requeue_after(wait.fallback)."
            )


_CALLS: ContextVar[Calls] = ContextVar("pilothouse_calls")


def running_calls() -> Calls | None:
    """Returns the calls of the running task, or None outside of a task."""
    return _CALLS.get(None)


def _dropped(coroutine: _Coroutine) -> bool:
    """Registers a coroutine that was destroyed before it started, if that happens in a task."""
    calls = _CALLS.get(None)
    if calls is not None:
        calls.drop(getattr(coroutine, "__name__", "a coroutine"))
    return calls is not None


on_unawaited(_dropped)


def _passes(error: BaseException | None) -> bool:
    """Returns whether an error takes precedence over a forgotten await."""
    if isinstance(error, TypeError | RuntimeError) and not_awaitable(error):
        return True  # For example, asyncio.gather refused one of its arguments, and has awaited none.
    return isinstance(error, Conflict | SyncError | PlaybookError)


def not_awaitable(error: TypeError | RuntimeError) -> str:
    """Returns a sentence for an error of Python about a value that cannot be awaited; empty for others."""
    text = str(error)
    if text == _AWAITED_TWICE:
        return "A coroutine is awaited twice. Keep its result in a variable instead."
    found = _NOT_AWAITABLE.fullmatch(text)
    if found is None:
        return ""
    kind = next(filter(None, found.groups()), "")
    what = f"A value of type {kind}" if kind else "A value that is not a coroutine"
    return f"{what} is awaited, which is not possible: remove `await`, or call an async function."


def _close(
    unfinished: list[tuple[str, _Coroutine]],
    running: Mapping[_Coroutine, asyncio.Task[Any]],
    *,
    failed: bool,
) -> str:
    """Closes coroutines that never started, and returns a sentence about the first that was not awaited.

    Args:
        unfinished: The coroutines, with the names of what was called.
        running: Those that asyncio tasks run, with the tasks. A cancelled task closes its own coroutine.
        failed: Whether the task has failed.
    """
    for _, coroutine in unfinished:
        closes = coroutine in running and running[coroutine].get_coro() is coroutine
        if not closes and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()
    name, first = unfinished[0]
    if first not in running and first.cr_frame is None:  # type: ignore[attr-defined]
        return f"{name} was called without await, so it did nothing. {_HOW}"
    if failed:
        return (
            f"{name} was still running when the task failed, so it was cancelled. Use asyncio.TaskGroup, "
            "which ends all its calls first; asyncio.gather does not."
        )
    return (
        f"{name} was still running when the task ended, so it was cancelled. Write `await` before "
        "asyncio.gather, or await what asyncio.create_task returned."
    )


def note(name: str, coroutine: _Coroutine) -> _Coroutine:
    """Registers a coroutine with the running task, if there is one, and returns it."""
    calls = _CALLS.get(None)
    if calls is not None:
        calls.add(name, coroutine)
    return coroutine


def awaited(owner: C) -> C:
    """Makes the async methods of a class register their coroutines. A class decorator.

    Raises:
        PlaybookError: An async method overrides a method that its callers do not await.
    """
    for name, method in list(vars(owner).items()):
        if not inspect.iscoroutinefunction(method):
            continue
        for base in owner.__mro__[1:]:
            overridden = vars(base).get(name)
            if inspect.isfunction(overridden) and not hasattr(overridden, "__awaited__"):
                raise PlaybookError(
                    f"{owner.__name__}.{name} is an async def, but its caller does not await it. "
                    "Make it a plain def."
                )
        setattr(owner, name, _noting(name, method))
    return owner


def _noting(name: str, method: Callable[..., _Coroutine]) -> Callable[..., _Coroutine]:
    shown = f"play.{name}"
    is_module = method.__module__.startswith("pilothouse.playbook.")

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> _Coroutine:
        calls = _CALLS.get(None)
        if calls is None:
            if is_module:
                _require_task(self, shown)
            return method(self, *args, **kwargs)
        coroutine = method(self, *args, **kwargs)
        calls.add(shown, coroutine)
        return coroutine

    called.__awaited__ = True  # type: ignore[attr-defined]
    return called


def _require_task(play: Any, name: str) -> None:
    """Refuses a call of a module outside of a task. Nothing would await it, cancel it or report its changes.

    A play that a test has created without a cluster is left alone.

    Raises:
        PlaybookError: The play has a cluster.
    """
    if not play.has_cluster:
        return
    from pilothouse.playbook.background import refuse_late

    sentence = (
        f"{name} was called outside of a task, for example in a trigger, in a hook such as `failed`, or in "
        "the background. Call it in a task."
    )
    play.refused_late(sentence)
    raise refuse_late(sentence)


def require_awaited(value: object, what: str) -> None:
    """Rejects a coroutine, which is always true, in place of its result.

    Raises:
        PlaybookError: The value is a coroutine.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise PlaybookError(f"{what} is a coroutine that was not awaited. Write `await` before the call.")


def require_truth(value: object, what: str) -> bool:
    """Returns whether a condition is true, after a check that it is not true by mistake.

    A number, None and an object with a `__bool__` of its own, such as a Rollout, are accepted.

    Raises:
        PlaybookError: The value is a text, a container, an iterator, a function or a coroutine. These are
            always true, or true unless they are empty.
    """
    if value is True or value is False:
        return value
    require_awaited(value, what)
    kind = type(value).__name__
    if inspect.isawaitable(value):
        raise PlaybookError(
            f"{what} is {_article(kind)} {kind} that was not awaited. Write `await` before it."
        )
    if callable(value):
        name = getattr(value, "__name__", kind)
        raise PlaybookError(f"{what} is the function {name}, which is always true. Call it: `{name}(...)`")
    if isinstance(value, str | bytes):
        raise PlaybookError(
            f"{what} is the text {_quoted(value)}, which is true unless it is empty. Write a "
            "comparison, whose result is True or False."
        )
    if isinstance(value, Iterator | AsyncIterator):
        raise PlaybookError(
            f"{what} is {_article(kind)} {kind}, which is always true. Write `all(...)` or `any(...)`."
        )
    if hasattr(value, "__len__") and not hasattr(value, "__bool__"):
        raise PlaybookError(
            f"{what} is {_article(kind)} {kind}, which is true unless it is empty. Write `all(...)`, "
            "`any(...)` or `bool(...)`."
        )
    return bool(value)


def _article(noun: str) -> str:
    return "an" if noun[0].lower() in "aeiou" else "a"


def _quoted(text: str | bytes) -> str:
    """Returns a text for an error, redacted before it is shortened, because it may be a secret value."""
    if isinstance(text, bytes):
        return reprlib.repr(redacted(text.decode(errors="replace")).encode())
    return reprlib.repr(redacted(text))


def require_function(effect: object, what: str) -> None:
    """Rejects a value that is not a function, such as the coroutine of an async function.

    Raises:
        PlaybookError: The value cannot be called.
    """
    if callable(effect):
        return
    kind = type(effect).__name__
    if inspect.iscoroutine(effect):
        name = effect.__name__
        effect.close()
        raise PlaybookError(
            f"{what} got a coroutine, because {name} was called, but must get a function: write "
            f"`lambda: {name}(...)`"
        )
    raise PlaybookError(f"{what} got a value of type {kind}, but must get a function: write `lambda: ...`")


async def awaited_result(effect: Callable[[], Awaitable[R]], what: str) -> R:
    """Calls a function and awaits what it returns.

    Raises:
        PlaybookError: The function did not return an awaitable, or its result is a coroutine that was not
            awaited.
    """
    returned = effect()
    if not inspect.isawaitable(returned):
        raise PlaybookError(
            f"the function of {what} returned a value of type {type(returned).__name__}, which cannot be "
            "awaited: pass an async def that takes no arguments, or for blocking code "
            "`lambda: play.fence.in_thread(function, ...)`"
        )
    result = await returned
    require_awaited(result, f"the result of the function of {what}")
    return result


def require_nothing(returned: object) -> None:
    """Rejects a value that a task's function returned.

    Raises:
        PlaybookError: The value is not None.
    """
    if returned is None:
        return
    if inspect.iscoroutine(returned):
        returned.close()
    kind = type(returned).__name__
    if inspect.isawaitable(returned) or inspect.isasyncgen(returned):
        raise PlaybookError(
            f"it returned {_article(kind)} {kind} that nothing awaits. "
            "Make the task's function an async def that awaits it."
        )
    if isinstance(returned, BaseException):
        raise PlaybookError(
            f"it returned {_article(kind)} {kind} instead of raising it. Write `raise`, not `return`."
        )
    raise PlaybookError(
        f"it returned a value of type {type(returned).__name__}, which nothing reads. "
        "Keep what later tasks need in an attribute of the play."
    )
