"""Whose data a volume has: that of its own member, a copy, or that of a member that was replaced.

A copy has a WAL, so the poison does not stop it: it would run as a second process with one member ID.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from etcd_operator.model import MemberState, Record, VolumeState
from etcd_operator.types import LABEL


def copies(
    volumes: Iterable[VolumeState], record: Record, members: Iterable[MemberState] = ()
) -> dict[str, str]:
    """Returns the volumes that have the data of another volume's member, each with the name of that member.

    A volume is named like its member, and so is its label `etcd_node`. The name is empty if two volumes have
    one member ID and nothing shows which of them is the original: then both count as copies. A volume that
    the record has by its UID is never a copy, whatever its label is now.

    Args:
        volumes: All volumes with the label of the cluster.
        record: The record.
        members: The members in the linearizable list of this cluster.
    """
    volumes = tuple(volumes)
    recorded = {each.volume_uid for each in record.seats}
    claimed = {record.claim.name, record.claim.prepared} if record.claim else set()
    owners = {_identity(each): each.name for each in volumes if each.uid in recorded}
    if record.founded:
        owners = _owners(volumes, record, members) | owners
    found: dict[str, str] = {}
    sharing: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for each in volumes:
        if each.removed or each.uid in recorded or each.name in claimed:
            continue
        key = _identity(each)
        if each.labelled not in ("", each.name):
            found[each.name] = each.labelled
        elif each.member_id and owners.get(key, each.name) != each.name:
            found[each.name] = owners[key]
        elif each.member_id and key not in owners:
            sharing[key].append(each.name)
    doubtful = [name for names in sharing.values() if len(names) > 1 for name in names]
    return found | dict.fromkeys(doubtful, "")


def _owners(
    volumes: Iterable[VolumeState], record: Record, members: Iterable[MemberState]
) -> dict[tuple[int, int], str]:
    """Returns the names of all seats of a founded cluster whose member IDs are known."""
    removed = {_identity(each): each.name for each in volumes if each.removed}
    listed = {(record.cluster_id, each.id): each.name for each in members if each.name}
    seats = {(record.cluster_id, each.member_id): each.name for each in record.seats if each.member_id}
    return removed | listed | seats


def _identity(volume: VolumeState) -> tuple[int, int]:
    return volume.cluster_id, volume.member_id


def superseded(volumes: Iterable[VolumeState]) -> frozenset[str]:
    """Returns the volumes of voters that are not among the last known voters.

    Each change of the voters is written to all their volumes, with the next epoch. So etcd has removed a
    voter that the newest epoch does not name, although nothing has marked its volume, for example because it
    was restored from a backup. Such members know an earlier list of voters, and could elect a leader of
    their own.

    Args:
        volumes: The volumes of one incarnation, without copies.
    """
    started = [each for each in volumes if each.started and not each.removed]
    newest = max((each.epoch for each in started), default=0)
    voters = {name for each in started if each.epoch == newest for name in each.voters}
    return frozenset(each.name for each in started if 0 < each.epoch < newest and each.name not in voters)


def described(found: Mapping[str, str]) -> str:
    """Returns which volumes are copies, and what to do with them.

    Args:
        found: The copies, as `copies` returns them.
    """
    certain = [f"{name} (of {original})" for name, original in found.items() if original]
    doubtful = [name for name, original in found.items() if not original]
    message = ""
    if certain:
        message += f"These PVCs are copies of volumes of other members: {', '.join(certain)}. "
    if doubtful:
        message += (
            f"These PVCs have one member ID, and nothing shows which is the original: {', '.join(doubtful)}. "
        )
    return (
        f"{message}The operator does not use, change or delete a copy, because two processes with one member "
        f"ID can lose data. Keep its data, and remove its label: kubectl label pvc NAME {LABEL}-. If the "
        "original is lost, restore it under its own name, with its labels and annotations."
    )
