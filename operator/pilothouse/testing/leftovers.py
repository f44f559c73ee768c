"""Finds what an operator leaves behind when the objects that it watches are deleted."""

import copy
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from pilothouse.kube import EventType, ObjectKey, Resource
from pilothouse.playbook import Watch
from pilothouse.playbook.arguments import enumerated
from pilothouse.playbook.ownership import OWNER_UID
from pilothouse.testing.collection import Change
from pilothouse.testing.collection import Collection as Objects
from pilothouse.testing.differences import Fact, differences, facts
from pilothouse.testing.documents import Json
from pilothouse.testing.faults import Site
from pilothouse.testing.laws import EVENTS_AND_LEASES, is_named, left_objects, unused_patterns
from pilothouse.testing.model import ModelApi
from pilothouse.testing.scenario import Scenario

#: How many names a sentence contains.
SHOWN = 5


class Misuse(Exception):
    """The scenario itself is wrong. The cause is the error to show to its author."""


class Watched(NamedTuple):
    """An object of a watched kind, or what is left of it in the history.

    Attributes:
        resource: The kind.
        key: The object's namespace and name.
        object: The object as stored.
    """

    resource: Resource[Any]
    key: ObjectKey
    object: Json

    @property
    def uid(self) -> str:
        """The UID."""
        return str(self.object["metadata"]["uid"])

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.key}"


class Leftovers:
    """Finds what an operator leaves behind when objects of the kinds that it watches are deleted.

    When all of them are deleted, nothing may be left. While others exist, only what carries the UID or the
    name of a deleted object must be gone: everything else may belong to the others.

    Args:
        scenario: The scenario.
        api: The model with the objects.
    """

    def __init__(self, scenario: Scenario, api: ModelApi) -> None:
        self.watched: Sequence[Resource[Any]] = ()
        self._finalizers: set[str] = set()
        self._scenario = scenario
        self._api = api
        self._at_first: object = None
        self._users: set[str] = set()
        # Changes outside: the calls, and whether `held_outside` has shown any of them.
        self._calls: list[str] = []
        self._seen = False
        # What is outside now, and which of that each object's calls have added under the object's name. And
        # the calls that have added nothing with the object's name or UID.
        self._outside_now: set[Fact] = set()
        self._added: defaultdict[str, set[Fact]] = defaultdict(set)
        self._nameless: defaultdict[str, set[str]] = defaultdict(set)
        # The patterns in `retained` that have matched, and the objects that were compared with them.
        self._matched: set[str] = set()
        self._compared: set[str] = set()
        # The steps after which everything was checked, and the deleted objects that were checked one by one.
        self._complete: list[str] = []
        self._single: dict[str, None] = {}

    def watch(self, watches: Sequence[Watch]) -> None:
        """Records the watched kinds and the operator's finalizers."""
        self.watched = [watch.resource for watch in watches]
        for watch in watches:
            finalizers = watch.playbook.finalizers
            self._finalizers |= {finalizers.current, *finalizers.retired} - {""}

    def begin(self) -> None:
        """Records what exists outside before the user and the operator do anything."""
        self._at_first = self._outside()

    def note_user(self, changes: Sequence[tuple[Objects, Change]]) -> None:
        """Records which objects the user has created."""
        self._users |= {change.object["metadata"]["uid"] for _, change in changes if change.before is None}

    def begin_step(self) -> None:
        """Records what exists outside, so that a change by the user does not count as one by the operator."""
        self._outside_now = set(facts(self._outside()))

    def note_outside(self, site: Site) -> None:
        """Records a change outside, and what it has added for the object that is reconciled."""
        self._calls.append(site.what)
        outside = self._outside()
        self._seen = self._seen or outside != self._at_first
        before, self._outside_now = self._outside_now, set(facts(outside))
        new = self._outside_now - before
        name = site.object.rpartition(" ")[2].rpartition("/")[2]
        named = {fact for fact in new if name and is_named(fact.text, name)}
        self._added[site.object] |= named
        uids = {each.uid for each in (*self._existing(), *self._deleted())}
        if not named and not any(uid in fact.text for fact in new for uid in uids):
            self._nameless[site.object].add(site.what)

    # The deletion at the end of a scenario.

    def deletable(self) -> Sequence[Watched]:
        """Returns the watched objects that the user has created and not deleted."""
        return [
            each
            for each in self._existing()
            if each.uid in self._users and "deletionTimestamp" not in each.object["metadata"]
        ]

    def held(self, name: str) -> str:
        """Returns a sentence if a deleted object still has a finalizer of the operator; otherwise ''."""
        for each in self._existing():
            metadata = each.object["metadata"]
            own = sorted(self._finalizers.intersection(metadata.get("finalizers", ())))
            if "deletionTimestamp" in metadata and own:
                return (
                    f"Step {name!r}: {each} is deleted, but the operator never removes its finalizer "
                    f"{own[0]}. Let the cleanup finish, or set delete_at_end = False in the scenario."
                )
        return ""

    # The rules.

    def broken(self, name: str) -> str:
        """Returns a sentence if something is left of the deleted objects; otherwise an empty string."""
        if not (deleted := self._deleted()):
            return ""
        if not self._living():
            return self._broken_by_all(name)
        return next(filter(None, (self._broken_by(name, each) for each in deleted)), "")

    def unused(self) -> str:
        """Returns a sentence if a pattern in `retained` matched no object; otherwise an empty string."""
        return unused_patterns("retained", self._scenario.retained, self._matched, self._compared)

    def report(self) -> Sequence[str]:
        """Returns sentences about what was checked and what was not."""
        lines = []
        if self._complete:
            steps = _listed([repr(each) for each in self._complete])
            lines.append(f"Leftovers: none after {steps}, when all watched objects were deleted.")
        elif self._single:
            lines.append(
                f"Leftovers: nothing carries the UID or the name of {_listed(list(self._single))}, which "
                f"{'was' if len(self._single) == 1 else 'were'} deleted. Not checked: what carries "
                f"neither{self._calls_without_name()}."
            )
        if not lines:
            why = "No step ends after a deletion" if self._deleted() else "The scenario deletes nothing"
            lines.append(f"{why}: effects that outlive an object were not checked.")
        if lasting := [f"{each}{_why_it_lasts(each)}" for each in self._living()]:
            lines.append(
                f"Not checked: what the objects leave behind that still exist at the end: {_listed(lasting)}."
            )
        return lines

    def _broken_by_all(self, name: str) -> str:
        """Checks everything, because all watched objects are deleted."""
        objects = self._objects()
        left = self._left(objects)
        if left:
            return (
                f"Step {name!r}: all watched objects are deleted, but objects that the operator created are "
                f"left: {'; '.join(left[:SHOWN])}. Let the operator own or delete them, or declare them in "
                "retained of the scenario."
            )
        if outside := differences(self._at_first, self._outside()):
            lines = "\n".join(f"  {line}" for line in outside)
            return (
                f"Step {name!r}: all watched objects are deleted, but something is left outside.\n{lines}\n"
                "Remove it in the cleanup, or override the scenario's held_outside() to leave out what stays "
                "on purpose."
            )
        if unseen := self._unseen(name):
            return unseen
        self._complete.append(name)
        return ""

    def _broken_by(self, name: str, deleted: Watched) -> str:
        """Checks what carries the UID or the name of a deleted object, while others exist."""
        objects = [each for each in self._objects() if _carries(each[2], deleted.uid)]
        if left := self._left(objects):
            return (
                f"Step {name!r}: {deleted} is deleted, but objects that carry its UID are left: "
                f"{'; '.join(left[:SHOWN])}. Delete them in the cleanup, or declare them in retained of the "
                "scenario."
            )
        outside = set(facts(self._outside()))
        found = {fact for fact in outside if deleted.uid in fact.text}
        # An object of the same name may use what the deleted one has made.
        if deleted.key.name not in {each.key.name for each in self._living()}:
            found |= outside & self._added[str(deleted)]
        if found:
            return (
                f"Step {name!r}: {deleted} is deleted, but what the operator made for it is left outside: "
                f"{_listed(sorted(map(str, found)))}. Remove it in the cleanup, or override the scenario's "
                "held_outside() to leave out what stays on purpose."
            )
        self._single.setdefault(str(deleted))
        return ""

    def _left(self, objects: Sequence[tuple[Resource[Any], ObjectKey, Json]]) -> Sequence[str]:
        self._compared |= {f"{resource} {key}" for resource, key, _ in objects}
        left, matched = left_objects(objects, self._scenario.retained, self._alive())
        self._matched |= matched
        return left

    def _unseen(self, name: str) -> str:
        """Returns a sentence if the operator changed something outside that the scenario does not show."""
        if not self._calls or self._seen or type(self._scenario).held_outside is not Scenario.held_outside:
            return ""
        return (
            f"Step {name!r}: all watched objects are deleted. The operator changed something outside with "
            f"{self._calls[0]}, but state() does not show it, so it is unknown whether something is left. "
            "Add the contents of the outside system to state(), or override held_outside()."
        )

    def _calls_without_name(self) -> str:
        calls = sorted({call for each in self._single for call in self._nameless[each]})
        return f", such as the effects of {_listed(calls)}" if calls else ""

    # The objects.

    def _existing(self) -> Sequence[Watched]:
        """Returns all objects of the watched kinds."""
        return [
            Watched(resource, key, obj)
            for resource in _distinct(self.watched)
            for key, obj in self._api.server.collection(resource).objects.items()
        ]

    def _living(self) -> Sequence[Watched]:
        """Returns the objects of the watched kinds, without those that the operator has left behind.

        These are the objects of the user, and those whose owner exists.
        """
        alive = self._alive()
        return [each for each in self._existing() if each.uid in self._users or _owned(each.object, alive)]

    def _deleted(self) -> Sequence[Watched]:
        """Returns the objects of the watched kinds that no longer exist."""
        return [
            Watched(resource, _key_of(change.object), change.object)
            for resource in _distinct(self.watched)
            for change in self._api.server.collection(resource).history
            if change.type is EventType.DELETED
        ]

    def _alive(self) -> set[str]:
        """Returns the UIDs of all objects."""
        return {
            obj["metadata"]["uid"]
            for collection in self._api.server.collections()
            for obj in collection.objects.values()
        }

    def _objects(self) -> Sequence[tuple[Resource[Any], ObjectKey, Json]]:
        """Returns the objects that the user has not created."""
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


def _distinct(resources: Sequence[Resource[Any]]) -> Iterator[Resource[Any]]:
    """Yields one resource per kind. Several watches may have the same kind."""
    yield from {str(resource): resource for resource in resources}.values()


def _key_of(obj: Json) -> ObjectKey:
    metadata = obj["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _owned(obj: Json, alive: Collection[str]) -> bool:
    """Returns whether an owner of an object exists."""
    return any(each["uid"] in alive for each in obj["metadata"].get("ownerReferences", ()))


def _carries(obj: Json, uid: str) -> bool:
    """Returns whether the metadata of an object refers to a UID."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations", {})
    labels = metadata.get("labels", {})
    return (
        annotations.get(OWNER_UID) == uid
        or any(uid in text for text in (*annotations.values(), *labels.values(), metadata["name"]))
        or any(each["uid"] == uid for each in metadata.get("ownerReferences", ()))
    )


def _why_it_lasts(watched: Watched) -> str:
    metadata = watched.object["metadata"]
    if "deletionTimestamp" not in metadata:
        return ""
    return f", which is deleted and has the finalizers {_listed(metadata.get('finalizers', []))}"


def _listed(names: Sequence[str]) -> str:
    return enumerated(names, SHOWN)
