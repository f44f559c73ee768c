"""The objects of a kind in the model, and their history, which watches receive."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilothouse.kube import EventType, Expired, ObjectKey, Resource
from pilothouse.testing.apply import Ownership
from pilothouse.testing.documents import Json

#: How many changes of a kind are kept for watches. etcd keeps those of the last 5 minutes.
HISTORY = 20_000


class Change(NamedTuple):
    """A change in the history: its version and type, and the object after and before it."""

    version: int
    type: EventType
    object: Json
    before: Json | None


@dataclass(eq=False)
class Collection:
    """All objects of a kind.

    Attributes:
        resource: The kind.
        objects: The stored objects.
        owners: The owners of their fields.
        history: The changes, oldest first.
        made: How many objects have been created, per key.
        oldest: The version after which the history is complete.
    """

    resource: Resource[Any]
    objects: dict[ObjectKey, Json] = field(default_factory=dict)
    owners: dict[ObjectKey, Ownership] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    made: Counter[ObjectKey] = field(default_factory=Counter)
    oldest: int = 0

    def since(self, version: int) -> list[Change]:
        """Returns the changes after a version, oldest first."""
        return self.history[bisect_right(self.history, version, key=lambda change: change.version) :]

    def require_remembered(self, version: int) -> None:
        """Raises Expired if the history does not reach back to a version."""
        if version < self.oldest:
            raise Expired(410, "Expired", f"too old resource version: {version} ({self.oldest})")

    def note(self, change: Change) -> None:
        """Adds a change to the history, and drops the oldest ones if there are too many."""
        self.history.append(change)
        if len(self.history) > 2 * HISTORY:
            self.oldest = self.history[HISTORY - 1].version
            del self.history[:HISTORY]

    def forget(self, version: int) -> None:
        """Drops the whole history up to the given version, which must be the current one."""
        self.history.clear()
        self.oldest = version
