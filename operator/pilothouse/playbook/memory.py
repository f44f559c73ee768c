"""What objects were last seen to fulfil: so a play of what is as it should be asks the server nothing."""

from typing import NamedTuple

from pilothouse.kube import ObjectKey, ObjectMeta


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

    def fulfils(self, aspect: str, desired: int, live: ObjectMeta) -> bool:
        """Whether an object, by its metadata as last seen, is known to fulfil what is desired."""
        known = self._fulfilled.get((aspect, live.key))
        return known is not None and known.still(desired, live)

    def remember(self, aspect: str, desired: int, seen: ObjectMeta) -> None:
        """Takes note that an object, by its metadata as seen, fulfils what is desired."""
        self._fulfilled[aspect, seen.key] = Fulfilled(desired, seen)

    def forget(self, aspect: str, key: ObjectKey) -> None:
        """Takes leave of an object that is gone."""
        self._fulfilled.pop((aspect, key), None)
