"""Tasks: the named, idempotent steps of a playbook, and how each of them ends."""

import asyncio
import functools
import inspect
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar, cast, overload

from pilothouse.kube import ApiError, KubeError
from pilothouse.playbook.awaited import PlaybookError, note, require_nothing
from pilothouse.telemetry import redacted

P = TypeVar("P")

# metav1.Condition, the reason's pattern.
REASON = re.compile("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def seconds(value: float, what: str) -> float:
    """A number of seconds that an author has given, as it is.

    Raises:
        PlaybookError: It is not a number (a timedelta, for example), or it is negative or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlaybookError(f"{what} is {value!r}: give it as a number of seconds")
    if not (math.isfinite(value) and value >= 0):
        raise PlaybookError(f"{what} is {value} s: give a number of seconds from 0 on")
    return value


class State(StrEnum):
    """How a task ended."""

    OK = "ok"
    """What it states was true already."""
    CHANGED = "changed"
    """It made it true (in check mode: it would have)."""
    SKIPPED = "skipped"
    """It does not concern this object now."""
    WAITING = "waiting"
    """It needs something that is still on its way."""
    FAILED = "failed"
    """It could not make it true."""


@dataclass(slots=True)
class TaskResult:
    """How one task of one play ended.

    Attributes:
        task: Its name.
        state: ok, changed, skipped, waiting or failed.
        seconds: How long it took.
        message: What there is to say about it, for people.
        diff: What it changed, a line per change; empty when it changed nothing, however it ended.
    """

    task: str
    state: State = State.OK
    seconds: float = 0.0
    message: str = ""
    diff: Sequence[str] = ()

    def note(self, state: State, message: str) -> None:
        """Sets the state, and adds to the message."""
        self.state = state
        if message:
            self.message = f"{self.message}; {message}" if self.message else message

    def changed(self, message: str, diff: Sequence[str]) -> None:
        """Notes a change."""
        self.note(State.CHANGED, message)
        self.diff = (*self.diff, *diff)

    def hide_secrets(self) -> None:
        """Hides the secret values that are known by now, also those that a later task stated."""
        self.message = redacted(self.message)
        self.diff = tuple(map(redacted, self.diff))


# The result of the task that is running. Of several at the same time each has its own, in its threads too.
RESULT: ContextVar[TaskResult] = ContextVar("pilothouse_task_result")


class TaskFailed(Exception):
    """A task could not do what it states; the play ends.

    Args:
        reason: Why, for machines: CamelCase. It becomes the reason of the condition Ready.
        message: What happened and what to do about it, for people; one sentence, no secrets.
        permanent: Trying again is of no use until the spec changes.
        retry_after: Seconds until the next try, where that is known; None: the back-off says.
    """

    def __init__(
        self, reason: str, message: str, *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        message = redacted(message) if isinstance(message, str) else message
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent
        self.retry_after = None if retry_after is None else seconds(retry_after, "retry_after")
        if not isinstance(reason, str) or not REASON.fullmatch(reason):
            raise ValueError(
                f"TaskFailed: the reason {reason!r} is not CamelCase, such as AirlineUnreachable"
            )
        if not isinstance(message, str):
            raise TypeError(f"TaskFailed: the message {message!r} is no text")


def refused(task: str, error: KubeError) -> TaskFailed:
    """What the API server refused to a task, as the failure of it."""
    after = error.retry_after if isinstance(error, ApiError) else None
    return TaskFailed("KubernetesRefused", f"{task}: {error}", retry_after=after)


def unexpected(where: str, error: BaseException) -> TaskFailed:
    """Returns a defect as a failure. It leaves out the error's text, which may contain a secret.

    The text of a PlaybookError is the framework's own and is shown.
    """
    if isinstance(error, PlaybookError):
        return TaskFailed("UnexpectedError", f"{where}: {error}")
    return TaskFailed(
        "UnexpectedError", f"{where}: unexpected {type(error).__name__}; the operator's log has the details."
    )


class Waiting(Exception):
    """A task needs something that is not there yet. The play ends, which is not a failure.

    The object is reconciled again when a watch reports a change, and at the latest after `fallback`.

    Args:
        reason: Why, for machines: CamelCase. It becomes the reason of the condition Ready.
        message: What is waited for, for people; one sentence.
        fallback: Seconds until the object is reconciled again in any case.
        ready: Whether the wait is routine and leaves Ready as if there were none; see `Play.wait_for`.
    """

    def __init__(self, reason: str, message: str, *, fallback: float, ready: bool = False) -> None:
        message = redacted(message) if isinstance(message, str) else message
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fallback = seconds(fallback, "fallback")
        self.ready = ready


@dataclass(frozen=True, eq=False)
class Task(Generic[P]):
    """A named step. Made by the decorator `task`; awaiting a call of it runs it.

    Attributes:
        name: What it makes true, in words: "seats are booked".
        function: What it does, given the play.
        notify: Handlers that run once at the end of a play in which it changed something.
    """

    name: str
    function: Callable[[P], Awaitable[object]]
    notify: "tuple[Task[Any], ...]" = ()

    def __call__(self, play: P) -> Coroutine[Any, Any, None]:
        """Runs the task on a play, when the result is awaited."""
        return note(f"the task {self.name!r}", self._run(play))

    async def _run(self, play: P) -> None:
        require_nothing(await self.function(play))


class TaskDecorator:
    """What `task` returns: makes a Task of a function."""

    def __init__(self, name: str, notify: Sequence[Task[Any]]) -> None:
        self._name = name
        self._notify = tuple(notify)

    @overload
    def __call__(self, function: Callable[[P], Awaitable[None]]) -> Task[P]: ...
    @overload
    def __call__(self, function: Callable[[P], None]) -> Task[P]: ...
    def __call__(self, function: Callable[[P], Awaitable[None] | None]) -> Task[P]:
        """Makes a Task of a function of the play.

        Raises:
            PlaybookError: The function cannot be a task.
        """
        _require_task_function(self._name, function)
        if _is_async(function):
            return Task(self._name, cast("Callable[[P], Awaitable[None]]", function), self._notify)

        @functools.wraps(function)
        async def in_thread(play: Any) -> None:
            if play.check:
                # It only looks, and needs no Lease for that: behind check mode stands a closed fence.
                require_nothing(await asyncio.to_thread(function, play))
            else:
                require_nothing(await play.fence.in_thread(function, play))

        return Task(self._name, in_thread, self._notify)


def task(name: str, *, notify: Sequence[Task[Any]] = ()) -> TaskDecorator:
    """Makes a task of a function that takes the play.

    An `async def` runs on the event loop and must not block: nothing can tell that it will, the watchdog only
    sees that it did. A plain `def` may block: it runs in a thread, and is begun only while this process
    leads. It cannot be stopped there, so what it waits for needs a time limit of its own, of a few seconds:
    an object whose play was stopped meanwhile is not played again before its thread ends, and a process that
    stops does not give its Lease up while a thread runs, and ends without having waited for it. It looks at
    things, in check mode too, heeds `play.check`, as no fence can stop it there, and leaves `play.status` and
    changes of outside systems to tasks on the loop: `await play.call(what, lambda:
    play.fence.in_thread(...))`.

    Args:
        name: What the task makes true, in words: "seats are booked". It names the task in logs and metrics.
        notify: Handlers of the playbook, to be run once at the end of a play in which this task has changed
            something.

    Raises:
        PlaybookError: The name is missing.
    """
    if not isinstance(name, str) or not name:
        raise PlaybookError(f'a task needs a name in words, @task("seats are booked"), not {name!r}')
    return TaskDecorator(name, notify)


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether a call returns a coroutine; also of an object with an async `__call__`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is wanted
    )


def _require_task_function(name: str, function: Callable[..., Any]) -> None:
    """Refuses what cannot run as a task when the module is imported.

    Raises:
        PlaybookError: It is not a function of the play, or a generator.
    """
    if not callable(function):
        raise PlaybookError(f"the task {name!r} is not a function but {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PlaybookError(f"the task {name!r} is a generator and would never run: remove the yield")
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise PlaybookError(
            f"the task {name!r} must be a function of one argument, the play ({error}); a method is not one"
        ) from None
    except ValueError:
        return  # A function of C without a signature.
