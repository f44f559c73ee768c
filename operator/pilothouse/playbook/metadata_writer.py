"""Writes the engine's part of an object's metadata: its finalizer and its annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from pilothouse.kube import Api, Conflict, KubeError, KubeObject, NotFound, ObjectKey, PatchType, Resource
from pilothouse.playbook.finalizers import Finalizers
from pilothouse.playbook.status_writer import StatusWriter
from pilothouse.playbook.trouble import FINALIZER_NOT_REMOVED, FINALIZER_NOT_STORED, Trouble

T = TypeVar("T", bound=KubeObject)


class MetadataWriter(Generic[T]):
    """Writes finalizers and annotations. A write carries the resourceVersion of the object that was read.

    Args:
        api: The client of the API server.
        resource: The kind.
        finalizers: The finalizers of the playbook.
        wrote: Called with the object that a write returned.
        statuses: Finds out whether an object exists.
        trouble: Reports a refusal.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource[T],
        finalizers: Finalizers,
        wrote: Callable[[T], None],
        statuses: StatusWriter[T],
        trouble: Trouble[T],
    ) -> None:
        self._api = api
        self._resource = resource
        self._finalizers = finalizers
        self._wrote = wrote
        self._statuses = statuses
        self._trouble = trouble
        # The annotations that are being written.
        self._unanswered: dict[ObjectKey, Mapping[str, str]] = {}

    def unanswered(self, key: ObjectKey) -> Mapping[str, str] | None:
        """Returns the annotations being written: the watch may show them before the response arrives."""
        return self._unanswered.get(key)

    async def annotate(self, obj: T, annotations: Mapping[str, str | None]) -> T:
        """Sets annotations, removes those with the value None, and returns the object as written.

        Raises:
            Conflict: The object has changed since it was read.
            KubeError: The API server cannot be reached, or it refused the write.
        """
        key, metadata = obj.metadata.key, obj.metadata
        merged = {**metadata.annotations, **annotations}
        self._unanswered[key] = {name: value for name, value in merged.items() if value is not None}
        body = {"metadata": {"resourceVersion": metadata.resource_version, "annotations": annotations}}
        try:
            written = await self._api.patch(self._resource, key, body, type=PatchType.MERGE)
        finally:
            self._unanswered.pop(key, None)
        self._wrote(written)
        return written

    async def store_finalizer(self, obj: T) -> T | None:
        """Stores the finalizer and removes retired ones in one write.

        Returns:
            The object as written; None if it no longer exists.

        Raises:
            Conflict: The object has changed since it was read.
            KubeError: The API server cannot be reached, or it refused the write.
            SyncError: The API server refused the write, which is reported on the object.
        """
        metadata = obj.metadata
        finalizers = self._finalizers.stored(metadata.finalizers)
        if metadata.deletion_timestamp is not None or finalizers == metadata.finalizers:
            return obj
        what = f"No task runs, because the finalizer {self._finalizers} cannot be stored"
        return await self._write_finalizers(obj, finalizers, FINALIZER_NOT_STORED, what)

    async def remove_finalizer(self, obj: T) -> T | None:
        """Removes the finalizer and retired ones from an object after its cleanup.

        Returns:
            The object as written; None if it no longer exists.

        Raises:
            Conflict: See `store_finalizer`.
            KubeError: See `store_finalizer`.
            SyncError: See `store_finalizer`.
        """
        others = self._finalizers.released(obj.metadata.finalizers)
        what = f"The cleanup is done, but the finalizer {self._finalizers} cannot be removed"
        return await self._write_finalizers(obj, others, FINALIZER_NOT_REMOVED, what)

    async def _write_finalizers(
        self, obj: T, finalizers: Sequence[str], reason: str, sentence: str
    ) -> T | None:
        """Writes the finalizers, and reports a refusal.

        Returns:
            The object as written; None if it no longer exists.
        """
        key = obj.metadata.key
        metadata = {"resourceVersion": obj.metadata.resource_version, "finalizers": finalizers}
        try:
            written = await self._api.patch(self._resource, key, {"metadata": metadata}, type=PatchType.MERGE)
        except Conflict:
            raise
        except KubeError as error:
            if isinstance(error, NotFound) and not await self._statuses.exists(key):
                return None
            raise await self._trouble.refused(obj, reason, sentence, error) from error
        self._wrote(written)
        return written
