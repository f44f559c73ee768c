"""What objects were last seen to fulfil: so a play of what is as it should be asks the server nothing."""

from collections import OrderedDict
from typing import NamedTuple

from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook.ownership import owner_uid

# Patches of one object that are remembered, by the fields that they state.
PATCHES_LENGTH = 16

# Deleted objects that are remembered; the oldest are forgotten first.
LOST_LENGTH = 4096


class Fulfilled(NamedTuple):
    """What an object was once seen to fulfil, as a number that stands for it, and its metadata then."""

    desired: int
    metadata: ObjectMeta

    def still(self, desired: int, live: ObjectMeta) -> bool:
        """Whether the object fulfils it without being looked at again.

        A generation grows with the spec: as long as it stays, only the status has changed. Kinds without one
        (ConfigMap, Secret, Service) have their version alone.
        """
        then = self.metadata
        if self.desired != desired or then.uid != live.uid:
            return False
        return then.resource_version == live.resource_version or (
            0 < live.generation == then.generation
            and then.labels == live.labels
            and then.annotations == live.annotations
            and then.finalizers == live.finalizers
            and then.owner_references == live.owner_references
        )


class Memory:
    """What each object was last seen to fulfil.

    What is desired is told by a number that stands for it: a manifest's hash, a count of replicas. It is of
    an aspect of the object: of its kind ("deployments.apps"), or of a subresource ("deployments.apps/scale").
    """

    def __init__(self) -> None:
        self._fulfilled: dict[tuple[str, ObjectKey], Fulfilled] = {}
        # By kind and key, then by the fields that a patch states.
        self._patched: dict[tuple[str, ObjectKey], dict[str, Fulfilled]] = {}
        # What was desired of a deleted object, and the UID of its owner.
        self._lost: OrderedDict[tuple[str, ObjectKey], tuple[int, str]] = OrderedDict()

    def fulfils(self, aspect: str, desired: int, live: ObjectMeta) -> bool:
        """Whether an object, by its metadata as last seen, is known to fulfil what is desired."""
        known = self._fulfilled.get((aspect, live.key))
        return known is not None and known.still(desired, live)

    def fulfilled_before(self, aspect: str, desired: int, live: ObjectMeta) -> bool:
        """Whether an object was once seen to fulfil what is desired, whatever has become of it since."""
        known = self._fulfilled.get((aspect, live.key))
        return known is not None and (known.desired, known.metadata.uid) == (desired, live.uid)

    def lost(self, aspect: str, desired: int, key: ObjectKey) -> bool:
        """Whether an object that fulfilled what is desired was deleted by another client."""
        return self._lost.get((aspect, key), (None, ""))[0] == desired

    def remember(self, aspect: str, desired: int, seen: ObjectMeta) -> None:
        """Takes note that an object, by its metadata as seen, fulfils what is desired."""
        self._fulfilled[aspect, seen.key] = Fulfilled(desired, seen)
        if self._lost:
            self._lost.pop((aspect, seen.key), None)

    def has_patch(self, kind: str, fields: str, desired: int, live: ObjectMeta) -> bool:
        """Return whether an object is known to be as a patch of some fields states."""
        known = self._patched.get((kind, live.key), {}).get(fields)
        return known is not None and known.still(desired, live)

    def patched_before(self, kind: str, fields: str, desired: int, live: ObjectMeta) -> bool:
        """Return whether an object was once as a patch states, whatever has become of it since."""
        known = self._patched.get((kind, live.key), {}).get(fields)
        return known is not None and (known.desired, known.metadata.uid) == (desired, live.uid)

    def remember_patch(self, kind: str, fields: str, desired: int, seen: ObjectMeta) -> None:
        """Note that an object, by its metadata as seen, is as a patch of some fields states."""
        patches = self._patched.setdefault((kind, seen.key), {})
        if fields not in patches and len(patches) >= PATCHES_LENGTH:
            patches.clear()
        patches[fields] = Fulfilled(desired, seen)

    def forget(self, aspect: str, key: ObjectKey) -> None:
        """Forgets an object, which this operator deletes."""
        self._fulfilled.pop((aspect, key), None)
        self._lost.pop((aspect, key), None)

    def gone(self, aspect: str, key: ObjectKey) -> None:
        """Takes note that an object is gone. Unless it was forgotten before, another client deleted it."""
        self._patched.pop((aspect, key), None)
        known = self._fulfilled.pop((aspect, key), None)
        if known is None:
            return
        self._lost[aspect, key] = known.desired, owner_uid(known.metadata)
        if len(self._lost) > LOST_LENGTH:
            self._lost.popitem(last=False)

    def owner_gone(self, uid: str) -> None:
        """Forget what was deleted of an owner that is gone itself."""
        for place in [place for place, (_, owner) in self._lost.items() if owner == uid]:
            del self._lost[place]
