"""Tasks: the named, idempotent steps of a playbook, and how each of them ends."""

import asyncio
import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar, cast, overload

from pilothouse.controller import SyncError
from pilothouse.controller.before_change import nothing_before_changes
from pilothouse.kube import ApiError, KubeError, Undecodable
from pilothouse.playbook.arguments import (
    REASON_LENGTH,
    require_flags,
    require_no_duplicates,
    require_reason,
    require_text,
    shown,
)
from pilothouse.playbook.awaited import PlaybookError, note, require_nothing
from pilothouse.telemetry import redacted

P = TypeVar("P")


def seconds(value: float, what: str) -> float:
    """Returns a number of seconds that an author has given, after a check.

    Args:
        value: The number of seconds.
        what: The name of the argument, for the error.

    Raises:
        PlaybookError: It is not a number (for example a timedelta), or it is negative or infinite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlaybookError(f"{what} is {value!r}, but must be a number of seconds")
    if not (math.isfinite(value) and value >= 0):
        raise PlaybookError(f"{what} is {value} s, but must be a finite number of seconds that is at least 0")
    return value


class State(StrEnum):
    """How a task ended."""

    OK = "ok"
    """There was nothing to change."""
    CHANGED = "changed"
    """It changed something (in check mode: it would have)."""
    SKIPPED = "skipped"
    """It does not apply to the object at present."""
    WAITING = "waiting"
    """It waits for something, such as a rollout."""
    FAILED = "failed"
    """It failed."""


@dataclass(slots=True)
class TaskResult:
    """The result of one task in one reconcile.

    Attributes:
        task: The name of the task.
        state: How the task ended: ok, changed, skipped, waiting or failed.
        seconds: How long the task took.
        message: What the task reports, for people.
        diff: What the task changed, one line per change. A task that failed or waits may have changed
            something, too.
    """

    task: str
    state: State = State.OK
    seconds: float = 0.0
    message: str = ""
    diff: Sequence[str] = ()

    def note(self, state: State, message: str) -> None:
        """Sets the state, and appends to the message."""
        self.state = state
        if message:
            self.message = f"{self.message}; {message}" if self.message else message

    def changed(self, message: str, diff: Sequence[str]) -> None:
        """Records a change."""
        self.note(State.CHANGED, message)
        self.diff = (*self.diff, *diff)

    def hide_secrets(self) -> None:
        """Hides all secret values that are known by now, including those of later tasks."""
        if self.message:
            self.message = redacted(self.message)
        if self.diff:
            self.diff = tuple(map(redacted, self.diff))


# The result of the running task. Each of several parallel tasks has its own, also in its threads.
RESULT: ContextVar[TaskResult] = ContextVar("pilothouse_task_result")


def running_task() -> str:
    """Returns the name of the running task; empty outside of tasks."""
    result = RESULT.get(None)
    return result.task if result else ""


class TaskFailed(Exception):
    """A task failed. It ends the reconcile, and the operator retries with back-off.

    ::

        raise TaskFailed("NoSeats", "Flight LH1 has no seats left. Choose another flight.", permanent=True)

    Args:
        reason: The reason of the condition Ready and of the Event, in CamelCase.
        message: What failed, why, and what to do, for people. It must not contain secrets.
        permanent: Whether the operator does not retry until the spec changes.
        retry_after: Seconds until the next retry, at least 0.1, if known; 0 and None: back-off. If it is less
            than 1 s, the retry comes after the back-off if that is longer.

    Raises:
        PlaybookError: The reason is not in CamelCase or has more than 128 characters, the message is not
            text, `permanent` is not True or False, or `retry_after` is not a number of seconds.
    """

    def __init__(
        self, reason: str, message: str, *, permanent: bool = False, retry_after: float | None = None
    ) -> None:
        require_reason(reason, "TaskFailed")
        require_text(message, "TaskFailed: the message")
        require_flags("TaskFailed", permanent=permanent)
        # A task may pass the text of an exception that has none, such as TimeoutError().
        message = redacted(message) if message.strip() else "The task failed without a message."
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent
        self.retry_after = None if retry_after is None else seconds(retry_after, "retry_after")


class NamespaceTerminating(TaskFailed):
    """A module cannot create an object, because its namespace is being deleted.

    A retry cannot succeed. So if a task of the cleanup fails with it, and the namespace is that of the play's
    object, the engine skips that task.

    Attributes:
        namespace: The namespace.

    Args:
        task: The name of the task.
        namespace: The namespace.
        what: What was to be created: "ConfigMap default/web".
    """

    def __init__(self, task: str, namespace: str, what: str) -> None:
        super().__init__(
            "NamespaceTerminating",
            f"{in_task(task)}: {what} cannot be created, because the namespace {namespace} is being deleted.",
        )
        self.namespace = namespace


def in_task(task: str) -> str:
    """Returns the beginning of a message about a failure. The name alone states that the task succeeded."""
    return f"The task {task!r} failed"


def refused(what: str, error: KubeError | SyncError) -> TaskFailed:
    """Returns the failure for a request that failed.

    Args:
        what: What failed, for people: `in_task`, or another sentence without full stop.
        error: The error of the request.
    """
    if isinstance(error, Undecodable) and error.problem:
        return TaskFailed("Undecodable", f"{what}: {error}")
    after = error.retry_after if isinstance(error, ApiError | SyncError) else None
    return TaskFailed("KubernetesRefused", f"{what}: {error}", retry_after=after)


def status_not_stored(fields: Sequence[str]) -> TaskFailed:
    """Returns the failure for fields of a status that the API server has dropped."""
    return TaskFailed(
        "StatusNotStored",
        f"The API server did not store status.{', status.'.join(fields)}. Apply the CRD of this operator's "
        "release, which declares the field.",
    )


def unexpected(where: str, error: BaseException) -> TaskFailed:
    """Returns the failure for an unexpected error, without its text, which may contain a secret.

    The text of a PlaybookError is shown: it comes from the framework.

    Args:
        where: What failed, as for `refused`, or the part of the reconcile that raised the error.
        error: The error.
    """
    if isinstance(error, PlaybookError):
        return TaskFailed("UnexpectedError", f"{where}: {error}")
    return TaskFailed(
        "UnexpectedError", f"{where}: unexpected {type(error).__name__}. See the operator's log for details."
    )


class Waiting(Exception):
    """A task waits for something. It ends the reconcile, without a failure.

    The object is reconciled again when a watch reports a change, and at the latest after `fallback`.

    Args:
        reason: The reason of the condition Ready during the wait, in CamelCase.
        message: What the task waits for, for people, as a sentence.
        fallback: Seconds until the object is reconciled again in any case, at least 0.1. 0: with back-off.
        ready: Whether the wait is routine and does not affect Ready; see `Play.wait_for`.

    Raises:
        PlaybookError: The reason is not in CamelCase, the message is not text, `ready` is not True or False,
            or `fallback` is not a number of seconds.
    """

    def __init__(self, reason: str, message: str, *, fallback: float, ready: bool = False) -> None:
        require_reason(reason, "Waiting", REASON_LENGTH)
        require_text(message, "Waiting: the message")
        require_flags("Waiting", ready=ready)
        message = redacted(message)
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.fallback = seconds(fallback, "fallback")
        self.ready = ready


@dataclass(frozen=True, eq=False)
class Task(Generic[P]):
    """A named, idempotent step of a playbook, as the decorator `task` returns it.

    To run it from another task, await it: `await store_greeting(play)`.

    Attributes:
        name: The state that the task ensures, in words: "seats are booked".
        function: The function that does it. It takes the play.
        notify: Handlers that run once at the end of a reconcile in which the task changed something.
    """

    name: str
    function: Callable[[P], Awaitable[object]]
    notify: "tuple[Task[Any], ...]" = ()

    def __call__(self, play: P) -> Coroutine[Any, Any, None]:
        """Returns a coroutine that runs the task as part of another one."""
        return note(f"the task {self.name!r}", self._run(play))

    async def _run(self, play: P) -> None:
        require_nothing(await self.function(play))


class TaskDecorator:
    """The decorator that `task` returns. It turns a function into a Task."""

    def __init__(self, name: str, notify: Sequence[Task[Any]]) -> None:
        self._name = name
        if not isinstance(notify, list | tuple):
            raise PlaybookError(
                f"the task {name!r}: notify is {described(notify)}, which is not a list. Pass a list: "
                "notify=[...]."
            )
        if wrong := [each for each in notify if not isinstance(each, Task)]:
            raise PlaybookError(
                f"the task {name!r}: {described(wrong[0])} in notify is not a task. Decorate the handler "
                'with @task("...").'
            )
        require_no_duplicates(f"the task {name!r}", described, notify=notify)
        self._notify = tuple(notify)

    @overload
    def __call__(self, function: Callable[[P], Awaitable[None]]) -> Task[P]: ...
    @overload
    def __call__(self, function: Callable[[P], None]) -> Task[P]: ...
    def __call__(self, function: Callable[[P], Awaitable[None] | None]) -> Task[P]:
        """Turns a function of the play into a Task.

        Raises:
            PlaybookError: The function cannot be a task.
        """
        _require_task_function(self._name, function)
        if _is_async(function):
            return Task(self._name, cast("Callable[[P], Awaitable[None]]", function), self._notify)

        @functools.wraps(function)
        async def in_thread(play: Any) -> None:
            if play.check:
                # A manual play in check mode has no Lease, so its fence is closed. Reading needs no Lease.
                require_nothing(await asyncio.to_thread(lambda: function(play)))
                return
            # The task only reads: it is no change before which a plan must be recorded as begun.
            with nothing_before_changes():
                require_nothing(await play.fence.in_thread(function, play))

        return Task(self._name, in_thread, self._notify)


def task(name: str, *, notify: Sequence[Task[Any]] = ()) -> TaskDecorator:
    """Turns a function that takes the play into a task.

    ::

        @task("the greeting is stored")
        async def store_greeting(play: GreeterPlay) -> None:
            await play.apply(CONFIG_MAP, {"data": {"greeting": play.object.spec.greeting}})

    An `async def` runs on the event loop and must not block it. A watchdog reports blocking only afterwards.

    A plain `def` runs in a thread and may block. Use it to read from a blocking library:

    - It starts only while this process holds its Lease.
    - A thread cannot be cancelled. Give each blocking call a timeout of a few seconds. If the reconcile is
      cancelled, the object is not reconciled again before the thread ends. A process that stops does not
      wait for the thread, and does not release its Lease while the thread runs.
    - It must not change outside systems or `play.status`. Do that in an async task, with
      `await play.call(what, lambda: play.fence.in_thread(...))`.
    - It also runs in check mode, where the fence cannot stop a change. Check `play.check` yourself.

    Args:
        name: The state that the task ensures, in words: "seats are booked". Logs and metrics show this name.
        notify: Handlers that run once at the end of a reconcile in which this task changed something.

    Raises:
        PlaybookError: The name is missing, or `notify` is not a list of tasks.
    """
    if not isinstance(name, str) or not name:
        raise PlaybookError(f'a task needs a name in words, as in @task("seats are booked"), not {name!r}')
    return TaskDecorator(name, notify)


def described(step: object) -> str:
    """Returns what an author passed in place of a task, for an error."""
    if isinstance(step, Task):
        return f"the task {step.name!r}"
    if isinstance(step, TaskDecorator):
        return "@task(...) without a function"
    if inspect.iscoroutine(step):
        step.close()
        return f"a call of {step.__name__}"
    return shown(step)


def _is_async(function: Callable[..., Any]) -> bool:
    """Returns whether a call returns a coroutine, also for an object with an async `__call__`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - needs the method itself
    )


def _require_task_function(name: str, function: Callable[..., Any]) -> None:
    """Rejects a function that cannot be a task, already when the author's module is imported.

    Raises:
        PlaybookError: It is not a function of the play, or it is a generator.
    """
    if not callable(function):
        raise PlaybookError(f"the task {name!r} must be a function, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise PlaybookError(f"the task {name!r} is a generator, which would never run: remove the yield")
    try:
        inspect.signature(function).bind(object())
    except TypeError as error:
        raise PlaybookError(
            f"the task {name!r} must be a function of one argument, the play ({error}). A method cannot be "
            "a task."
        ) from None
    except ValueError:
        return  # A C function has no signature to check.
