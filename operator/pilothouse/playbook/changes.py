"""Decides which changes of an object cause a reconcile."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from pilothouse.controller import Predicate
from pilothouse.kube import KubeObject, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook.annotations import PAUSED, RECONCILE
from pilothouse.playbook.finalizers import Finalizers
from pilothouse.playbook.metadata_writer import MetadataWriter
from pilothouse.playbook.rivals import StatusRivals
from pilothouse.playbook.status_writer import StatusWriter

T = TypeVar("T", bound=KubeObject)


class Changes(Generic[T]):
    """Decides which changes of the objects of one kind cause a reconcile.

    Args:
        resource: The kind.
        finalizers: The finalizers of the playbook.
        metadata: Writes the annotations.
        statuses: Writes the status.
        rivals: Records which statuses other clients have overwritten.
        meaningful: Selects the changes by other clients, apart from those of the status.
        later: Queues an object after a number of seconds.
    """

    def __init__(
        self,
        resource: Resource[T],
        finalizers: Finalizers,
        metadata: MetadataWriter[T],
        statuses: StatusWriter[T],
        rivals: StatusRivals,
        *,
        meaningful: Predicate[T],
        later: Callable[[ObjectKey, float], None],
    ) -> None:
        self._has_status = "status" in resource.view.__struct_fields__
        self._finalizers = finalizers
        self._metadata = metadata
        self._statuses = statuses
        self._rivals = rivals
        self._meaningful = meaningful
        self._later = later

    def worth_a_play(self, old: T | None, new: T | None) -> bool:
        """Returns whether a change causes a reconcile: the predicate of the controller.

        A status that another client wrote does: if the operator writes the status, it is restored. The watch
        may show a finalizer, annotation or status of our own before the response to the write arrives; that
        does not cause a reconcile.
        """
        if old is None or new is None:
            return True
        if self._has_status and self._status_differs(old, new):
            key = new.metadata.key
            wait = self._rivals.overwritten(key, cast("Any", old).status) if self._statuses.enabled else 0.0
            if not wait:
                return True
            self._later(key, wait)
        # Kinds without metadata.generation, such as ConfigMap, have no spec either.
        if not new.metadata.generation and _content_differs(old, new):
            return True
        own = self._own_changes(old.metadata, new.metadata)
        if not own:
            return self._meaningful(old, new)
        metadata = msgspec.structs.replace(old.metadata, **own)
        return self._meaningful(msgspec.structs.replace(cast("Any", old), metadata=metadata), new)

    def _own_changes(self, old: ObjectMeta, new: ObjectMeta) -> dict[str, Any]:
        """Returns the changed fields of the metadata that have the values that the operator writes."""
        own: dict[str, Any] = {}
        if new.finalizers != old.finalizers and new.finalizers == self._finalizers.stored(old.finalizers):
            own["finalizers"] = new.finalizers
        if new.annotations != old.annotations and new.annotations == self._metadata.unanswered(new.key):
            own["annotations"] = new.annotations
        return own

    def _status_differs(self, old: Any, new: Any) -> bool:
        return new.status not in (old.status, self._statuses.unanswered(new.metadata.key))


def wanted(obj: Any) -> object:
    """Returns what a user changes of an object: its spec, its deletion, and the engine's annotations.

    Kinds without metadata.generation, such as ConfigMap, have no spec either: all their fields count.
    """
    metadata: ObjectMeta = obj.metadata
    content: tuple[object, ...] = ()
    if not metadata.generation:
        content = tuple(getattr(obj, name) for name in _content_fields(obj))
    annotations = [metadata.annotations.get(name) for name in (PAUSED, RECONCILE)]
    return metadata.uid, metadata.generation, metadata.deletion_timestamp, annotations, content


def _content_fields(obj: Any) -> list[str]:
    return [name for name in obj.__struct_fields__ if name not in ("metadata", "status")]


def _content_differs(old: KubeObject, new: KubeObject) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in _content_fields(new))
