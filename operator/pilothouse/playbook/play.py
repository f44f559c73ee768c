"""A play: one run of a playbook over one object, and what its tasks use."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar, cast

from msgspec import Struct

from pilothouse.controller import EventType, Fence
from pilothouse.kube import Condition, KubeObject, Resource, hide_contents, holds_secrets
from pilothouse.playbook.awaited import PlaybookError, awaited, require_awaited
from pilothouse.playbook.cluster import OWNER, Cluster
from pilothouse.playbook.contention import CONTENDED, Contended
from pilothouse.playbook.modules import FALLBACK, ObjectModules, refusals
from pilothouse.playbook.records import Records
from pilothouse.playbook.status import READY, Aspect, not_stored
from pilothouse.playbook.tasks import RESULT, State, Task, TaskFailed, TaskResult, Waiting
from pilothouse.playbook.tasks import seconds as in_seconds
from pilothouse.telemetry import hide

S = TypeVar("S")
K = TypeVar("K", bound=KubeObject)
R = TypeVar("R")
T = TypeVar("T", bound=KubeObject)

# The plan that the running task is in; empty outside a plan.
PLAN: ContextVar[str] = ContextVar("pilothouse_plan", default="")

OPEN = Fence()


class _NoStatus(Struct, frozen=True):
    """The status of a kind that has none."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


NO_STATUS: Any = _NoStatus()


class PlayEvent(NamedTuple):
    """An Event that a task wants to be recorded."""

    type: EventType
    reason: str
    note: str
    action: str


@awaited
class Play(ObjectModules[T], Generic[T, S]):
    """One run over one object. An operator subclasses it to hold what its tasks find out.

    A task may catch what a module raises, and clean up after it, as any Python does: `except TaskFailed` is
    Ansible's rescue, `finally` its always. What the API server refuses to a module is a TaskFailed, too. A
    `Waiting` passes through `except TaskFailed`, and so does a Conflict: the object changed meanwhile, and
    the engine plays again. In check mode the modules in them change nothing either.

    Attributes:
        object: The object, frozen; what own writes return replaces it.
        check: Nothing may be changed: tell what would be.
        deleting: The object is being deleted: this is its cleanup.
        writes_status: Whether the status is the operator's to write; see `Watch`.
        settled: The last play of the present spec ended with Ready (observedGeneration does not say that:
            it grows with a play that failed, too.) Where the operator writes no status, only the process that
            played it knows.
        log: Its lines name the object.
        ready: Whether the condition Ready is True when no task fails: it is, but for a deleted object, whose
            status is read where others hold it back.
        ready_reason: Its reason then.
        ready_message: Its message then.
        results: How the tasks so far ended.
        after: Seconds until the object is looked at again, if a task asked for it.
        pending_events: The Events that the engine records after the last task.
        pending_conditions: The conditions besides Ready that the engine writes with the status.
        notified: The handlers to be run at the end.
        records: Which plans are under way, and since when tasks wait.
        fence: Lets changes of outside systems through.
        writing: Held while the object itself is written: tasks of a parallel group must not write from the
            same resourceVersion.
        status_writer: Writes a status onto an object, for `record`; set by the engine.

    Args:
        object: See the attribute.
        check: See the attribute.
        writes_status: See the attribute.
        settled: See the attribute; None: the condition Ready says it.
        cluster: What the modules reach. The engine gives it.
        records: See the attribute. The engine gives it. A subclass with arguments of its own hands on
            what it does not know: `def __init__(self, object, *, airline, **engine)` calls
            `super().__init__(object, **engine)`.
    """

    log = logging.getLogger(__name__)
    status_writer: Callable[[Any, Any], Awaitable[Any]] | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        awaited(cls)
        cls.log = logging.getLogger(cls.__module__)

    def __init__(
        self,
        object: T,  # noqa: A002 - the attribute's name
        *,
        check: bool = False,
        cluster: Cluster | None = None,
        records: Records | None = None,
        writes_status: bool = True,
        settled: bool | None = None,
    ) -> None:
        self._cluster = cluster
        self.fence = cluster.fence if cluster is not None else OPEN
        self.object = object
        self.writes_status = writes_status
        self._status: S = getattr(object, "status", NO_STATUS)
        self.check = check
        metadata = object.metadata
        self.deleting = metadata.deletion_timestamp is not None
        self.settled = _is_ready(self._status, metadata.generation) if settled is None else settled
        self.ready = True
        self.ready_reason = "Reconciled"
        self.ready_message = "Everything is as the spec asks."
        if self.deleting:
            self.ready = False
            self.ready_reason = "Deleting"
            self.ready_message = "It is being deleted."
        self.writing = asyncio.Lock()
        self.results: list[TaskResult] = []
        self.after: float | None = None
        self.pending_events: list[PlayEvent] = []
        self.pending_conditions: list[Aspect] = []
        self.notified: set[Task[Any]] = set()
        self.records = records or Records()

    @property
    def status(self) -> S:
        """The status to be, frozen: `play.status = replace(play.status, ...)`.

        The engine adds conditions and observedGeneration and writes it once, at the end, if it differs. Where
        the operator writes no status, it is the object's own, or one without content, and cannot be set.

        Raises:
            TaskFailed: NoStatus: it was set, and the operator writes no status for this kind.
        """
        return self._status

    @status.setter
    def status(self, status: S) -> None:
        self._require_status("play.status")
        self._status = status

    @property
    def cluster(self) -> Cluster:
        """What the modules reach.

        Raises:
            RuntimeError: The play was made without a cluster, as in a test of a single task.
        """
        if self._cluster is None:
            raise RuntimeError(
                f"this {type(self).__name__} was made without a cluster, so its modules reach nothing; pass "
                "the keyword arguments that the engine gives on to Play.__init__"
            )
        return self._cluster

    @property
    def plan(self) -> str:
        """The plan that the running task is in; in `failed` and `waits` the plan that the play ended in."""
        return PLAN.get()

    # What a task says.

    @property
    def task_result(self) -> TaskResult:
        """The result of the running task. Raises LookupError outside a task."""
        return RESULT.get()

    def changed(self, message: str = "", *, diff: str = "") -> None:
        """Records that the present task changed something (in check mode: would have)."""
        RESULT.get().changed(message, (diff or message,))

    def ok(self, message: str = "") -> None:
        """Says something about the present task, which found all as it should be."""
        result = RESULT.get()
        result.note(result.state, message)

    def skip(self, message: str = "") -> None:
        """Records that the present task does not concern this object now."""
        RESULT.get().note(State.SKIPPED, message)

    def requeue_after(self, seconds: float) -> None:
        """Asks for another play in so many seconds; of several wishes the earliest counts.

        With 0, plays follow each other with growing pauses, as after a failure.
        """
        asked = in_seconds(seconds, "requeue_after")
        self.after = asked if self.after is None else min(self.after, asked)

    def condition(self, type: str, status: bool | None, reason: str, message: str = "") -> None:  # noqa: A002
        """Sets a condition of the object; others stay as they are. `ready` and `ready_reason` set Ready.

        Args:
            type: Which aspect of the object: CamelCase.
            status: Whether it is so; None: it is not known.
            reason: Why, for machines: CamelCase.
            message: Why, for people.
        """
        if type == READY:
            raise PlaybookError("Ready tells how the play ended: set ready, ready_reason and ready_message")
        self._require_status("play.condition")
        self.pending_conditions.append(Aspect(type, status, reason, message))

    def event(self, type: EventType, reason: str, note: str) -> None:  # noqa: A002 - the API's word
        """Records an Event for an administrator's timeline. Routine success needs none.

        Args:
            type: Normal or Warning.
            reason: Why, for machines: CamelCase.
            note: What happened, for people.
        """
        if not (isinstance(reason, str) and reason and isinstance(note, str)):
            raise TypeError(f"an Event has a reason and a note, both text: {reason!r}, {note!r}")
        result = RESULT.get(None)
        self.pending_events.append(
            PlayEvent(EventType(type), reason, note, result.task if result else "play")
        )

    # Modules. Those that change objects of the cluster are in ObjectModules.

    async def call(self, what: str, effect: Callable[[], Awaitable[R]], *, diff: str = "") -> R | None:
        """Changes something outside, and records the task as changed. In check mode it is not made.

        Args:
            what: What it does, in words: "book 2 seats".
            effect: Does it; may raise TaskFailed. What blocks belongs into a thread
                (`lambda: play.fence.in_thread(function, ...)`, which is known to run until it ends) and needs
                a time limit of its own: a thread cannot be stopped.
            diff: What becomes different, "seats: 2 -> 3".

        Returns:
            What the effect returns; None in check mode.

        Raises:
            Fenced: Another process may lead by now: nothing may be changed.
        """
        result = None if self.check else await self.fence.guard(effect)
        self.changed(what, diff=diff)
        return result

    async def record(self, status: S | None = None) -> None:
        """Writes the status now, in the middle of a play: a durable claim before an outside effect.

        When it returns, the API server has stored the status, and `play.object` and `play.status` are as
        stored. A process that is killed afterwards leaves the record behind for the next play. The conditions
        and observedGeneration of this play are written at its end, as always. In check mode nothing is
        written, and `play.status` is the status that would be.

        Args:
            status: The status to be; None: `play.status` as it is. If the write fails, `play.status` is what
                it was before.

        Raises:
            TaskFailed: StatusNotStored: the server has dropped a field; KubernetesRefused: the API server
                cannot be reached or refused.
            Conflict: The object changed or was deleted meanwhile: leave it to the engine, which plays again.
            Fenced: Another process may lead by now: nothing may be changed.
        """
        self._require_status("the status")
        earlier = self.status
        if status is not None:
            self.status = status
        if self.check:
            return
        if self.status_writer is None:
            raise RuntimeError(
                f"this {type(self).__name__} was made without an engine, which writes statuses: run the task "
                "in an operator on pilothouse.testing.ModelApi, or in check mode"
            )
        asked: Any = self.status
        try:
            async with self.writing:
                asked, before = self.status, self.object
                with refusals():
                    stored = await self.status_writer(before, asked)
                self.object = stored
                if self.status is asked:  # Else a parallel task has changed it meanwhile, and will write it.
                    self.status = stored.status
        except BaseException:
            if self.status is asked:  # What is not known to be stored must not be written at the end.
                self.status = earlier
            raise
        if dropped := not_stored(cast("Any", before).status, asked, stored.status):
            raise TaskFailed(
                "StatusNotStored",
                f"The API server did not store status.{', status.'.join(dropped)}. Apply the operator's CRD, "
                "which declares the field.",
            )

    def wait_for(
        self,
        what: str,
        condition: bool,
        *,
        reason: str = "Waiting",
        fallback: float = FALLBACK,
        within: float | None = None,
        ready: bool = False,
    ) -> None:
        """Ends the play, without a failure, unless a condition is True. No worker is occupied meanwhile.

        The watch of what the object owns has it reconciled again when anything changes there.

        With `within`, a wait that lasts longer fails. Its start is stored in an annotation of the object, so
        a restart of the operator does not reset it. It starts again when the spec, `what` or the task's name
        changes. After the failure the operator keeps checking, with back-off, and recovers when the condition
        becomes True.

        With `ready=True` the wait is routine: a cool-down, or the next step of a schedule. The play ends
        here, and Ready is set as if it had reached its end. Ready is nevertheless False until each plan with
        `on_change` has finished, and if another task fails or waits.

        Args:
            what: What is waited for, in words: "the Deployment is rolled out".
            condition: Whether it is so, by what the play has observed.
            reason: For machines: CamelCase; the reason of the condition Ready until then.
            fallback: Seconds until the condition is checked again in any case.
            within: Seconds that the wait may last; None: for ever.
            ready: Whether the wait leaves Ready as if there were none.

        Raises:
            Waiting: The condition is False.
            TaskFailed: WaitTimedOut: the condition has been False for longer than `within`.
        """
        if condition:
            require_awaited(condition, "the condition of play.wait_for")
            return
        wait = Waiting(reason, f"Waiting until {what}.", fallback=fallback, ready=ready)
        raise self._limited(wait, what, within)

    # What is read comes from the stores of what the watch declares: it costs nothing.

    def get(self, resource: Resource[K], name: str, *, namespace: str = "") -> K | None:
        """An object as last seen; None when there is none. Its namespace is the object's own unless given.

        Raises:
            TaskFailed: Undecodable: the object exists and does not fit the view.
        """
        key = self._key(resource, name, namespace)
        self.cluster.require_readable(resource, lambda misfit: misfit.key == key)
        found = self.cluster.store(resource).get(key)
        if found is not None:
            hide_contents(resource, found)
        return found

    def owned(self, resource: Resource[K]) -> Sequence[K]:
        """Return the objects of a kind that belong to the play's object, the longest known first.

        These are the objects that it controls, and those that outlive it (`apply` with `owned=False`).

        Raises:
            TaskFailed: Undecodable: one of them does not fit the view.
        """
        uid = self.object.metadata.uid
        self.cluster.require_readable(
            resource, lambda misfit: any(each.uid == uid for each in misfit.owner_references)
        )
        return self.list(resource, OWNER, uid)

    def list(self, resource: Resource[K], index: str, value: str) -> Sequence[K]:
        """The objects of a kind that have a value in one of the indexes that the watch declares."""
        found = self.cluster.store(resource).by_index(index, value)
        if holds_secrets(resource):
            for each in found:
                hide_contents(resource, each)
        return found

    def hide(self, *values: str | bytes) -> None:
        """Hides secret values in every error, log line, condition, Event and diff of this play.

        The values of Secrets that the play states or reads are hidden without a call. This is for values from
        elsewhere, such as a password in a file. A value shorter than 3 characters is hidden only in quotes.

        Args:
            *values: The values.
        """
        hide(lambda: values)

    def _report(self, contended: Contended) -> None:
        """Makes a fight with another client visible; the play goes on."""
        self.requeue_after(contended.pause)
        if not self.deleting:
            self.ready, self.ready_reason, self.ready_message = False, CONTENDED, contended.message
        if contended.report:
            self.event(EventType.WARNING, CONTENDED, contended.message)
            self.log.warning(contended.message)

    # What a subclass may want to know.

    def failed(self, failure: TaskFailed) -> None:
        """Told when a task failed, before the status is written: a subclass sets its phase here."""

    def waits(self, waiting: Waiting) -> None:
        """Told when a task waits, before the status is written: a subclass sets its phase here."""

    def paused(self) -> None:
        """Told when the object is paused, before the status says so: a subclass sets its phase here."""

    def _require_status(self, what: str) -> None:
        if not self.writes_status:
            raise TaskFailed(
                "NoStatus",
                f"{what} cannot be set: the operator writes no status for this kind, because the status "
                "belongs to another controller or does not exist. Use play.event, or declare "
                "Watch(..., writes_status=True) if the status is the operator's own.",
                permanent=True,
            )


def _is_ready(status: Any, generation: int) -> bool:
    for condition in getattr(status, "conditions", ()):
        if condition.type == READY:
            return bool(condition.status == "True" and condition.observed_generation == generation)
    return False
