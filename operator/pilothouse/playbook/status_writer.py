"""Writes the status of objects through the subresource `status`, if it differs."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from pilothouse.controller import SyncError
from pilothouse.kube import (
    Api,
    Conflict,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    Undecodable,
    Unstructured,
    unstructured,
)
from pilothouse.playbook.status import (
    READY,
    Aspect,
    PlayStatus,
    condition_of,
    merge_patch,
    with_conditions,
)
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# Delay in seconds before an object is reconciled again whose CRD has no status subresource: no watch shows
# when the CRD changes.
MISSING_STATUS_SECONDS = 30.0


class NoStatusSubresource(SyncError):
    """The status cannot be written, because the CRD of the kind has no status subresource."""

    def __init__(self, resource: Resource[Any]) -> None:
        super().__init__(
            f"the CRD {resource} has no status subresource. Apply the CRD of this operator's release",
            retry_after=MISSING_STATUS_SECONDS,
        )


class StatusWriter(Generic[T]):
    """Writes the status of objects. A write carries the resourceVersion of the object that it is based on.

    Attributes:
        enabled: Whether the operator writes the status. If not, every write does nothing: the status belongs
            to another controller, or the kind has none.

    Args:
        api: The client of the API server.
        resource: The kind.
        wrote: Called with the object that a write returned.
        enabled: Whether the operator writes the status.
    """

    def __init__(self, api: Api, resource: Resource[T], wrote: Callable[[T], None], *, enabled: bool) -> None:
        self.enabled = enabled
        self._api = api
        self._resource = resource
        self._raw = unstructured(resource)
        self._wrote = wrote
        # The types of the conditions that this process has written.
        self._own_types: set[str] = set()
        # The statuses that are being written.
        self._unanswered: dict[ObjectKey, PlayStatus] = {}

    def unanswered(self, key: ObjectKey) -> PlayStatus | None:
        """Returns the status that is being written: the watch may show it before the response arrives."""
        return self._unanswered.get(key)

    def patch(self, obj: T, status: PlayStatus) -> dict[str, object]:
        """Returns the merge patch of the status that `write` would send."""
        return merge_patch(_status(obj), status) if self.enabled else {}

    async def write(self, obj: T, status: PlayStatus) -> T:
        """Writes the status of an object if it differs.

        Args:
            obj: The object as it was read.
            status: The status to write.

        Returns:
            The object as written. It is `obj` itself if nothing was written.

        Raises:
            Conflict: The object has changed since it was read.
            NoStatusSubresource: The kind has no status subresource.
            KubeError: The API server cannot be reached, or it refused the write.
        """
        patch = self.patch(obj, status)
        if not patch:
            return obj
        key = obj.metadata.key
        if "conditions" in patch:
            patch["conditions"] = await self._conditions(obj, status)
        body = {"metadata": {"resourceVersion": obj.metadata.resource_version}, "status": patch}
        self._unanswered[key] = status
        try:
            written = await self._api.patch(
                self._resource, key, body, type=PatchType.MERGE, subresource="status"
            )
        except NotFound:
            await self._require_subresource(key)
            return obj
        finally:
            # A reconcile that swallows its cancellation may be writing at the same time.
            self._unanswered.pop(key, None)
        self._wrote(written)
        return written

    async def record(self, obj: T, status: PlayStatus) -> T:
        """Writes the status of an object, and fails if the object no longer exists.

        Args:
            obj: The object as it was read.
            status: The status to write.

        Returns:
            The object as written.

        Raises:
            Conflict: The object has changed since it was read, or no longer exists.
            NoStatusSubresource: See `write`.
            KubeError: See `write`.
        """
        written = await self.write(obj, status)
        if written is obj and self.patch(obj, status):
            raise Conflict(409, "Conflict", f"{self._resource.kind} {obj.metadata.key} has been deleted")
        return written

    async def write_failure(self, obj: T, failure: TaskFailed) -> T:
        """Writes Ready=False into the stored status.

        It discards the changes that tasks made to the status, because they may be the reason for the failure.

        Args:
            obj: The object as it was read.
            failure: The reason and message of the condition.

        Returns:
            The object as written. It is `obj` itself if nothing was written.

        Raises:
            Conflict: See `write`.
            NoStatusSubresource: See `write`.
            KubeError: See `write`.
        """
        if not self.enabled:
            return obj
        ready = Aspect(READY, False, failure.reason, failure.message)
        generation = obj.metadata.generation
        status = with_conditions(_status(obj), generation, [ready], observed_generation=generation)
        return await self.write(obj, status)

    async def mark_undecodable(self, metadata: ObjectMeta, failure: TaskFailed) -> None:
        """Writes Ready=False on an object that cannot be decoded. The rest of its status is not changed.

        Args:
            metadata: The metadata of the object.
            failure: The reason and message of the condition.

        Raises:
            Undecodable: The field status.conditions is not a list of conditions.
            Conflict: See `write`.
            NoStatusSubresource: See `write`.
            KubeError: See `write`.
        """
        if not self.enabled:
            return
        try:
            live = await self._api.get(self._raw, metadata.key)
        except NotFound:
            return
        if live.content["metadata"].get("uid") != metadata.uid:
            return
        conditions = _with_ready(self._resource, live, failure)
        if conditions is None:
            return
        version = live.content["metadata"]["resourceVersion"]
        body = {"metadata": {"resourceVersion": version}, "status": {"conditions": conditions}}
        try:
            await self._api.patch(self._raw, metadata.key, body, type=PatchType.MERGE, subresource="status")
        except NotFound:
            await self._require_subresource(metadata.key)

    async def _conditions(self, obj: T, status: PlayStatus) -> list[Any]:
        """Returns the list of conditions to write. A merge patch replaces the whole list.

        A condition of another controller may have fields that are not in the view, so the object is read and
        the condition is written as stored. If this process has written all the types before, no read is
        needed.
        """
        stored = {each.type: each for each in _status(obj).conditions}
        changed = {each.type for each in status.conditions if stored.get(each.type) != each}
        self._own_types |= changed
        found: list[Any] = msgspec.to_builtins(status.conditions)
        if all(each.type in self._own_types for each in status.conditions):
            return found
        try:
            live = await self._api.get(self._raw, obj.metadata.key)
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"The object has been deleted: {gone}") from gone
        if live.content["metadata"].get("resourceVersion") != obj.metadata.resource_version:
            raise Conflict(409, "Conflict", f"{self._resource.kind} {obj.metadata.key} has changed")
        raw = {each["type"]: each for each in live.content["status"]["conditions"]}
        return [each if each["type"] in changed else raw.get(each["type"], each) for each in found]

    async def exists(self, key: ObjectKey) -> bool:
        """Returns whether an object exists. A 404 may also mean that its status subresource is missing.

        Raises:
            KubeError: The API server cannot be reached, or it refused the read.
        """
        try:
            await self._api.get(self._raw, key)
        except NotFound:
            return False
        return True

    async def _require_subresource(self, key: ObjectKey) -> None:
        """Raises NoStatusSubresource if the object exists."""
        if not await self.exists(key):
            log.debug("Status not written: the object no longer exists")
            return
        raise NoStatusSubresource(self._resource)


def _status(obj: Any) -> PlayStatus:
    """Returns the stored status. The views of kinds whose status the operator writes have one."""
    status: PlayStatus = obj.status
    return status


def _with_ready(
    resource: Resource[Any], live: Unstructured, failure: TaskFailed
) -> list[Mapping[str, Any]] | None:
    """Returns the conditions of an object as JSON values, with Ready=False; None if that changes nothing."""
    status = live.content.get("status")
    stored = status.get("conditions") if isinstance(status, dict) else None
    stored = [] if stored is None else stored
    if not (isinstance(stored, list) and all(isinstance(each, dict) for each in stored)):
        raise Undecodable(f"status.conditions of {resource} {live.metadata.key} is not a list of conditions")
    generation = live.content["metadata"].get("generation", 0)
    ready: dict[str, Any] = msgspec.to_builtins(
        condition_of(Aspect(READY, False, failure.reason, failure.message), generation)
    )
    for at, each in enumerate(stored):
        if each.get("type") == READY:
            if each.get("status") == ready["status"] and "lastTransitionTime" in each:
                ready["lastTransitionTime"] = each["lastTransitionTime"]
            return None if each == ready else [*stored[:at], ready, *stored[at + 1 :]]
    return [*stored, ready]
