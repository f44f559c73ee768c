"""The play: one reconcile of one object, as the Python object that its tasks use."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, Generic, NamedTuple, TypeVar, cast

from msgspec import Struct

from pilothouse.controller import EventType, Fence
from pilothouse.controller.before_change import run_before_change
from pilothouse.kube import Condition, KubeObject, ObjectMeta, Resource, hide_contents, holds_secrets
from pilothouse.playbook.arguments import (
    REASON_LENGTH,
    require_condition_type,
    require_event_reason,
    require_flags,
    require_reason,
    require_resource,
    require_text,
    shown,
)
from pilothouse.playbook.awaited import (
    PlaybookError,
    awaited,
    awaited_result,
    require_function,
    require_truth,
    running_calls,
)
from pilothouse.playbook.cluster import OWNER, Cluster
from pilothouse.playbook.contention import CONTENDED, Contended
from pilothouse.playbook.modules import FALLBACK, ObjectModules, ending, refusals
from pilothouse.playbook.ownership import refers_to_owner
from pilothouse.playbook.records import Records
from pilothouse.playbook.status import READY, STATUS, Aspect, checked_status, not_stored
from pilothouse.playbook.status_writer import NoStatusSubresource
from pilothouse.playbook.tasks import (
    RESULT,
    State,
    Task,
    TaskFailed,
    TaskResult,
    Waiting,
    in_task,
    refused,
    status_not_stored,
)
from pilothouse.playbook.tasks import seconds as in_seconds
from pilothouse.telemetry import hide

S = TypeVar("S")
K = TypeVar("K", bound=KubeObject)
R = TypeVar("R")
T = TypeVar("T", bound=KubeObject)

# The plan that the running task is in; empty outside a plan.
PLAN: ContextVar[str] = ContextVar("pilothouse_plan", default="")

OPEN = Fence()

_EVENT_TYPES = frozenset(EventType)


class _NoStatus(Struct, frozen=True):
    """The status of a kind without a status."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


NO_STATUS: Any = _NoStatus()


class PlayEvent(NamedTuple):
    """An Event that the engine records after the last task."""

    type: EventType
    reason: str
    note: str
    action: str


@awaited
class Play(ObjectModules[T], Generic[T, S]):
    """One reconcile of one object. Subclass it to share state between the tasks of a playbook.

    ::

        class TicketPlay(Play[Ticket, TicketStatus]):
            def __init__(self, object, *, airline: Airline, **engine):
                super().__init__(object, **engine)
                self.airline = airline

    Tasks use the methods of the play, called modules, to read and change the cluster. A module that fails
    raises TaskFailed, also if the API server refuses its request. A task may catch it with
    `except TaskFailed` (Ansible's rescue) and clean up in `finally` (Ansible's always). Do not catch
    `Waiting`, which ends the reconcile without a failure, nor `Conflict`, after which the engine reconciles
    the object again: a task that catches a wait fails unless it calls `requeue_after`, and a conflict that a
    task catches is raised again when it ends. In check mode the modules change nothing, in `except` and
    `finally` blocks either.

    Attributes:
        object: The object, frozen. The operator's own writes replace it by the stored object.
        check: Whether this is check mode: change nothing, and report what would change.
        deleting: Whether the object is being deleted, so that the cleanup runs.
        writes_status: Whether the operator writes the status of the object; see `Watch`. A subclass passes
            False to `Play.__init__` for an object that it leaves to another operator.
        settled: Whether the last reconcile of the current spec ended with Ready. observedGeneration does not
            show this, because a failed reconcile sets it, too. If the operator writes no status, only the
            process that reconciled the object knows it.
        log: A logger whose lines name the object.
        results: The results of the tasks that have run so far.
        after: Seconds until the object is reconciled again; None if no task called `requeue_after`.
        pending_events: The Events that the engine records after the last task.
        pending_conditions: The conditions besides Ready that the engine writes with the status.
        notified: The handlers that run at the end.
        records: The plans in progress, and the times when tasks began to wait.
        fence: Stops changes of outside systems once this process may have lost its Lease.
        writing: The lock for writes of the object itself, so that the tasks of a parallel group do not write
            from the same resourceVersion.

    Args:
        object: The object.
        check: Whether this is check mode.
        writes_status: Whether the operator writes the status of the object.
        settled: The attribute of this name. None: it is derived from the condition Ready.
        cluster: The cluster that the modules use. The engine passes it.
        records: The attribute of this name. The engine passes it. A subclass with parameters of its own
            passes all others on to `Play`, as in the example.
        status_writer: The function that writes a status, for `record`. The engine passes it.
        warning_recorder: The function that records an Event about a failure outside of the tasks. The engine
            passes it.
    """

    log = logging.getLogger(__name__)

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
        status_writer: Callable[[Any, Any], Awaitable[Any]] | None = None,
        warning_recorder: Callable[[ObjectMeta, TaskFailed], None] | None = None,
    ) -> None:
        if not (isinstance(check, bool) and isinstance(writes_status, bool)):
            require_flags("Play", check=check, writes_status=writes_status)
        if settled is not None:
            require_flags("Play", settled=settled)
        self._cluster = cluster
        self.fence = cluster.fence if cluster is not None else OPEN
        self.object = object
        self.writes_status = writes_status
        self._status: S = getattr(object, "status", NO_STATUS)
        self.check = check
        metadata = object.metadata
        self.deleting = metadata.deletion_timestamp is not None
        self.settled = _is_ready(self._status, metadata.generation) if settled is None else settled
        self._ready: bool | None = True
        # None: a task has not set it.
        self._ready_reason: str | None = None
        self._ready_message: str | None = None
        if self.deleting:
            self._ready = False
            self._ready_reason = "Deleting"
            self._ready_message = "The object is being deleted."
        self.writing = asyncio.Lock()
        self.results: list[TaskResult] = []
        self.after: float | None = None
        self.pending_events: list[PlayEvent] = []
        self.pending_conditions: list[Aspect] = []
        self.notified: set[Task[Any]] = set()
        self.records = records or Records()
        self._status_writer = status_writer
        self._warning_recorder = warning_recorder

    @property
    def status(self) -> S:
        """The status to write, frozen. To change it: `play.status = replace(play.status, ...)`.

        The engine adds the conditions and observedGeneration. It writes the status once, at the end of the
        reconcile, if it differs from the stored one. If the operator writes no status for this kind, this is
        the stored status, or an empty one, and cannot be set.

        Raises:
            PlaybookError: A task sets it to something else than the status of the kind, or a field of it to
                a value of another type.
            TaskFailed: NoStatus: A task sets it, and the operator writes no status for this kind.
        """
        return self._status

    @status.setter
    def status(self, status: S) -> None:
        self._require_status("play.status")
        self._status = checked_status(status, self._status, self.object)

    @property
    def ready(self) -> bool | None:
        """The condition Ready if no task fails or waits; None means Unknown. A task may set it.

        It is True, except for an object that is being deleted: other finalizers may keep it for some time,
        and its status is still read.

        Raises:
            PlaybookError: A task sets it to something else than True, False or None.
        """
        return self._ready

    @ready.setter
    def ready(self, ready: bool | None) -> None:
        if not (ready is None or isinstance(ready, bool)):
            raise PlaybookError(f"play.ready is {shown(ready)}, but must be True, False, or None for Unknown")
        self._ready = ready

    @property
    def ready_reason(self) -> str:
        """The reason of the condition Ready if no task fails or waits, in CamelCase. A task may set it.

        Raises:
            PlaybookError: A task sets it to something else than a word in CamelCase.
        """
        if self._ready_reason is None:
            return "Reconciled" if self._ready else "NotReady"
        return self._ready_reason

    @ready_reason.setter
    def ready_reason(self, reason: str) -> None:
        require_reason(reason, "play.ready_reason", REASON_LENGTH)
        self._ready_reason = reason

    @property
    def ready_message(self) -> str:
        """The message of the condition Ready if no task fails or waits. A task may set it.

        Raises:
            PlaybookError: A task sets it to something else than text.
        """
        if self._ready_message is None:
            if self._ready:
                return "The object matches its spec."
            return f"A task has set Ready to {STATUS[self._ready]} without a message."
        return self._ready_message

    @ready_message.setter
    def ready_message(self, message: str) -> None:
        require_text(message, "play.ready_message")
        self._ready_message = message

    @property
    def cluster(self) -> Cluster:
        """The cluster that the modules use.

        Raises:
            RuntimeError: The play was created without a cluster, as in a test of a single task.
        """
        if self._cluster is None:
            raise RuntimeError(
                f"{type(self).__name__} was created without a cluster, so its modules cannot be used. Pass "
                "the keyword arguments of the engine on to Play.__init__."
            )
        return self._cluster

    @property
    def has_cluster(self) -> bool:
        """Whether the play has a cluster. A test of a single task may create it without one."""
        return self._cluster is not None

    @property
    def plan(self) -> str:
        """The name of the plan of the running task, or an empty string.

        In `failed` and `waits`: the plan in which the reconcile ended.
        """
        return PLAN.get()

    # What a task reports.

    @property
    def task_result(self) -> TaskResult:
        """The result of the running task.

        Raises:
            LookupError: No task is running.
        """
        return RESULT.get()

    def changed(self, message: str = "", *, diff: str = "") -> None:
        """Reports that the running task changed something, or in check mode that it would have.

        Modules report their changes themselves.

        Args:
            message: What the task did, for people: "book 2 seats".
            diff: What is different now: "seats: 2 -> 3". Default: the message.
        """
        require_text(message, "play.changed: the message")
        require_text(diff, "play.changed: the diff")
        RESULT.get().changed(message, (diff or message,))

    def ok(self, message: str = "") -> None:
        """Adds a message to the result of the running task, without reporting a change.

        Args:
            message: What the task found, for people.
        """
        require_text(message, "play.ok: the message")
        result = RESULT.get()
        result.note(result.state, message)

    def skip(self, message: str = "") -> None:
        """Reports that the running task does not apply to the object at present.

        Args:
            message: Why, for people.
        """
        require_text(message, "play.skip: the message")
        RESULT.get().note(State.SKIPPED, message)

    def requeue_after(self, seconds: float) -> None:
        """Requeues the object. If it is called several times, the shortest time counts.

        Args:
            seconds: The time until the next reconcile, at least 0.1 s: a shorter one is raised to that, and
                the first time it is logged. 0: with back-off, as after a failure.
        """
        requested = in_seconds(seconds, "requeue_after")
        if calls := running_calls():
            calls.requeued()
        self.after = requested if self.after is None else min(self.after, requested)

    def condition(self, type: str, status: bool | None, reason: str, message: str = "") -> None:  # noqa: A002
        """Sets a condition of the object. Its other conditions are kept.

        The condition Ready is set by the attributes `ready`, `ready_reason` and `ready_message` instead.

        Args:
            type: The type of the condition, in CamelCase.
            status: The status: True, False, or None for Unknown.
            reason: The reason for machines, in CamelCase.
            message: The reason for people, as a sentence.

        Raises:
            PlaybookError: The type is Ready, or an argument is not valid for the API server.
            TaskFailed: NoStatus: The operator writes no status for this kind.
        """
        if type == READY:
            raise PlaybookError(
                "play.condition cannot set Ready, which reports how the reconcile ended: set play.ready, "
                "play.ready_reason and play.ready_message"
            )
        require_condition_type(type, "play.condition")
        what = f"play.condition({type!r})"
        if not (status is None or isinstance(status, bool)):
            raise PlaybookError(
                f"{what}: the status is {shown(status)}, but must be True, False, or None for Unknown"
            )
        require_reason(reason, what, REASON_LENGTH)
        require_text(message, f"{what}: the message")
        self._require_status("play.condition")
        self.pending_conditions.append(Aspect(type, status, reason, message))

    def event(self, type: EventType, reason: str, note: str) -> None:  # noqa: A002 - the API's word
        """Records an Event about the object, for what an administrator should see. Not for routine success.

        An equal Event within 6 minutes only increases the count of the first one. For each type and reason,
        an object may have 25 different Events, and then one every 5 minutes. Others are dropped.

        Args:
            type: Normal or Warning.
            reason: The reason for machines, in CamelCase. An operator that replaces another one may keep its
                reasons in Title Case, such as "New Member Added".
            note: What happened, for people.

        Raises:
            PlaybookError: The type is another one, the reason is neither in CamelCase nor in Title Case or
                has more than 128 characters, or the note is not text.
        """
        if type not in _EVENT_TYPES:
            raise PlaybookError(
                f"play.event: the type is {shown(type)}, but must be EventType.NORMAL or EventType.WARNING"
            )
        require_event_reason(reason, "play.event")
        require_text(note, "play.event: the note")
        result = RESULT.get(None)
        self.pending_events.append(
            PlayEvent(EventType(type), reason, note, result.task if result else "play")
        )

    # Modules. Those that change objects of the cluster are in ObjectModules.

    async def call(self, what: str, effect: Callable[[], Awaitable[R]], *, diff: str = "") -> R | None:
        """Changes a system outside the cluster, and reports the task as changed.

        In check mode the effect is not called.

        Args:
            what: What the effect does, in words: "book 2 seats".
            effect: The function that makes the change. It may raise TaskFailed. Run blocking code in a thread
                that the operator keeps track of: `lambda: play.fence.in_thread(function, ...)`. A thread
                cannot be cancelled, so give the code a timeout of its own.
            diff: What changes: "seats: 2 -> 3".

        Returns:
            What the effect returned; None in check mode.

        Raises:
            PlaybookError: The effect is not a function that returns an awaitable, or an argument is not text.
            Fenced: This process may have lost its Lease, so it must not change anything.
        """
        require_text(what, "play.call: what the effect does")
        require_text(diff, "play.call: the diff")
        call = f"play.call({what!r}, ...)"
        require_function(effect, call)
        result = None if self.check else await self.fence.guard(lambda: awaited_result(effect, call))
        self.changed(what, diff=diff)
        return result

    async def record(self, status: S | None = None) -> None:
        """Writes the status now, during the reconcile: for a claim that must be stored before an effect.

        When it returns, the API server has stored the status, and `play.object` and `play.status` are the
        stored ones. If the process is killed afterwards, the next reconcile reads the recorded status. The
        conditions and observedGeneration are written at the end of the reconcile, as usual. In check mode
        nothing is written, and `play.status` is the given status.

        Args:
            status: The status to write; None: `play.status`. If the write fails, `play.status` is restored.

        Raises:
            TaskFailed: StatusNotStored: The API server dropped a field. NoStatus: The operator writes no
                status for this kind. KubernetesRefused: The API server refused the write or is unreachable.
            Conflict: The object was changed or deleted. Do not catch it: the engine reconciles again.
            Fenced: This process may have lost its Lease, so it must not change anything.
        """
        self._require_status("The status")
        earlier = self.status
        if status is not None:
            self.status = status
        if self.check:
            return
        if self._status_writer is None:
            raise RuntimeError(
                f"{type(self).__name__} was created without an engine, which writes the status. Run the task "
                "in an operator on pilothouse.testing.ModelApi, or in check mode."
            )
        written: Any = self.status
        try:
            # Before the lock, which the record of a begun plan takes, too.
            await run_before_change()
            async with self.writing:
                written, before = self.status, self.object
                with refusals():
                    stored = await self._stored(before, written)
                self.object = stored
                # Otherwise a parallel task has changed the status during the write, and will write it.
                if self.status is written:
                    self.status = stored.status
        except BaseException:
            # A status that may not be stored must not be written at the end of the reconcile.
            if self.status is written:
                self.status = earlier
            raise
        if dropped := not_stored(cast("Any", before).status, written, stored.status):
            raise status_not_stored(dropped)

    async def _stored(self, obj: T, status: S) -> Any:
        """Writes a status, and returns the object as written.

        Raises:
            TaskFailed: KubernetesRefused: The kind has no status subresource.
        """
        try:
            return await cast("Any", self._status_writer)(obj, status)
        except NoStatusSubresource as error:
            # As a SyncError, it would end the reconcile without a report on the object.
            raise refused(in_task(RESULT.get().task), error) from error

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
        """Ends the reconcile, without a failure, unless a condition is True.

        The wait occupies no worker. The object is reconciled again when an object that it owns changes, or
        another watched object that is mapped to it.

        With `within`, a wait that lasts longer fails. The limit belongs to this call in the code of the task:
        another text, such as "2 of 3 members are ready", does not reset it. If a task makes the call several
        times, as in a loop, the first one has a limit, the second one has another, and so on. The start is
        stored in an annotation of the object, so a restart of the operator does not reset it. The time starts
        again when the condition has been True, when the spec or the task's name changes, or when a release
        changes the function that makes the call. After the failure the operator keeps checking, with
        back-off, and recovers when the condition becomes True.

        With `ready=True` the wait is routine: a cool-down, or the next step of a schedule. The reconcile ends
        here, and Ready is set as if it had reached its end. Ready is nevertheless False until each plan with
        `on_change` has finished, while a begun plan comes after the wait, and if another task fails or waits.

        Args:
            what: What the task waits for, in words: "the Deployment is rolled out".
            condition: Whether that is the case: True or False. A text, a list or a function is a mistake,
                because it is true whatever it holds.
            reason: The reason of the condition Ready during the wait, in CamelCase.
            fallback: Seconds until the condition is checked again in any case, at least 0.1.
            within: Seconds that the wait may last; None: no limit.
            ready: Whether the wait is routine and does not affect Ready.

        Raises:
            PlaybookError: The condition is a text, a container, an iterator, a function or a coroutine, the
                reason is not in CamelCase, or another argument has the wrong type.
            Waiting: The condition is False.
            TaskFailed: WaitTimedOut: The condition has been False for longer than `within`.
        """
        require_text(what, "play.wait_for: what the task waits for")
        require_flags("play.wait_for", ready=ready)
        limit = None
        if within is not None:
            from pilothouse.playbook.time_limits import calling_code

            limit = self._limit(within, calling_code())
        if require_truth(condition, "the condition of play.wait_for"):
            if limit:
                limit.end()
            return
        wait = Waiting(reason, f"Waiting until {what}.", fallback=fallback, ready=ready)
        raise ending(limit.of(wait, what) if limit else wait)

    # These read from the stores of the watch, without a request.

    def get(self, resource: Resource[K], name: str, *, namespace: str = "") -> K | None:
        """Returns an object from the store, without a request.

        The store may lag behind the API server by a moment, and has only the objects that the watch selects
        in the watched namespaces; `read` asks the API server.

        Args:
            resource: The kind, which the watch declares.
            name: The name of the object.
            namespace: The namespace of the object. Default: that of the play's object.

        Returns:
            The object as last seen; None if it does not exist.

        Raises:
            TaskFailed: Undecodable: The object exists but does not match the view.
        """
        key = self._key(resource, name, namespace, "get")
        self.cluster.require_readable(resource, lambda misfit: misfit.key == key)
        found = self.cluster.store(resource).get(key)
        if found is not None:
            hide_contents(resource, found)
        return found

    def owned(self, resource: Resource[K]) -> Sequence[K]:
        """Returns the objects of a kind that belong to the play's object, without a request.

        These are the objects that it controls, and those that outlive it (`apply` with `owned=False`).

        Args:
            resource: The kind, which the watch declares.

        Returns:
            The objects as last seen, in the order in which the store received them.

        Raises:
            TaskFailed: Undecodable: One of the objects does not match the view.
        """
        require_resource(resource, "play.owned")
        return self.list(resource, OWNER, self.object.metadata.uid)

    def list(self, resource: Resource[K], index: str, value: str) -> Sequence[K]:
        """Returns the objects of a kind that have a value in an index, without a request.

        Args:
            resource: The kind, which the watch declares.
            index: The name of one of the indexes that the watch declares for the kind.
            value: The value.

        Returns:
            The objects as last seen, in the order in which the store received them.

        Raises:
            PlaybookError: The watch does not declare the kind, or no index of that name for it.
            TaskFailed: Undecodable: An object of the kind does not match the view. It may be in any
                namespace, because its values in the index are unknown. IndexFailed: The index function failed
                for an object of the kind, so its values are unknown, too.
        """
        require_resource(resource, "play.list")
        self.cluster.require_readable(
            resource, lambda misfit: index != OWNER or refers_to_owner(misfit, value)
        )
        found = self.cluster.by_index(resource, index, value)
        if holds_secrets(resource):
            for each in found:
                hide_contents(resource, each)
        return found

    def hide(self, *values: str | bytes) -> None:
        """Hides secret values in every error, log line, condition, Event and diff of this play.

        The values of Secrets that the play applies or reads are hidden without this call. Use it for values
        from elsewhere, such as a password in a file. A value shorter than 3 characters is hidden only in
        quotes.

        Args:
            *values: The values.

        Raises:
            PlaybookError: A value is neither text nor bytes.
        """
        for value in values:
            if not isinstance(value, str | bytes):
                raise PlaybookError(f"play.hide: a value is {shown(value)}, but must be text or bytes")
        hide(lambda: values)

    def refused_late(self, sentence: str) -> None:
        """Reports a call of a module that was refused because its task had ended, or outside of a task.

        Args:
            sentence: What was refused, why, and what to do.
        """
        self.log.error("%s", sentence)
        if self._warning_recorder is not None:
            self._warning_recorder(self.object.metadata, TaskFailed("UnexpectedError", sentence))

    def _report(self, contended: Contended) -> None:
        """Reports a fight with another client. The reconcile continues."""
        self.requeue_after(contended.pause)
        if not self.deleting:
            self.ready, self.ready_reason, self.ready_message = False, CONTENDED, contended.message
        if contended.report:
            self.event(EventType.WARNING, CONTENDED, contended.message)
            self.log.warning(contended.message)

    # Hooks for subclasses.

    def failed(self, failure: TaskFailed) -> None:
        """Called when a task has failed, before the status is written. Override it to set a phase.

        Args:
            failure: The failure that ended the reconcile.
        """

    def waits(self, waiting: Waiting) -> None:
        """Called when a task waits, before the status is written. Override it to set a phase.

        Args:
            waiting: The wait that ended the reconcile.
        """

    def paused(self) -> None:
        """Called when the object is paused, before the status is written. Override it to set a phase."""

    def _require_status(self, what: str) -> None:
        if not self.writes_status:
            raise TaskFailed(
                "NoStatus",
                f"{what} cannot be set: the operator writes no status for this kind, because the status "
                "belongs to another controller or does not exist. Use play.event. If the status is the "
                "operator's own, declare a Kind, or Watch(..., writes_status=True).",
                permanent=True,
            )


def _is_ready(status: Any, generation: int) -> bool:
    for condition in getattr(status, "conditions", ()):
        if condition.type == READY:
            return bool(condition.status == "True" and condition.observed_generation == generation)
    return False
