"""Records that outlive the process: which plans are in progress, and since when tasks wait.

Both are stored in annotations of the object. Every kind has annotations, they need no field in a schema, and
they are written with the resourceVersion that was read.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from pilothouse.kube import Conflict, NotFound, ObjectMeta
from pilothouse.playbook.groups import Plan, tasks_of
from pilothouse.playbook.tasks import State
from pilothouse.telemetry import now

if TYPE_CHECKING:
    from pilothouse.playbook.play import Play

PLAN_PREFIX = "plan.pilothouse.dev/"
WAIT_PREFIX = "wait.pilothouse.dev/"

IN_PROGRESS = "InProgress"

# The name of an annotation has at most 63 characters after its prefix.
NAME_LENGTH = 63
DIGEST_BYTES = 8

Annotate: TypeAlias = Callable[[Any, Mapping[str, str | None]], Awaitable[Any]]
"""A function that sets annotations, or removes those that are None, and returns the stored object."""


class Waits(msgspec.Struct, frozen=True):
    """The times since when the tasks of an object wait.

    Attributes:
        generation: The generation of the object. If it changes, all waits start again.
        since: The times in RFC 3339, by a digest of the task and of the text of the wait.
    """

    generation: int = 0
    since: dict[str, str] = {}


class Records:
    """The records of one reconcile.

    In check mode, and in a test without an engine, they are not written but kept in memory.

    Attributes:
        plans_over: The names of the plans that this reconcile has finished or that are not due.

    Args:
        owner: The name of the operator, and of the watch if the operator has several watches of the kind.
        annotate: The function that writes annotations; None: nothing is written.
    """

    def __init__(self, owner: str = "", annotate: Annotate | None = None) -> None:
        self._owner = owner
        self._annotate = annotate
        # The plans that this reconcile has recorded. In check mode the annotations do not have them.
        self._plans: dict[str, str] = {}
        # The waits of this reconcile that have a time limit.
        self._since: dict[str, str] = {}
        self._passed_over: set[str] = set()
        self.plans_over: set[str] = set()

    # Plans.

    def finished(self, play: "Play[Any, Any]", plan: Plan[Any]) -> bool:
        """Returns whether a plan with `on_change` has finished with the current values."""
        return self._state(play, plan) == _target(play, plan)

    async def begin(self, play: "Play[Any, Any]", plan: Plan[Any]) -> str:
        """Records that a plan is in progress, unless that is recorded already.

        Returns:
            The digest to pass to `finish`; empty for a plan without `on_change`, which is not recorded.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        if plan.on_change is None:
            return ""
        target = _target(play, plan)
        if self._state(play, plan) != IN_PROGRESS:
            await self._record(play, plan, IN_PROGRESS)
        return target

    def pass_over(self, plan: Plan[Any]) -> None:
        """Notes that a plan is not due, so that the waits of its tasks are dropped."""
        self.plans_over.add(plan.name)
        self._passed_over.update(task.name for task in tasks_of(plan.tasks))

    async def finish(self, play: "Play[Any, Any]", plan: Plan[Any], target: str) -> None:
        """Records that a plan has finished with the values that it had at its start.

        Args:
            play: The play.
            plan: The plan.
            target: The digest that `begin` returned.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        if target:
            await self._record(play, plan, target)
        self.plans_over.add(plan.name)

    def _state(self, play: "Play[Any, Any]", plan: Plan[Any]) -> str:
        name = self._plan_annotation(plan)
        return self._plans.get(name) or play.object.metadata.annotations.get(name, "")

    async def _record(self, play: "Play[Any, Any]", plan: Plan[Any], state: str) -> None:
        name = self._plan_annotation(plan)
        await self._write(play, {name: state})
        self._plans[name] = state

    def _plan_annotation(self, plan: Plan[Any]) -> str:
        return PLAN_PREFIX + _annotation_name(".".join(filter(None, (self._owner, plan.name))))

    # Waits.

    def waiting_since(self, metadata: ObjectMeta, task: str, what: str) -> datetime:
        """Returns the time when a task began to wait for something: now, unless a time is recorded."""
        key = f"{_digest(task)}.{_digest(metadata.uid, what)}"
        latest = now()
        try:
            since = min(datetime.fromisoformat(self._recorded(metadata).since[key]), latest)
        except (KeyError, TypeError, ValueError):
            since = latest
        self._since[key] = since.isoformat()
        return since

    async def save_waits(self, play: "Play[Any, Any]", *, ended: bool) -> None:
        """Records the waits of this reconcile, and drops those that have ended.

        The recorded time of a task that did not run, or failed before its wait, is kept.

        Args:
            play: The play.
            ended: Whether all tasks have succeeded, so that nothing waits.

        Raises:
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the write or is unreachable.
        """
        metadata = play.object.metadata
        name = WAIT_PREFIX + _annotation_name(self._owner or "operator")
        if not self._since and name not in metadata.annotations:
            return
        over = {result.task for result in play.results if result.state is not State.FAILED}
        over_digests = {_digest(task) for task in over | self._passed_over}
        kept = {
            key: since
            for key, since in self._recorded(metadata).since.items()
            if not ended and key.partition(".")[0] not in over_digests
        }
        since = {**kept, **self._since}
        value = msgspec.json.encode(Waits(metadata.generation, since)).decode() if since else None
        if metadata.annotations.get(name) != value:
            await self._write(play, {name: value})

    def _recorded(self, metadata: ObjectMeta) -> Waits:
        """Returns the recorded waits; empty for another generation, or if the annotation is not valid."""
        name = WAIT_PREFIX + _annotation_name(self._owner or "operator")
        try:
            waits = msgspec.json.decode(metadata.annotations.get(name, "{}"), type=Waits)
        except msgspec.MsgspecError:
            return Waits()
        return waits if waits.generation == metadata.generation else Waits()

    async def _write(self, play: "Play[Any, Any]", annotations: Mapping[str, str | None]) -> None:
        if self._annotate is None or play.check:
            return
        async with play.writing:
            try:
                play.object = await self._annotate(play.object, annotations)
            except NotFound as gone:
                raise Conflict(409, "Conflict", f"the object has been deleted: {gone}") from gone


def elapsed(since: datetime) -> float:
    """Returns the seconds since a time; at least 0, because the clock of another machine may have set it."""
    return max(0.0, (now() - since).total_seconds())


def _target(play: "Play[Any, Any]", plan: Plan[Any]) -> str:
    """Returns a digest of the plan's values and the object's UID, so that a copy starts again."""
    values = plan.on_change(play) if plan.on_change is not None else None
    return _digest(play.object.metadata.uid, msgspec.json.encode(values, order="deterministic"))


def _annotation_name(text: str) -> str:
    """Returns a valid name for an annotation. Different texts have different names."""
    name = re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if name == text and len(name) <= NAME_LENGTH:
        return name
    digest = _digest(text)
    return f"{name[: NAME_LENGTH - len(digest) - 1]}-{digest}".lstrip("-")


def _digest(*parts: str | bytes) -> str:
    whole = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.blake2b(whole, digest_size=DIGEST_BYTES).hexdigest()
