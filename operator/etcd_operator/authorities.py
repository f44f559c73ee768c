"""Compares the certificate authorities that members have started with to those in the Secrets. No I/O."""

from collections.abc import Iterable, Mapping, Set

from etcd_operator import pages
from etcd_operator.certificates import PEER
from etcd_operator.model import Problem
from etcd_operator.seats import listed
from etcd_operator.types import PREFIX
from etcd_operator.views import Pod

AUTHORITIES = f"{PREFIX}authorities"
"""The annotation of a pod with the fingerprints of the authorities that it has started with."""


def authorities_annotation(authorities: Iterable[str]) -> dict[str, str]:
    """Returns the annotation for a container that is about to start with these authorities."""
    joined = ",".join(sorted(authorities))
    return {AUTHORITIES: joined} if joined else {}


def changed_authorities(current: Set[str], pods: Iterable[Pod]) -> tuple[Problem, ...]:
    """Returns the warning that members use other certificate authorities than those in the Secrets.

    etcd reads them only when it starts. If the members restarted with authorities that do not overlap, they
    would not accept each other, so the operator restarts none.

    Args:
        current: `Certificates.authorities`.
        pods: The pods of the cluster.
    """
    used = _used(current, pods)
    outdated = {name: authorities for name, authorities in used.items() if authorities != current}
    if not outdated:
        return ()
    names = listed(sorted(outdated))
    if all(current <= authorities for authorities in outdated.values()):
        what = f"The Secrets no longer have certificate authorities that these members trust: {names}. "
    else:
        what = f"The Secrets have certificate authorities that these members do not trust yet: {names}. "
    advice = "Delete the pods one after the other."
    if any(_replaced(authorities, current) for authorities in outdated.values()):
        advice = (
            "The earlier ones are gone, so the others would not accept a restarted member. Add the earlier "
            "ones to the Secrets first."
        )
    return (Problem("AuthoritiesChanged", f"{what}{advice} {pages.AUTHORITIES} has the procedure."),)


def distrusting(current: Set[str], pods: Iterable[Pod]) -> frozenset[str]:
    """Returns the names of the pods that trust none of the authorities for peers in the Secret.

    They would refuse a member that restarts.

    Args:
        current: `Certificates.authorities`.
        pods: The pods of the cluster.
    """
    used = _used(current, pods)
    return frozenset(name for name, authorities in used.items() if PEER.ca in _replaced(authorities, current))


def _used(current: Set[str], pods: Iterable[Pod]) -> Mapping[str, Set[str]]:
    """Returns what each pod has started with. Empty if the Secrets have a mistake."""
    return {
        each.metadata.name: {*each.metadata.annotations[AUTHORITIES].split(",")}
        for each in pods
        if current and AUTHORITIES in each.metadata.annotations
    }


def _replaced(before: Set[str], current: Set[str]) -> set[str]:
    """Returns the keys of the Secrets that have none of their earlier authorities."""
    return {each.partition(":")[0] for each in before} - {each.partition(":")[0] for each in before & current}
