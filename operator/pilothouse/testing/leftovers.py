"""What an operator leaves behind when the objects that it watches are deleted."""

import copy
from collections.abc import Sequence
from typing import Any

from pilothouse.kube import ObjectKey, Resource
from pilothouse.testing.collection import Change, Collection
from pilothouse.testing.differences import differences
from pilothouse.testing.documents import Json
from pilothouse.testing.faults import Site
from pilothouse.testing.laws import EVENTS_AND_LEASES, left_objects, unused_patterns
from pilothouse.testing.model import ModelApi
from pilothouse.testing.scenario import Scenario


class Misuse(Exception):
    """The scenario itself is wrong. The cause is the error that its author gets."""


class Leftovers:
    """What an operator leaves behind when all objects of the kinds that it watches are deleted.

    Attributes:
        watched: The kinds.

    Args:
        scenario: What happens.
        api: Where the objects are.
    """

    def __init__(self, scenario: Scenario, api: ModelApi) -> None:
        self.watched: Sequence[Resource[Any]] = ()
        self._scenario = scenario
        self._api = api
        self._at_first: object = None
        self._users: set[str] = set()
        self._calls: list[str] = []
        self._seen = False
        self._matched: set[str] = set()
        self._checked: set[str] = set()

    def begin(self) -> None:
        """Note what there is before the user and the operator do anything."""
        self._at_first = self._outside()

    def note_user(self, changes: Sequence[tuple[Collection, Change]]) -> None:
        """Note which objects are the user's."""
        self._users |= {change.object["metadata"]["uid"] for _, change in changes if change.before is None}

    def note_outside(self, site: Site) -> None:
        """Note that something changed outside, and whether the scenario shows it."""
        self._calls.append(site.what)
        self._seen = self._seen or self._outside() != self._at_first

    def broken(self, name: str) -> str:
        """Return a sentence if all watched objects are deleted and something is left; else nothing."""
        made = any(self._api.server.collection(kind).made for kind in self.watched)
        if not made or any(map(self._api.all, self.watched)):
            return ""
        objects = self._objects()
        self._checked |= {f"{resource} {key}" for resource, key, _ in objects}
        left, matched = left_objects(objects, self._scenario.retained)
        self._matched |= matched
        if left:
            return (
                f"Step {name!r}: all watched objects are deleted, and objects that the operator made are "
                f"left: {'; '.join(left[:5])}. Let the operator own or delete them, or declare them in the "
                "scenario's retained."
            )
        if outside := differences(self._at_first, self._outside()):
            lines = "\n".join(f"  {line}" for line in outside)
            return (
                f"Step {name!r}: all watched objects are deleted, and something is left outside.\n{lines}\n"
                "Undo it in the cleanup, or override the scenario's held_outside() to leave out what stays "
                "on purpose."
            )
        return self._unseen(name)

    def unused(self) -> str:
        """Return a sentence if the scenario retains something that there never was; else an empty string."""
        return unused_patterns("retained", self._scenario.retained, self._matched, self._checked)

    def _unseen(self, name: str) -> str:
        """Return a sentence if the scenario shows nothing of what the operator changed outside."""
        if not self._calls or self._seen or type(self._scenario).held_outside is not Scenario.held_outside:
            return ""
        return (
            f"Step {name!r}: all watched objects are deleted. The operator changed something outside with "
            f"{self._calls[0]}, but state() shows nothing of it, so it is unknown whether something is left. "
            "Add what the outside system holds to state(), or override held_outside()."
        )

    def _objects(self) -> list[tuple[Resource[Any], ObjectKey, Json]]:
        return [
            (collection.resource, key, obj)
            for collection in self._api.server.collections()
            if str(collection.resource) not in EVENTS_AND_LEASES
            for key, obj in collection.objects.items()
            if obj["metadata"]["uid"] not in self._users
        ]

    def _outside(self) -> object:
        try:
            return copy.deepcopy(self._scenario.held_outside())
        except Exception as error:
            problem = ValueError(
                f"{type(self._scenario).__name__}.held_outside() raised {error!r}. By default it is state() "
                "of an empty API server. Make state() work there, or override held_outside()."
            )
            problem.__cause__ = error
            raise Misuse(str(problem)) from problem
