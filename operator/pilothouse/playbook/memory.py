"""Remembers which objects match their manifests, so that reconciling a settled object sends no request."""

from collections import OrderedDict
from typing import NamedTuple

from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook.ownership import owner_uid

# The number of patches of one object that are remembered, by the fields that they state.
PATCHES_LENGTH = 16

# The number of deleted objects that are remembered. The oldest are forgotten first.
LOST_LENGTH = 4096


class Fulfilled(NamedTuple):
    """A desired state that an object was seen to match, as a hash, and the metadata of the object then."""

    desired: int
    metadata: ObjectMeta

    def still(self, desired: int, live: ObjectMeta) -> bool:
        """Returns whether the object surely still matches.

        If the generation is the same, only the status has changed. Kinds without a generation (ConfigMap,
        Secret, Service) are compared by resourceVersion.
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
    """The desired state that each object was last seen to match.

    A number represents the desired state: the hash of a manifest, or a number of replicas. It belongs to an
    aspect of the object: its kind ("deployments.apps"), or a subresource ("deployments.apps/scale").
    """

    def __init__(self) -> None:
        self._fulfilled: dict[tuple[str, ObjectKey], Fulfilled] = {}
        # By kind and key, then by the fields that a patch states.
        self._patched: dict[tuple[str, ObjectKey], dict[str, Fulfilled]] = {}
        # The desired state of a deleted object, and the UID of its owner.
        self._lost: OrderedDict[tuple[str, ObjectKey], tuple[int, str]] = OrderedDict()

    def fulfils(self, aspect: str, desired: int, live: ObjectMeta) -> bool:
        """Returns whether an object with this metadata is known to match the desired state."""
        known = self._fulfilled.get((aspect, live.key))
        return known is not None and known.still(desired, live)

    def fulfilled_before(self, aspect: str, desired: int, live: ObjectMeta) -> bool:
        """Returns whether an object was last seen to match this desired state, even if it changed since."""
        known = self._fulfilled.get((aspect, live.key))
        return known is not None and (known.desired, known.metadata.uid) == (desired, live.uid)

    def lost(self, aspect: str, desired: int, key: ObjectKey) -> bool:
        """Returns whether another client has deleted an object that matched the desired state."""
        return self._lost.get((aspect, key), (None, ""))[0] == desired

    def remember(self, aspect: str, desired: int, seen: ObjectMeta) -> None:
        """Remembers that an object with this metadata matches the desired state."""
        self._fulfilled[aspect, seen.key] = Fulfilled(desired, seen)
        if self._lost:
            self._lost.pop((aspect, seen.key), None)

    def has_patch(self, kind: str, fields: str, desired: int, live: ObjectMeta) -> bool:
        """Returns whether an object with this metadata is known to match a patch of some fields."""
        known = self._patched.get((kind, live.key), {}).get(fields)
        return known is not None and known.still(desired, live)

    def patched_before(self, kind: str, fields: str, desired: int, live: ObjectMeta) -> bool:
        """Returns whether an object was last seen to match this patch, even if it changed since."""
        known = self._patched.get((kind, live.key), {}).get(fields)
        return known is not None and (known.desired, known.metadata.uid) == (desired, live.uid)

    def remember_patch(self, kind: str, fields: str, desired: int, seen: ObjectMeta) -> None:
        """Remembers that an object with this metadata matches a patch of some fields."""
        patches = self._patched.setdefault((kind, seen.key), {})
        if fields not in patches and len(patches) >= PATCHES_LENGTH:
            patches.clear()
        patches[fields] = Fulfilled(desired, seen)

    def forget(self, aspect: str, key: ObjectKey) -> None:
        """Forgets an object that this operator deletes."""
        self._fulfilled.pop((aspect, key), None)
        self._lost.pop((aspect, key), None)

    def gone(self, aspect: str, key: ObjectKey) -> None:
        """Remembers that an object was deleted: by another client, unless it was forgotten before."""
        self._patched.pop((aspect, key), None)
        known = self._fulfilled.pop((aspect, key), None)
        if known is None:
            return
        self._lost[aspect, key] = known.desired, owner_uid(known.metadata)
        if len(self._lost) > LOST_LENGTH:
            self._lost.popitem(last=False)

    def owner_gone(self, uid: str) -> None:
        """Forgets the deleted objects of an owner that no longer exists."""
        for place in [place for place, (_, owner) in self._lost.items() if owner == uid]:
            del self._lost[place]
