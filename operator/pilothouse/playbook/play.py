"""A play: one run of a playbook over one object, and what its tasks use."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pilothouse.controller import EventType
from pilothouse.kube import Condition, ObjectMeta
from pilothouse.playbook.tasks import State, TaskFailed, TaskResult


class PlayStatus(Protocol):
    """What the status of an object needs to have: a frozen msgspec Struct with these fields."""

    @property
    def observed_generation(self) -> int:
        """The generation that the status describes."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions, Ready among them."""


# The condition that the engine keeps.
READY = "Ready"

S = TypeVar("S", bound=PlayStatus)
S_co = TypeVar("S_co", bound=PlayStatus, covariant=True)
R = TypeVar("R")


class PlayObject(Protocol[S_co]):
    """What a playbook needs of an object: its metadata and status."""

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata."""

    @property
    def status(self) -> S_co:
        """The object's status; one with nothing in it when the object has none."""


T = TypeVar("T", bound=PlayObject[Any])


class PlayEvent(NamedTuple):
    """An Event that a task wants to be recorded."""

    type: EventType
    reason: str
    note: str
    action: str


class Play(Generic[T, S]):
    """One run over one object. An operator subclasses it to hold what its tasks find out.

    Attributes:
        object: The object, frozen; what own writes return replaces it.
        status: The status to be, frozen: `play.status = replace(play.status, ...)`. The engine adds Ready and
            observedGeneration and writes it once, at the end, if it differs.
        check: Nothing may be changed: tell what would be.
        deleting: The object is being deleted: this is its cleanup.
        settled: The last play of the present spec ended with Ready (observedGeneration does not say that:
            it grows with a play that failed, too.)
        log: Its lines name the object.
        ready: Whether the condition Ready is True when no task fails.
        ready_reason: Its reason then.
        ready_message: Its message then.
        results: How the tasks so far ended, the present one last.
        after: Seconds until the object is looked at again, if a task asked for it.
        events: What is to be recorded at the end.
    """

    def __init__(self, object: T, *, check: bool = False) -> None:  # noqa: A002 - the attribute's name
        self.object = object
        self.status: S = object.status
        self.check = check
        self.deleting = object.metadata.deletion_timestamp is not None
        self.settled = any(
            condition.type == READY
            and condition.status == "True"
            and condition.observed_generation == object.metadata.generation
            for condition in object.status.conditions
        )
        self.log = logging.getLogger(type(self).__module__)
        self.ready = True
        self.ready_reason = "Reconciled"
        self.ready_message = "Everything is as the spec asks."
        self.results: list[TaskResult] = []
        self.after: float | None = None
        self.events: list[PlayEvent] = []

    async def call(self, what: str, effect: Callable[[], Awaitable[R]], *, diff: str = "") -> R | None:
        """Changes something outside, and records the task as changed. In check mode it is not made.

        Args:
            what: What it does, in words: "book 2 seats".
            effect: Does it; may raise TaskFailed.
            diff: What becomes different, "seats: 2 -> 3".

        Returns:
            What the effect returns; None in check mode.
        """
        result = None if self.check else await effect()
        self.changed(what, diff=diff)
        return result

    def changed(self, message: str = "", *, diff: str = "") -> None:
        """Records that the present task changed something (in check mode: would have)."""
        self._note(State.CHANGED, message)
        self.results[-1].diff.append(diff or message)

    def ok(self, message: str = "") -> None:
        """Says something about the present task, which found all as it should be."""
        self._note(self.results[-1].state, message)

    def skip(self, message: str = "") -> None:
        """Records that the present task does not concern this object now."""
        self._note(State.SKIPPED, message)

    def requeue_after(self, seconds: float) -> None:
        """Asks for another play in so many seconds; of several wishes the earliest counts."""
        self.after = seconds if self.after is None else min(self.after, seconds)

    def event(self, type: EventType, reason: str, note: str) -> None:  # noqa: A002 - the API's word
        """Records an Event for an administrator's timeline. Routine success needs none.

        Args:
            type: Normal or Warning.
            reason: Why, for machines: CamelCase.
            note: What happened, for people.
        """
        self.events.append(PlayEvent(type, reason, note, self.results[-1].task if self.results else "play"))

    def failed(self, failure: TaskFailed) -> None:
        """Told when a task failed, before the status is written: a subclass sets its phase here."""

    def _note(self, state: State, message: str) -> None:
        result = self.results[-1]
        result.state = state
        if message:
            result.message = f"{result.message}; {message}" if result.message else message
