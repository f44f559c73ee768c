"""Records that outlive the process: which plans are in progress, and since when tasks wait.

Both are stored in annotations of the object. Every kind has annotations, they need no field in a schema, and
they are written with the resourceVersion that was read.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from pilothouse.controller.before_change import nothing_before_changes
from pilothouse.kube import Conflict, NotFound, ObjectMeta
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.groups import Plan, tasks_of
from pilothouse.playbook.plan_annotations import (
    NAME_LENGTH,
    PlanAnnotations,
    begun,
    short_digest,
    shortened,
)
from pilothouse.playbook.tasks import State, TaskResult
from pilothouse.telemetry import now

if TYPE_CHECKING:
    from pilothouse.playbook.play import Play

WAIT_PREFIX = "wait.pilothouse.dev/"

Annotate: TypeAlias = Callable[[Any, Mapping[str, str | None]], Awaitable[Any]]
"""A function that sets annotations, or removes those that are None, and returns the stored object."""

NO_PLANS = PlanAnnotations()


class Waits(msgspec.Struct, frozen=True):
    """The times since when the tasks of an object wait.

    Attributes:
        generation: The generation of the object. If it changes, all waits start again.
        since: The times in RFC 3339, by a digest of the task and one of the call that waits.
    """

    generation: int = 0
    since: dict[str, str] = {}


class Records:
    """The records of one reconcile.

    In check mode, and in a test without an engine, they are not written but kept in memory.

    Attributes:
        plans_reached: The names of the plans whose turn came in this reconcile, whether they were due or not.
        plans_over: The names of the plans that this reconcile has finished or that are not due.
        plans_finished: The names of the plans that this reconcile has finished.

    Args:
        owner: The name of the operator, and of the watch if the operator has several watches of the kind.
        annotate: The function that writes annotations; None: nothing is written.
        annotations: The annotations of the playbook's plans.
    """

    def __init__(
        self, owner: str = "", annotate: Annotate | None = None, annotations: PlanAnnotations = NO_PLANS
    ) -> None:
        self._owner = owner
        self._annotate = annotate
        self._annotations = annotations
        # The states that this reconcile has recorded or will record, by annotation. Empty: none.
        self._plans: dict[str, str] = {}
        # The waits of this reconcile that have a time limit.
        self._since: dict[str, str] = {}
        # The waits that have ended.
        self._ended: set[str] = set()
        # The number of such calls so far, by the run of a task and by call.
        self._calls: dict[tuple[int, str], int] = {}
        self._passed_over: set[str] = set()
        self.plans_reached: set[str] = set()
        self.plans_over: set[str] = set()
        self.plans_finished: set[str] = set()

    # Plans.

    def in_progress(self, play: "Play[Any, Any]", plan: Plan[Any]) -> bool:
        """Returns whether a plan has begun and not finished, in this reconcile or an earlier one."""
        return self._state(play, plan) == begun(play.object.metadata)

    def finished(self, play: "Play[Any, Any]", plan: Plan[Any]) -> bool:
        """Returns whether a plan with `on_change` has finished with the current values."""
        return self._state(play, plan) == _target(play, plan)

    def unfinished(self, play: "Play[Any, Any]", plan: Plan[Any]) -> bool:
        """Returns whether a routine wait must not leave Ready=True because of a plan.

        A plan with `on_change` has not finished with the current values. A plan with only `when` has begun,
        and this reconcile has not reached it: a routine wait inside the plan leaves Ready to its author.
        """
        if plan.on_change is None:
            return self.in_progress(play, plan) and plan.name not in self.plans_reached
        return not self.finished(play, plan)

    def target(self, play: "Play[Any, Any]", plan: Plan[Any]) -> str:
        """Returns the state of a plan that has finished with the current values, for `finish`.

        It is a digest of the values, or empty for a plan without `on_change`.
        """
        return _target(play, plan) if plan.on_change is not None else ""

    async def begin(self, play: "Play[Any, Any]", plan: Plan[Any]) -> None:
        """Records that a plan is in progress, unless that is recorded already.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        if self.in_progress(play, plan):
            return
        async with play.writing:
            if self.in_progress(play, plan):
                return  # A parallel task has recorded it.
            name, state = self._annotations.name(plan.name), begun(play.object.metadata)
            await self._write(play, {name: state})
            self._plans[name] = state

    def pass_over(self, plan: Plan[Any]) -> None:
        """Notes that a plan is not due, so that the waits of its tasks are dropped."""
        self.plans_over.add(plan.name)
        self._passed_over.update(task.name for task in tasks_of(plan.tasks))

    def finish(self, play: "Play[Any, Any]", plan: Plan[Any], target: str) -> None:
        """Notes that a plan has finished. `save_plans` records it, once the status is stored.

        Args:
            play: The play.
            plan: The plan.
            target: What `target` returned before the first task of the plan.
        """
        self.plans_over.add(plan.name)
        self.plans_finished.add(plan.name)
        if self._state(play, plan) != target:
            self._plans[self._annotations.name(plan.name)] = target

    def has_plans(self, metadata: ObjectMeta) -> bool:
        """Returns whether `save_plans` may have something to write."""
        return bool(self._plans or metadata.annotations)

    async def save_plans(self, play: "Play[Any, Any]") -> None:
        """Records the plans that have finished, and drops begun plans that the playbook no longer has.

        Call it after the status is stored. If a process is killed in between, the next one runs a finished
        plan again. In the other order, it would skip the plan and lose what its tasks set in the status.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        metadata = play.object.metadata
        changed: dict[str, str | None] = {
            name: state or None
            for name, state in self._plans.items()
            if metadata.annotations.get(name, "") != state
        }
        changed.update((name, None) for name in self._annotations.retired(metadata))
        if changed:
            async with play.writing:
                await self._write(play, changed)

    def _state(self, play: "Play[Any, Any]", plan: Plan[Any]) -> str:
        name = self._annotations.name(plan.name)
        state = self._plans.get(name)
        return play.object.metadata.annotations.get(name, "") if state is None else state

    # Waits.

    def number_of_call(self, result: TaskResult, call: str) -> int:
        """Returns how often the running task has made a call in this reconcile, including this time."""
        number = self._calls[id(result), call] = self._calls.get((id(result), call), 0) + 1
        return number

    def waiting_since(self, metadata: ObjectMeta, task: str, call: str) -> datetime:
        """Returns the time when a call in a task began to wait: now, unless a time is recorded."""
        key = _wait_key(metadata, task, call)
        latest = now()
        try:
            since = min(datetime.fromisoformat(self._recorded(metadata).since[key]), latest)
        except (KeyError, TypeError, ValueError):
            since = latest
        self._since[key] = since.isoformat()
        return since

    def end_wait(self, metadata: ObjectMeta, task: str, call: str) -> None:
        """Notes that a call no longer waits, so that its next wait starts again."""
        self._ended.add(_wait_key(metadata, task, call))

    def has_waits(self, metadata: ObjectMeta) -> bool:
        """Returns whether `save_waits` may have something to write."""
        annotations = metadata.annotations
        return bool(self._since) or bool(annotations and self._wait_annotation in annotations)

    async def save_waits(self, play: "Play[Any, Any]", *, ended: bool) -> None:
        """Records the waits of this reconcile, and drops those that have ended.

        The recorded times of a task that did not run, or failed before its waits, are kept.

        Args:
            play: The play.
            ended: Whether all tasks have succeeded, so that nothing waits.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        metadata = play.object.metadata
        if not self.has_waits(metadata):
            return
        name = self._wait_annotation
        over = {result.task for result in play.results if result.state is not State.FAILED}
        over_digests = {short_digest(task) for task in over | self._passed_over}
        kept = {
            key: since
            for key, since in self._recorded(metadata).since.items()
            if not ended and key not in self._ended and key.partition(".")[0] not in over_digests
        }
        since = {**kept, **self._since}
        value = msgspec.json.encode(Waits(metadata.generation, since)).decode() if since else None
        if metadata.annotations.get(name) != value:
            async with play.writing:
                await self._write(play, {name: value})

    @property
    def _wait_annotation(self) -> str:
        return WAIT_PREFIX + shortened(self._owner or "operator", NAME_LENGTH)

    def _recorded(self, metadata: ObjectMeta) -> Waits:
        """Returns the recorded waits; empty for another generation, or if the annotation is not valid."""
        name = self._wait_annotation
        try:
            waits = msgspec.json.decode(metadata.annotations.get(name, "{}"), type=Waits)
        except msgspec.MsgspecError:
            return Waits()
        return waits if waits.generation == metadata.generation else Waits()

    async def _write(self, play: "Play[Any, Any]", annotations: Mapping[str, str | None]) -> None:
        """Writes annotations. The caller holds the lock `play.writing`."""
        if self._annotate is None or play.check:
            return
        with nothing_before_changes():
            try:
                play.object = await self._annotate(play.object, annotations)
            except NotFound as gone:
                raise Conflict(409, "Conflict", f"the object has been deleted: {gone}") from gone


def elapsed(since: datetime) -> float:
    """Returns the seconds since a time; at least 0, because the clock of another machine may have set it."""
    return max(0.0, (now() - since).total_seconds())


def _wait_key(metadata: ObjectMeta, task: str, call: str) -> str:
    """Returns the key of a wait: a digest of the task, and one of the call in this object."""
    return f"{short_digest(task)}.{short_digest(metadata.uid, call)}"


def _target(play: "Play[Any, Any]", plan: Plan[Any]) -> str:
    """Returns a digest of the plan's values and the object's UID, so that a copy starts again."""
    values = plan.on_change(play) if plan.on_change is not None else None
    try:
        encoded = msgspec.json.encode(values, order="deterministic")
    except (TypeError, ValueError, OverflowError) as error:
        raise PlaybookError(
            f"`on_change` of the plan {plan.name!r} returned a value that JSON cannot express ({error}). "
            "Return fields of the spec, such as play.object.spec.version."
        ) from None
    return short_digest(play.object.metadata.uid, encoded)
