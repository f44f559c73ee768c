"""Tasks: the named, idempotent steps of a playbook, and how each of them ends."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar, overload

P = TypeVar("P")


class State(StrEnum):
    """How a task ended."""

    OK = "ok"
    """What it states was true already."""
    CHANGED = "changed"
    """It made it true (in check mode: it would have)."""
    SKIPPED = "skipped"
    """It does not concern this object now."""
    FAILED = "failed"
    """It could not make it true."""


@dataclass(slots=True)
class TaskResult:
    """How one task of one play ended.

    Attributes:
        task: Its name.
        state: ok, changed, skipped or failed.
        seconds: How long it took.
        message: What there is to say about it, for people.
        diff: What it changed, a line per change.
    """

    task: str
    state: State = State.OK
    seconds: float = 0.0
    message: str = ""
    diff: list[str] = field(default_factory=list)


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
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.permanent = permanent
        self.retry_after = retry_after


@dataclass(frozen=True)
class Task(Generic[P]):
    """A named step. Made by the decorator `task`; awaiting a call of it runs it.

    Attributes:
        name: What it makes true, in words: "seats are booked".
        function: What it does, given the play.
    """

    name: str
    function: Callable[[P], Awaitable[None]]

    async def __call__(self, play: P) -> None:
        """Runs the task on a play."""
        await self.function(play)


class TaskDecorator:
    """What `task` returns: makes a Task of a function."""

    def __init__(self, name: str) -> None:
        self._name = name

    @overload
    def __call__(self, function: Callable[[P], Awaitable[None]]) -> Task[P]: ...
    @overload
    def __call__(self, function: Callable[[P], None]) -> Task[P]: ...
    def __call__(self, function: Callable[[P], Awaitable[None] | None]) -> Task[P]:
        """Makes a Task of a function of the play."""
        if inspect.iscoroutinefunction(function):
            return Task(self._name, function)

        async def in_thread(play: P) -> None:
            await asyncio.to_thread(function, play)

        return Task(self._name, in_thread)


def task(name: str) -> TaskDecorator:
    """Makes a task of a function that takes the play.

    An `async def` runs on the event loop and must not block. A plain `def` may block: it runs in a thread.

    Args:
        name: What the task makes true, in words: "seats are booked". It names the task in logs and metrics.
    """
    return TaskDecorator(name)
