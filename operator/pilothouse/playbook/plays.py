"""Creates and runs the play of each reconcile, with what the object's last reconcile in this process left."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from pilothouse.kube import KubeObject, ObjectKey, ObjectMeta, Resource, hide_contents, holds_secrets
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.ends import failed
from pilothouse.playbook.in_place import Contents
from pilothouse.playbook.plan_annotations import PlanAnnotations
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.records import Annotate, Records
from pilothouse.playbook.tasks import Task, TaskFailed, unexpected

T = TypeVar("T", bound=KubeObject)


class Plays(Generic[T]):
    """Creates and runs the plays of one kind.

    Args:
        resource: The kind.
        playbook: The playbook.
        cluster: What the modules use.
        owner: The name of this operator, and of this watch if it has several of the kind, in annotations.
        annotate: The function that writes annotations.
        record: The function that writes a status during a reconcile.
        warn: The function that records an Event about a failure outside of the tasks.
        writes_status: Whether the operator writes the status of the objects.
    """

    def __init__(
        self,
        resource: Resource[T],
        playbook: Playbook[Any],
        cluster: Cluster,
        owner: str,
        *,
        annotate: Annotate,
        record: Callable[[Any, Any], Awaitable[Any]],
        warn: Callable[[ObjectMeta, TaskFailed], None],
        writes_status: bool,
    ) -> None:
        self._resource = resource
        self._holds_secrets = holds_secrets(resource)
        self._playbook = playbook
        self._cluster = cluster
        self._owner = owner
        self._plan_annotations = PlanAnnotations(owner, playbook.plan_names)
        self._annotate = annotate
        self._record = record
        self._warn = warn
        self._writes_status = writes_status
        # The handlers that were notified in an object's last reconcile and have not run, with its UID.
        self._notified: dict[ObjectKey, tuple[str, set[Task[Any]]]] = {}
        # For kinds without a status: the states that were reconciled.
        self._settled: dict[ObjectKey, tuple[str, str]] = {}

    def create(self, obj: T, *, check: bool) -> Play[T, Any]:
        """Returns the play of an object.

        Args:
            obj: The object.
            check: Whether it is a play in check mode.
        """
        if self._holds_secrets:
            hide_contents(self._resource, obj)
        enabled = self._writes_status
        play: Play[T, Any] = self._playbook.play(
            obj,
            check=check,
            cluster=self._cluster,
            records=Records(self._owner, None if check else self._annotate, self._plan_annotations),
            writes_status=enabled,
            settled=None if enabled else self._settled.get(obj.metadata.key) == _state(obj),
            status_writer=self._record,
            warning_recorder=self._warn,
        )
        return play

    async def run(self, play: Play[T, Any]) -> Recap:
        """Runs the playbook, including handlers that were notified earlier and have not run.

        It fails if a task has changed a mapping or a list of the object in place. The change is undone.

        Raises:
            Conflict: An object has changed since it was read. Reconcile again.
            SyncError: Another error that concerns the whole reconcile, such as a lost Lease.
        """
        contents = Contents(play.object)
        try:
            run = self._run_with_handlers if self._playbook.handlers else self._playbook.run
            recap = await run(play)
        finally:
            changed = contents.restore()
        if not changed:
            return recap
        return recap._replace(ends=recap.ends.then(failed(_changed_in_place(changed))))

    async def _run_with_handlers(self, play: Play[T, Any]) -> Recap:
        metadata = play.object.metadata
        uid, handlers = self._notified.pop(metadata.key, ("", set()))
        if uid == metadata.uid:
            play.notified |= handlers
        try:
            return await self._playbook.run(play)
        finally:
            if play.notified:
                self._notified[metadata.key] = metadata.uid, play.notified

    def due(self, key: ObjectKey) -> Sequence[str]:
        """Returns the names of the handlers that were notified in the last reconcile and have not run."""
        _, pending = self._notified.get(key, ("", set()))
        return [handler.name for handler in self._playbook.handlers if handler in pending]

    def note_settled(self, play: Play[T, Any], *, settled: bool) -> None:
        """Records whether an object without a status of ours was reconciled in its current state."""
        key = play.object.metadata.key
        if settled:
            self._settled[key] = _state(play.object)
        else:
            self._settled.pop(key, None)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._notified.pop(key, None)
        self._settled.pop(key, None)


def _changed_in_place(path: str) -> TaskFailed:
    name = path.rpartition(".")[2]
    fix = f"Apply a copy of the object's {name}, or patch the object."
    if path.startswith("status."):
        fix = (
            f"Write play.status = replace(play.status, {name}=...) with a copy, such as "
            f"{{**play.status.{name}, key: value}}."
        )
    what = f"A task changed play.object.{path} in place, so it would not be stored. {fix}"
    return unexpected("play", PlaybookError(what))


def _state(obj: KubeObject) -> tuple[str, str]:
    """Returns an object's UID and generation; for kinds without a generation, its resourceVersion."""
    metadata = obj.metadata
    return metadata.uid, str(metadata.generation) if metadata.generation else metadata.resource_version
