"""Finds what a task called and did not await: to forget an `await` is a mistake that Python does not report.

Each async method of a play, and each call of another task, notes its coroutine with the task that is running.
When that task ends, every coroutine must have been run to its end. This does not depend on when Python
collects a coroutine that nobody holds.

Coroutines of an author's own functions are noted when they are dropped without having been started. CPython
does that at the end of the statement, or of the task's function if a variable holds the coroutine.
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, TypeVar

from pilothouse.controller import SyncError
from pilothouse.kube import Conflict
from pilothouse.kube.patches import on_unawaited

C = TypeVar("C", bound=type)

_Coroutine = Coroutine[Any, Any, Any]

_HOW = "Write `await` before the call."


class PlaybookError(TypeError):
    """A mistake in a playbook. The object's status shows its text, which says how to fix it."""


class Calls:
    """The coroutines that one task has called. A context manager around that task.

    On leaving it, a coroutine that was never started is closed.

    Raises:
        PlaybookError: On leaving it: a coroutine was not awaited. It replaces an error of the task, which is
            likely to be a consequence, unless the play is to be repeated or the task was cancelled.
    """

    __slots__ = ("_dropped", "_loop", "_made", "_token")

    def __init__(self) -> None:
        self._made: list[tuple[str, _Coroutine]] = []
        self._dropped = ""
        self._loop = asyncio.get_running_loop()
        self._token: Token[Calls]

    def add(self, name: str, coroutine: _Coroutine) -> None:
        """Notes a coroutine.

        Raises:
            PlaybookError: The caller does not run on the event loop of the operator.
        """
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

    def drop(self, name: str) -> None:
        """Notes a coroutine of another function, which is dropped without having been started."""
        self._dropped = self._dropped or name

    def __enter__(self) -> None:
        self._token = _CALLS.set(self)

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        _CALLS.reset(self._token)
        if not (self._made or self._dropped):
            return
        forgotten = _close([each for each in self._made if each[1].cr_frame is not None])  # type: ignore[attr-defined]
        if self._dropped and not forgotten:
            forgotten = f"{self._dropped} was called without await, so it did nothing. {_HOW}"
        if forgotten and (error is None or isinstance(error, Exception)) and not _passes(error):
            raise PlaybookError(forgotten) from error


_CALLS: ContextVar[Calls] = ContextVar("pilothouse_calls")


def _dropped(coroutine: _Coroutine) -> bool:
    """Notes a coroutine that is dropped without having been started, if that happens in a task."""
    calls = _CALLS.get(None)
    if calls is not None:
        calls.drop(getattr(coroutine, "__name__", "a coroutine"))
    return calls is not None


on_unawaited(_dropped)


def _passes(error: BaseException | None) -> bool:
    """Whether an error goes before a forgotten await: it explains that, or is none of the task's own."""
    return isinstance(error, Conflict | SyncError | PlaybookError)


def _close(unfinished: list[tuple[str, _Coroutine]]) -> str:
    """Closes what was never started; returns a sentence about the first that was not awaited, if any."""
    for _, coroutine in unfinished:
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
            coroutine.close()
    for name, coroutine in unfinished:
        if coroutine.cr_frame is None:  # type: ignore[attr-defined]
            return f"{name} was called without await, so it did nothing. {_HOW}"
        return f"{name} was still running when the task ended. Await it before the task returns."
    return ""


def note(name: str, coroutine: _Coroutine) -> _Coroutine:
    """Notes a coroutine with the task that is running, if one is; returns it."""
    calls = _CALLS.get(None)
    if calls is not None:
        calls.add(name, coroutine)
    return coroutine


def awaited(owner: C) -> C:
    """Has a class note the coroutines of its async methods. A class decorator.

    Raises:
        PlaybookError: An async method overrides one that its callers do not await.
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

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> _Coroutine:
        return note(shown, method(self, *args, **kwargs))

    called.__awaited__ = True  # type: ignore[attr-defined]
    return called


def require_awaited(value: object, what: str) -> None:
    """Refuses a coroutine, which is true whatever it would return.

    Raises:
        PlaybookError: It is one.
    """
    if inspect.iscoroutine(value):
        value.close()
        raise PlaybookError(f"{what} is a coroutine that was not awaited. Write `await` before the call.")


def require_nothing(returned: object) -> None:
    """Refuses what a task's function returned.

    Raises:
        PlaybookError: It is not None.
    """
    if returned is None:
        return
    if inspect.iscoroutine(returned):
        returned.close()
    if inspect.isawaitable(returned) or inspect.isasyncgen(returned):
        raise PlaybookError(
            f"it returned a {type(returned).__name__} that nothing awaits. "
            "Make the task's function an async def that awaits it."
        )
    raise PlaybookError(
        f"it returned a value of type {type(returned).__name__}, which nothing reads. "
        "Keep what later tasks need in an attribute of the play."
    )
