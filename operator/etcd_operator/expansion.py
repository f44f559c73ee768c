"""Whether the volumes of a cluster may grow to the size in its spec. No I/O."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etcd_operator.model import Action, Record
from etcd_operator.types import EtcdClusterSpec
from etcd_operator.views import StorageClass
from etcd_operator.volumes import REMOVED
from pilothouse.api import Quantity
from pilothouse.views import PersistentVolumeClaim


class Expansion(NamedTuple):
    """What limits the size in a spec.

    Attributes:
        largest: The largest size that a volume of a member requests, in bytes. None: there is no volume.
        rigid: The StorageClass of a smaller volume that does not allow it to grow. Empty: there is none, or
            the operator may not read it.
    """

    largest: int | None = None
    rigid: str = ""


def members_claims(claims: Iterable[PersistentVolumeClaim], record: Record) -> list[PersistentVolumeClaim]:
    """Returns the claims of members: those that are neither retained after a removal nor Terminating.

    In a founded cluster they are the recorded ones, and that of the member that is being added. A backup, a
    copy or a restored claim can have the label of the cluster, too.
    """
    current = [
        each
        for each in claims
        if each.metadata.deletion_timestamp is None and REMOVED not in each.metadata.annotations
    ]
    if not record.founded:
        return current
    uids = {each.volume_uid for each in record.seats}
    claim = record.claim
    joining = {claim.name if claim.action is Action.ADD else "", claim.prepared} if claim else set()
    return [each for each in current if each.metadata.uid in uids or each.metadata.name in joining]


def smaller(spec: EtcdClusterSpec, claims: Iterable[PersistentVolumeClaim]) -> list[PersistentVolumeClaim]:
    """Returns the claims that request less than a spec. The spec may be invalid."""
    try:
        wanted = spec.storage_bytes
    except ValueError:
        return []
    return [each for each in claims if _requested(each) < wanted]


def expansion(
    spec: EtcdClusterSpec, claims: Sequence[PersistentVolumeClaim], classes: Iterable[StorageClass] | None
) -> Expansion:
    """Returns what limits the size in a spec.

    Args:
        spec: The spec, which may be invalid.
        claims: The claims of the members.
        classes: All StorageClasses. None: they were not read.
    """
    names = {each.spec.storage_class_name for each in smaller(spec, claims)}
    rigid = sorted(
        each.metadata.name
        for each in classes or ()
        if each.metadata.name in names and not each.allow_volume_expansion
    )
    return Expansion(max(map(_requested, claims), default=None), rigid[0] if rigid else "")


def _requested(claim: PersistentVolumeClaim) -> int:
    return int(Quantity.parse(claim.spec.resources.requests.get("storage", "0")))
