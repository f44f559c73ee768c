"""What outlives the process that plays an object: which plans are under way, and since when tasks wait.

Both are annotations of the object: any kind has them, they need no field in a schema, and they are written
with the resourceVersion that was read.
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

# The name of an annotation, after its prefix, has 63 characters at most.
NAME_LENGTH = 63
DIGEST_BYTES = 8

Annotate: TypeAlias = Callable[[Any, Mapping[str, str | None]], Awaitable[Any]]
"""Sets annotations of an object, or removes those that are None, and returns the object as stored."""


class Waits(msgspec.Struct, frozen=True):
    """Since when the tasks of an object wait.

    Attributes:
        generation: The generation of the object's spec. Another one starts all times again.
        since: The times, in RFC 3339, by task and by what it waits for.
    """

    generation: int = 0
    since: dict[str, str] = {}


class Records:
    """The records of one play.

    A play that cannot write them (check mode, a test without an engine) keeps them in memory.

    Attributes:
        plans_over: The plans, by name, that this play has finished or that are not due.

    Args:
        owner: The operator and, where it has several watches of the kind, the watch.
        annotate: Writes annotations; None: nothing is written.
    """

    def __init__(self, owner: str = "", annotate: Annotate | None = None) -> None:
        self._owner = owner
        self._annotate = annotate
        # What this play has recorded: in check mode no annotation shows it.
        self._plans: dict[str, str] = {}
        # The waits of this play with a limit.
        self._since: dict[str, str] = {}
        self._passed_over: set[str] = set()
        self.plans_over: set[str] = set()

    # Plans.

    def finished(self, play: "Play[Any, Any]", plan: Plan[Any]) -> bool:
        """Whether a plan with `on_change` has finished with the present values and is not under way."""
        return self._state(play, plan) == _target(play, plan)

    async def begin(self, play: "Play[Any, Any]", plan: Plan[Any]) -> str:
        """Records that a plan is under way, unless that is recorded already.

        Returns:
            What `finish` needs; empty for a plan without `on_change`, of which nothing is recorded.

        Raises:
            Conflict: The object changed meanwhile: play again.
            KubeError: The API server cannot be reached or refused the write.
        """
        if plan.on_change is None:
            return ""
        target = _target(play, plan)
        if self._state(play, plan) != IN_PROGRESS:
            await self._record(play, plan, IN_PROGRESS)
        return target

    def pass_over(self, plan: Plan[Any]) -> None:
        """Notes that a plan is not due, so that its tasks wait no longer."""
        self.plans_over.add(plan.name)
        self._passed_over.update(task.name for task in tasks_of(plan.tasks))

    async def finish(self, play: "Play[Any, Any]", plan: Plan[Any], target: str) -> None:
        """Records that a plan has finished with the values that it began with.

        Raises:
            Conflict: The object changed meanwhile: play again.
            KubeError: The API server cannot be reached or refused the write.
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
        """Returns when a task began to wait for something, which is now unless it is recorded."""
        key = f"{_digest(task)}.{_digest(metadata.uid, what)}"
        latest = now()
        try:
            since = min(datetime.fromisoformat(self._recorded(metadata).since[key]), latest)
        except (KeyError, TypeError, ValueError):
            since = latest
        self._since[key] = since.isoformat()
        return since

    async def save_waits(self, play: "Play[Any, Any]", *, ended: bool) -> None:
        """Records the waits of this play, and drops those that are over.

        A task that did not run, or failed before it came to its wait, goes on waiting since the same time.

        Args:
            play: The play.
            ended: Whether all steps of the play have reached their end, so that nothing waits any longer.

        Raises:
            Conflict: The object changed meanwhile: play again.
            KubeError: The API server cannot be reached or refused the write.
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
        """The recorded waits; none for another generation, or if a user has changed the annotation."""
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
    """Returns the seconds since a time, at least 0: another machine's clock may have set it."""
    return max(0.0, (now() - since).total_seconds())


def _target(play: "Play[Any, Any]", plan: Plan[Any]) -> str:
    """A digest of the values that a plan is to finish with, and of the object: a copy of it starts again."""
    values = plan.on_change(play) if plan.on_change is not None else None
    return _digest(play.object.metadata.uid, msgspec.json.encode(values, order="deterministic"))


def _annotation_name(text: str) -> str:
    """A name for an annotation; different texts have different names."""
    name = re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if name == text and len(name) <= NAME_LENGTH:
        return name
    digest = _digest(text)
    return f"{name[: NAME_LENGTH - len(digest) - 1]}-{digest}".lstrip("-")


def _digest(*parts: str | bytes) -> str:
    whole = b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)
    return hashlib.blake2b(whole, digest_size=DIGEST_BYTES).hexdigest()
