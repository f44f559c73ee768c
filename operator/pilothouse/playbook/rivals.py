"""Rivals for a status: another client, or another watch of this process, writes the same fields.

The operator restores its status, the rival sees that and overwrites it again. Without damping, the two would
write as fast as the API server responds. From the third correction on, the operator pauses between
corrections and reports the fight.
"""

import logging
from collections.abc import Collection
from typing import Any, TypeVar, cast

import msgspec

from pilothouse.kube import Api, KubeError, KubeObject, ObjectKey, Resource, Unstructured, unstructured
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.contention import Contention
from pilothouse.playbook.status import PlayStatus
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

S = TypeVar("S", bound=PlayStatus)

STATUS_CONTENDED = "StatusContended"
"""The reason of the Event."""


class StatusRivals:
    """Records which statuses other clients have overwritten, and when they may be restored.

    Args:
        api: Reads the field managers of a status.
        resource: The kind.
        contention: Counts the corrections.
        announcer: Records the Events.
        manager: The operator's own field manager.
    """

    def __init__(
        self, api: Api, resource: Resource[Any], contention: Contention, announcer: Announcer, manager: str
    ) -> None:
        self._api = api
        self._resource = resource
        self._raw = unstructured(resource)
        self._contention = contention
        self._announcer = announcer
        self._manager = manager
        self._aspect = f"{resource}/status"
        # The statuses that other clients have overwritten since the object was last reconciled.
        self._overwritten: dict[ObjectKey, PlayStatus] = {}

    def __len__(self) -> int:
        """The number of statuses that other clients have overwritten."""
        return len(self._overwritten)

    def overwritten(self, key: ObjectKey, status: PlayStatus) -> float:
        """Records that another client has overwritten a status.

        Args:
            key: The object.
            status: The status before it was overwritten.

        Returns:
            The seconds until the status may be restored.
        """
        self._overwritten.setdefault(key, status)
        return self._contention.wait(self._aspect, key)

    def forget(self, key: ObjectKey) -> None:
        """Forgets that a status was overwritten: it has been restored."""
        self._overwritten.pop(key, None)

    def gone(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self.forget(key)
        self._contention.forget(self._aspect, key)

    def contested(self, obj: KubeObject, status: PlayStatus) -> Collection[str]:
        """Returns the parts of a status that another client has changed, and that a write would change back.

        The value to write may differ from the one before the change: a message with a count, for example. The
        first status for a new generation of the object contests nothing.

        Args:
            obj: The object as the other client has changed it.
            status: The status to write.

        Returns:
            The names of fields, and "conditions." with the type for conditions.
        """
        before = self._overwritten.get(obj.metadata.key)
        if before is None or before.observed_generation not in (0, obj.metadata.generation):
            return ()
        old, found, new = _content(before), _content(_status(obj)), _content(status)
        return [
            name
            for name in sorted(found.keys() | new.keys())
            if found.get(name) not in (old.get(name), new.get(name))
        ]

    def postpone(self, obj: KubeObject, status: S, contested: Collection[str]) -> tuple[S, float]:
        """Postpones the contested parts of a status if they must not be restored yet.

        Args:
            obj: The object as the other client has changed it.
            status: The status to write.
            contested: The parts that `contested` has returned.

        Returns:
            The status to write now, and the seconds until the rest may be written. If that is 0, the status
            is the given one.
        """
        key = obj.metadata.key
        wait = self._contention.wait(self._aspect, key) if contested else 0.0
        if not wait:
            return status, 0.0
        self._overwritten[key] = _with_parts(status, self._overwritten[key], contested)
        return _with_parts(status, _status(obj), contested), wait

    async def corrected(self, obj: KubeObject, contested: Collection[str]) -> None:
        """Counts a correction, and reports a fight at a bounded rate.

        Args:
            obj: The object as it was overwritten.
            contested: The parts of the status that were restored.
        """
        key = obj.metadata.key
        self.forget(key)
        fields = {name.partition(".")[0] for name in contested}
        names = ", ".join(f"status.{name}" for name in sorted(fields))
        self._contention.status_corrected(self._aspect, key, f"{self._resource.kind} {key}", names)
        fight = self._contention.state(self._aspect, key)
        if fight is None or not fight.report:
            return
        message = await self._explained(key, fight.message)
        log.warning("%s", message)
        self._announcer.warn(obj.metadata, TaskFailed(STATUS_CONTENDED, message))

    async def _explained(self, key: ObjectKey, fight: str) -> str:
        """Returns a sentence with the other field managers of a status, and what to do about them."""
        stop = "Stop the other client, or let it write other fields and condition types."
        try:
            live: Unstructured = await self._api.get(self._raw, key)
        except KubeError as error:
            return f"Another client {fight} {stop} The other field managers could not be read: {error}."
        entries = live.content.get("metadata", {}).get("managedFields", ())
        names = {each.get("manager", "") for each in entries if each.get("subresource") == "status"}
        rivals = sorted(filter(None, names - {self._manager}))
        if rivals:
            return f"The field manager {', '.join(rivals)} {fight} {stop}"
        return (
            "Another watch or task of this operator, a second installation of it, or a user who edits the "
            f"status {fight} Only the field manager {self._manager} has fields of the status now, so the "
            "other client cannot be named. Let only one of them write the status, and do not edit it."
        )


def _content(status: PlayStatus) -> dict[str, Any]:
    """The fields of a status and its conditions, without their times, which differ after a correction."""
    content: dict[str, Any] = msgspec.to_builtins(status)
    for condition in content.pop("conditions", ()):
        condition.pop("lastTransitionTime", None)
        content[f"conditions.{condition['type']}"] = condition
    return content


def _with_parts(status: S, source: PlayStatus, parts: Collection[str]) -> S:
    """Returns a status with some of its fields and conditions taken from another one."""
    names = {each.encode_name: each.name for each in msgspec.structs.fields(cast("Any", status))}
    changed = {names[part]: getattr(source, names[part]) for part in parts if part in names}
    types = {part.partition(".")[2] for part in parts if part not in names}
    taken = {each.type: each for each in source.conditions if each.type in types}
    # In the same order, so that a status that is equal apart from the parts is not written.
    kept = {each.type: each for each in status.conditions if each.type not in types or each.type in taken}
    parted: S = msgspec.structs.replace(
        cast("Any", status), **changed, conditions=tuple((kept | taken).values())
    )
    return parted


def _status(obj: Any) -> PlayStatus:
    """Returns the stored status. The views of kinds whose status the operator writes have one."""
    status: PlayStatus = obj.status
    return status
