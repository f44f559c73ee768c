"""Converts the record in the status of an EtcdCluster to the model's `Record`, and back."""

from msgspec.structs import replace

from etcd_operator.model import Action, Claim, Founding, Phase, Record, Seat
from etcd_operator.types import (
    EtcdClusterStatus,
    RecordedFounding,
    RecordedStep,
    RecordedVoter,
    RecordStatus,
)


class UnreadableRecord(ValueError):
    """The record in the status has a value that this release did not write. The message names it."""


def record_of(status: EtcdClusterStatus) -> Record:
    """Returns the record in a status.

    Raises:
        UnreadableRecord: A value is not valid. A user or another release has changed the status.
    """
    written = status.record
    try:
        return Record(
            incarnation=written.incarnation,
            next_member=written.next_member,
            version=written.version,
            cluster_id=_number(written.cluster_id),
            founded=written.founded,
            founding=_founding(written.founding),
            seats=tuple(Seat(each.name, _number(each.member_id), each.volume_uid) for each in written.voters),
            claim=_claim(written.step),
            foreign_status=written.incarnation == 0 and _describes_members(status),
        )
    except ValueError as error:
        raise UnreadableRecord(f"status.record cannot be read: {error}") from None


def with_record(status: EtcdClusterStatus, record: Record) -> EtcdClusterStatus:
    """Returns a status with another record."""
    return replace(
        status,
        record=RecordStatus(
            incarnation=record.incarnation,
            next_member=record.next_member,
            version=record.version,
            cluster_id=_hexadecimal(record.cluster_id),
            founded=record.founded,
            founding=RecordedFounding(
                phase=record.founding.phase,
                version=record.founding.version,
                shape=record.founding.shape,
                storage=record.founding.storage,
                scheme=record.founding.scheme,
                since=record.founding.since,
                ran=record.founding.ran,
            )
            if record.founding
            else None,
            voters=tuple(
                RecordedVoter(seat.name, _hexadecimal(seat.member_id), seat.volume_uid)
                for seat in record.seats
            ),
            step=RecordedStep(
                action=record.claim.action,
                name=record.claim.name,
                member_id=_hexadecimal(record.claim.member_id),
                version=record.claim.version,
                interrupts=record.claim.interrupts,
                since=record.claim.since,
                prepared=record.claim.prepared,
            )
            if record.claim
            else None,
        ),
    )


def _describes_members(status: EtcdClusterStatus) -> bool:
    """Returns whether a status describes a cluster that exists.

    This operator sets these fields only after it has recorded an incarnation. It also keeps them if there is
    none, so that a cluster of the coreos operator is still recognized at the next reconcile.
    """
    members = status.members
    return bool(
        members.ready
        or members.unready
        or status.current_version
        or status.service_name
        or status.client_port
    )


def _founding(written: RecordedFounding | None) -> Founding | None:
    if written is None:
        return None
    return Founding(
        phase=Phase(written.phase),
        version=written.version,
        shape=written.shape,
        storage=written.storage,
        scheme=written.scheme,
        since=written.since,
        ran=written.ran,
    )


def _claim(written: RecordedStep | None) -> Claim | None:
    if written is None:
        return None
    return Claim(
        action=Action(written.action),
        name=written.name,
        member_id=_number(written.member_id),
        version=written.version,
        interrupts=written.interrupts,
        since=written.since,
        prepared=written.prepared,
    )


def _hexadecimal(number: int) -> str:
    """Returns an ID as etcdctl shows it. An empty string stands for 0."""
    return f"{number:x}" if number else ""


def _number(text: str) -> int:
    return int(text, 16) if text else 0
