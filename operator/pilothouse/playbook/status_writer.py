"""Writes the status of the objects of a kind through the subresource `status`, only where it differs."""

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

# When an object whose CRD has no status subresource is reconciled again, seconds: no watch shows when it has.
MISSING_STATUS_SECONDS = 30.0


class NoStatusSubresource(SyncError):
    """The CRD of the kind has no status subresource, so no status can be written."""

    def __init__(self, resource: Resource[Any]) -> None:
        super().__init__(
            f"the CRD {resource} has no status subresource. Apply the CRD of this operator's release",
            retry_after=MISSING_STATUS_SECONDS,
        )


class StatusWriter(Generic[T]):
    """Writes statuses, each onto the very version of the object that it was decided on.

    Attributes:
        enabled: Whether statuses are written at all. If not, every write is silently left out: the status
            belongs to another controller, or the kind has none.

    Args:
        api: Reaches the API server.
        resource: The kind.
        wrote: Takes what a write returned.
        enabled: See the attribute.
    """

    def __init__(self, api: Api, resource: Resource[T], wrote: Callable[[T], None], *, enabled: bool) -> None:
        self.enabled = enabled
        self._api = api
        self._resource = resource
        self._raw = unstructured(resource)
        self._wrote = wrote
        # The types of the conditions that this process has written.
        self._own_types: set[str] = set()
        # The statuses whose writes have not been answered yet.
        self._unanswered: dict[ObjectKey, PlayStatus] = {}

    def unanswered(self, key: ObjectKey) -> PlayStatus | None:
        """Returns the status whose write is not answered yet; the watch may show it before the answer."""
        return self._unanswered.get(key)

    def patch(self, obj: T, status: PlayStatus) -> dict[str, object]:
        """Returns the fields of the status that `write` would change."""
        return merge_patch(_status(obj), status) if self.enabled else {}

    async def write(self, obj: T, status: PlayStatus) -> T:
        """Writes a status where it differs; returns the object as written, or the same one.

        Raises:
            Conflict: The object changed since it was read.
            NoStatusSubresource: The kind has none.
            KubeError: The API server cannot be reached or refused the write.
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
            # A sync that swallows its cancellation may be writing, too.
            self._unanswered.pop(key, None)
        self._wrote(written)
        return written

    async def record(self, obj: T, status: PlayStatus) -> T:
        """Writes a status that must be stored when this returns; returns the object as written.

        Raises:
            Conflict: The object changed since it was read, or is gone.
            NoStatusSubresource, KubeError: As for `write`.
        """
        written = await self.write(obj, status)
        if written is obj and self.patch(obj, status):
            raise Conflict(409, "Conflict", f"{self._resource.kind} {obj.metadata.key} has been deleted")
        return written

    async def write_failure(self, obj: T, failure: TaskFailed) -> T:
        """Writes Ready=False into the status as it is stored; returns the object as written, or the same one.

        What the tasks made of the status may be the very reason why it cannot be written.

        Raises:
            Conflict, NoStatusSubresource, KubeError: As for `write`.
        """
        if not self.enabled:
            return obj
        ready = Aspect(READY, False, failure.reason, failure.message)
        generation = obj.metadata.generation
        status = with_conditions(_status(obj), generation, [ready], observed_generation=generation)
        return await self.write(obj, status)

    async def mark_undecodable(self, metadata: ObjectMeta, failure: TaskFailed) -> None:
        """Writes Ready=False onto an object that does not fit the view; the rest of its status stays.

        Raises:
            Undecodable: Its conditions are not a list of conditions.
            Conflict, NoStatusSubresource, KubeError: As for `write`.
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
        """The conditions to write: a merge patch replaces the whole list.

        A condition of another controller may have fields that the view does not, so it is written as stored.
        That takes a read; the types that this process has written before need none.
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
            raise Conflict(409, "Conflict", f"the object has been deleted: {gone}") from gone
        if live.content["metadata"].get("resourceVersion") != obj.metadata.resource_version:
            raise Conflict(409, "Conflict", f"{self._resource.kind} {obj.metadata.key} has changed")
        raw = {each["type"]: each for each in live.content["status"]["conditions"]}
        return [each if each["type"] in changed else raw.get(each["type"], each) for each in found]

    async def exists(self, key: ObjectKey) -> bool:
        """Returns whether the object exists: a 404 may also mean that something else is missing.

        Raises:
            KubeError: The API server cannot be reached or refused the read.
        """
        try:
            await self._api.get(self._raw, key)
        except NotFound:
            return False
        return True

    async def _require_subresource(self, key: ObjectKey) -> None:
        """Raises NoStatusSubresource if a status was not found although the object exists."""
        if not await self.exists(key):
            log.debug("its status was not written: the object is gone")
            return
        raise NoStatusSubresource(self._resource)


def _status(obj: Any) -> PlayStatus:
    """The status as stored. Only writers of the status ask, and their views have one."""
    status: PlayStatus = obj.status
    return status


def _with_ready(
    resource: Resource[Any], live: Unstructured, failure: TaskFailed
) -> list[Mapping[str, Any]] | None:
    """The conditions of an object as JSON has them, with Ready=False; None when they are so already."""
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
