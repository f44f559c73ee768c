"""Rivals for a status: another client, or another watch of this process, writes the same fields.

The operator restores its status, the rival sees that and overwrites it again. Without damping, the two would
write as fast as the API server responds. From the third correction on, the operator pauses between
corrections and reports the fight.
"""

import logging
from collections.abc import Collection
from typing import Any

import msgspec

from pilothouse.kube import Api, KubeError, KubeObject, ObjectKey, Resource, Unstructured, unstructured
from pilothouse.playbook.announcer import Announcer
from pilothouse.playbook.contention import Contention
from pilothouse.playbook.status import PlayStatus
from pilothouse.playbook.tasks import TaskFailed

log = logging.getLogger(__name__)

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
        """Forgets that a status was overwritten: it has been restored, or the object no longer exists."""
        self._overwritten.pop(key, None)

    def corrects(self, obj: Any, status: PlayStatus) -> bool:
        """Returns whether a status only restores what another client has overwritten."""
        before = self._overwritten.get(obj.metadata.key)
        if before is None:
            return False
        old, found, new = _content(before), _content(obj.status), _content(status)
        changes = [name for name in found.keys() | new.keys() if found.get(name) != new.get(name)]
        return bool(changes) and all(old.get(name) == new.get(name) for name in changes)

    def postponed(self, key: ObjectKey) -> float:
        """Returns the seconds until a status may be restored; 0 if it may be now."""
        return self._contention.wait(self._aspect, key)

    async def corrected(self, obj: KubeObject, fields: Collection[str]) -> None:
        """Counts a correction, and reports a fight at a bounded rate.

        Args:
            obj: The object as it was overwritten.
            fields: The fields of the status that were restored.
        """
        key = obj.metadata.key
        names = ", ".join(f"status.{name}" for name in sorted(fields))
        self._contention.status_corrected(self._aspect, key, f"{self._resource.kind} {key}", names)
        fight = self._contention.state(self._aspect, key)
        if fight is None or not fight.report:
            return
        message = f"{fight.message} {await self._rivals(key)}"
        log.warning("%s", message)
        self._announcer.warn(obj.metadata, TaskFailed(STATUS_CONTENDED, message))

    async def _rivals(self, key: ObjectKey) -> str:
        """Names the other field managers of a status."""
        try:
            live: Unstructured = await self._api.get(self._raw, key)
        except KubeError as error:
            return f"The other field managers could not be read: {error}."
        entries = live.content.get("metadata", {}).get("managedFields", ())
        names = {each.get("manager", "") for each in entries if each.get("subresource") == "status"}
        rivals = sorted(filter(None, names - {self._manager}))
        if rivals:
            return f"Other field managers of its status: {', '.join(rivals)}."
        return (
            "No other field manager has written the status, so the other client uses the operator's own "
            "name: it is another watch of the kind, or a second installation of the operator."
        )


def _content(status: PlayStatus) -> dict[str, Any]:
    """The fields of a status and its conditions, without their times, which differ after a correction."""
    content: dict[str, Any] = msgspec.to_builtins(status)
    for condition in content.pop("conditions", ()):
        condition.pop("lastTransitionTime", None)
        content[f"conditions.{condition['type']}"] = condition
    return content
