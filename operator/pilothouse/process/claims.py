"""What each watch of a process writes. Two watches must not write the same fields."""

from collections.abc import Collection
from typing import NamedTuple

from pilothouse.kube import BadRequest


class Claim(NamedTuple):
    """The objects of a watch, and the fields that it writes in them.

    Attributes:
        name: The name of the watch.
        resource: The kind and its group.
        namespaces: The namespaces of the objects; empty for all.
        label_selector: Selects the objects by label: "app=web".
        field_selector: Selects the objects by field: "metadata.name=web".
        writes_status: Whether the watch writes the status, including the condition Ready.
        finalizers: The finalizers that the watch stores and removes.
    """

    name: str
    resource: str
    namespaces: frozenset[str]
    label_selector: str
    field_selector: str
    writes_status: bool
    finalizers: frozenset[str]

    def overlaps(self, other: "Claim") -> bool:
        """Returns whether an object may exist that both select."""
        return (
            self.resource == other.resource
            and not (self.namespaces and other.namespaces and self.namespaces.isdisjoint(other.namespaces))
            and not _exclude_each_other(self, other)
        )


def require_unclaimed(claim: Claim, others: Collection[Claim]) -> None:
    """Checks that no other watch writes the same fields.

    Args:
        claim: The claim to check.
        others: The claims of the other watches.

    Raises:
        ValueError: Another watch writes the status of the same objects, or has the same finalizer on them.
    """
    for other in others:
        if not claim.overlaps(other):
            continue
        both = (
            f"the watches {other.name!r} and {claim.name!r} of {claim.resource} may select the same objects"
        )
        if claim.writes_status and other.writes_status:
            raise ValueError(
                f"{both} and would overwrite each other's status, including the condition Ready. Merge the "
                "watches, give them selectors that exclude each other (app=a and app!=a), or let one report "
                "only Events: "
                "Watch(..., writes_status=False)"
            )
        if shared := sorted(claim.finalizers & other.finalizers):
            raise ValueError(
                f"{both} and have the same finalizer {shared[0]}. The object would be deleted after the "
                "first cleanup, before the other one has finished. Give each playbook a finalizer of its "
                "own, or give the watches selectors that exclude each other (app=a and app!=a)"
            )


def _exclude_each_other(one: Claim, other: Claim) -> bool:
    """Returns whether no object can match the selectors of both."""
    # Most operators have one watch of a kind.
    from pilothouse.kube.selectors import exclude_each_other

    try:
        return exclude_each_other(
            (one.label_selector, one.field_selector), (other.label_selector, other.field_selector)
        )
    except BadRequest:
        return False  # The API server will refuse the selector.
