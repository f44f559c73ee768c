"""The objects of a kind as the model keeps them, and their past, which watches are told."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilothouse.kube import EventType, Expired, ObjectKey, Resource
from pilothouse.testing.apply import Ownership
from pilothouse.testing.documents import Json

#: How many changes of a kind are remembered for watches. etcd remembers those of 5 minutes.
HISTORY = 20_000


class Change(NamedTuple):
    """A line of a watch, as it is remembered: the object after the change, and before it."""

    version: int
    type: EventType
    object: Json
    before: Json | None


@dataclass(eq=False)
class Collection:
    """All objects of a kind.

    Attributes:
        resource: the kind.
        objects: the objects as stored.
        owners: who manages their fields.
        history: their changes, in order.
        made: how many objects of a name there have been.
        oldest: the version after which the history is known.
    """

    resource: Resource[Any]
    objects: dict[ObjectKey, Json] = field(default_factory=dict)
    owners: dict[ObjectKey, Ownership] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    made: Counter[ObjectKey] = field(default_factory=Counter)
    oldest: int = 0

    def since(self, version: int) -> list[Change]:
        """The changes after a version, in order."""
        return self.history[bisect_right(self.history, version, key=lambda change: change.version) :]

    def require_remembered(self, version: int) -> None:
        """Raise Expired when the past that begins with a version is not known any more."""
        if version < self.oldest:
            raise Expired(410, "Expired", f"too old resource version: {version} ({self.oldest})")

    def note(self, change: Change) -> None:
        """Remember a change, and forget the oldest ones when there are too many."""
        self.history.append(change)
        if len(self.history) > 2 * HISTORY:
            self.oldest = self.history[HISTORY - 1].version
            del self.history[:HISTORY]

    def forget(self, version: int) -> None:
        """Forget all changes up to a version, the present one."""
        self.history.clear()
        self.oldest = version
