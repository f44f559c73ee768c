"""What the watches of a process claim to write, so that two of them never write the same."""

from collections.abc import Collection
from typing import NamedTuple


class Claim(NamedTuple):
    """What a watch writes, and of which objects.

    Attributes:
        name: The watch.
        resource: The kind, with its group.
        namespaces: Where its objects are; empty: everywhere.
        label_selector: Which objects: "app=web".
        field_selector: Which objects: "metadata.name=web".
        writes_status: It writes the condition Ready and the rest of the status.
        finalizers: The finalizers that it stores and removes.
    """

    name: str
    resource: str
    namespaces: frozenset[str]
    label_selector: str
    field_selector: str
    writes_status: bool
    finalizers: frozenset[str]

    def overlaps(self, other: "Claim") -> bool:
        """Returns whether both select the same objects; different selectors may exclude each other."""
        return (
            self.resource == other.resource
            and not (self.namespaces and other.namespaces and self.namespaces.isdisjoint(other.namespaces))
            and _include(self.label_selector, other.label_selector)
            and _include(self.field_selector, other.field_selector)
        )


def require_unclaimed(claim: Claim, others: Collection[Claim]) -> None:
    """Refuses a claim on what another watch writes.

    Raises:
        ValueError: Another watch writes the status of the same objects, or has the same finalizer on them.
    """
    for other in others:
        if not claim.overlaps(other):
            continue
        both = f"the watches {other.name!r} and {claim.name!r} of {claim.resource} select the same objects"
        if claim.writes_status and other.writes_status:
            raise ValueError(
                f"{both} and would overwrite each other's status, with the condition Ready in it. Make them "
                "one watch, give both selectors that exclude each other, or let one report by Events: "
                "Watch(..., writes_status=False)"
            )
        if shared := sorted(claim.finalizers & other.finalizers):
            raise ValueError(
                f"{both} and have the same finalizer {shared[0]}: the first one to clean up would let the "
                "object go before the other one has. Give each playbook a finalizer of its own"
            )


def _include(one: str, other: str) -> bool:
    return one == other or not one or not other
