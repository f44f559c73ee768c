"""Finds what an operator leaves behind when the objects that it watches are deleted."""

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
    """The scenario itself is wrong. The cause is the error to show to its author."""


class Leftovers:
    """Finds what an operator leaves behind when all objects of the kinds that it watches are deleted.

    Attributes:
        watched: The watched kinds.

    Args:
        scenario: The scenario.
        api: The model with the objects.
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
        """Records what exists outside before the user and the operator do anything."""
        self._at_first = self._outside()

    def note_user(self, changes: Sequence[tuple[Collection, Change]]) -> None:
        """Records which objects the user has created."""
        self._users |= {change.object["metadata"]["uid"] for _, change in changes if change.before is None}

    def note_outside(self, site: Site) -> None:
        """Records a change outside, and whether `held_outside` shows it."""
        self._calls.append(site.what)
        self._seen = self._seen or self._outside() != self._at_first

    def broken(self, name: str) -> str:
        """Returns a sentence if all watched objects are deleted and something is left; otherwise ''."""
        made = any(self._api.server.collection(kind).made for kind in self.watched)
        if not made or any(map(self._api.all, self.watched)):
            return ""
        objects = self._objects()
        self._checked |= {f"{resource} {key}" for resource, key, _ in objects}
        left, matched = left_objects(objects, self._scenario.retained)
        self._matched |= matched
        if left:
            return (
                f"Step {name!r}: all watched objects are deleted, but objects that the operator created are "
                f"left: {'; '.join(left[:5])}. Let the operator own or delete them, or declare them in "
                "retained of the scenario."
            )
        if outside := differences(self._at_first, self._outside()):
            lines = "\n".join(f"  {line}" for line in outside)
            return (
                f"Step {name!r}: all watched objects are deleted, but something is left outside.\n{lines}\n"
                "Remove it in the cleanup, or override the scenario's held_outside() to leave out what stays "
                "on purpose."
            )
        return self._unseen(name)

    def unused(self) -> str:
        """Returns a sentence if a pattern in `retained` matched no object; otherwise an empty string."""
        return unused_patterns("retained", self._scenario.retained, self._matched, self._checked)

    def _unseen(self, name: str) -> str:
        """Returns a sentence if the operator changed something outside that the scenario does not show."""
        if not self._calls or self._seen or type(self._scenario).held_outside is not Scenario.held_outside:
            return ""
        return (
            f"Step {name!r}: all watched objects are deleted. The operator changed something outside with "
            f"{self._calls[0]}, but state() does not show it, so it is unknown whether something is left. "
            "Add the contents of the outside system to state(), or override held_outside()."
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
