"""The record in the status is what the model's record was."""

from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace

from etcd_operator.model import Action, Claim, Founding, Phase, Record, Seat
from etcd_operator.records import UnreadableRecord, record_of, with_record
from etcd_operator.types import EtcdClusterStatus, MembersStatus, RecordedStep, RecordStatus

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
FOUNDING = Founding(Phase.STARTING, "3.6.14", "shape", "storage", "https/http", NOW, ran=True)
RECORDS = (
    Record(),
    Record(incarnation=1, next_member=3, founding=FOUNDING, seats=(Seat("a-1", 0, "uid"), Seat("a-2"))),
    Record(
        incarnation=2,
        next_member=9,
        cluster_id=2**64 - 1,
        founded=True,
        seats=(Seat("a-1", 2**63, "uid"),),
        claim=Claim(Action.REMOVE, "a-1", 255, "3.6.14", interrupts=True, since=NOW, prepared="a-2"),
        version="3.7.1",
    ),
)


def test_the_records_cover_every_field() -> None:
    """A field that is added to the model must be added to the status, too."""
    for kind, values in ((Record, RECORDS), (Claim, [RECORDS[2].claim]), (Founding, [FOUNDING])):
        for each in msgspec.structs.fields(kind):
            if each.name != "foreign_status":  # not stored, but found
                assert any(getattr(value, each.name) != each.default for value in values), each.name


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    status = with_record(EtcdClusterStatus(phase="Running"), record)
    stored = msgspec.json.decode(msgspec.json.encode(status), type=EtcdClusterStatus)
    assert stored.phase == "Running"
    assert record_of(stored) == record


def test_ids_are_written_as_etcdctl_shows_them() -> None:
    status = with_record(EtcdClusterStatus(), Record(incarnation=1, cluster_id=0x8E9E05C52164694D))
    assert status.record.cluster_id == "8e9e05c52164694d"


@pytest.mark.parametrize(
    "written",
    [
        RecordStatus(cluster_id="xyz"),
        RecordStatus(step=RecordedStep(action="Explode", name="a-1")),
        RecordStatus(step=RecordedStep(action="Add", name="a-1", member_id="?")),
    ],
)
def test_a_record_that_was_edited_is_refused(written: RecordStatus) -> None:
    with pytest.raises(UnreadableRecord, match=r"status\.record cannot be read"):
        record_of(EtcdClusterStatus(record=written))


@pytest.mark.parametrize(
    "status",
    [
        EtcdClusterStatus(phase="Running", members=MembersStatus(ready=("a-1",))),
        EtcdClusterStatus(phase="Running", members=MembersStatus(unready=("a-1",))),
        EtcdClusterStatus(phase="Creating", service_name="a-client", client_port=2379),
        EtcdClusterStatus(phase="Failed", current_version="3.2.13"),
    ],
)
def test_a_status_of_the_coreos_operator_is_recognized(status: EtcdClusterStatus) -> None:
    assert record_of(status).foreign_status
    assert not record_of(replace(status, record=RecordStatus(incarnation=1))).foreign_status


def test_a_status_before_the_founding_is_not_foreign() -> None:
    assert not record_of(EtcdClusterStatus(phase="Failed", reason="InvalidSpec")).foreign_status
