"""The writer as a process on real etcd members: a crash loses nothing, and each planted loss is found."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etcd_operator.etcd import Endpoint
from tests.api.etcd_members import DOMAIN, VERSIONS, RealMember
from tests.etcd.__main__ import TLS_FILES
from tests.etcd.proof import Access, examine, prove, writing
from tests.unit.kube.authority import Authority

pytestmark = pytest.mark.timeout(300)
NewMember = Callable[[str], RealMember]


@pytest.fixture
def new_member(tmp_path: Path) -> Iterator[NewMember]:
    """Returns a function that prepares a member of the newest version. All are killed after the test."""
    members: list[RealMember] = []

    def make(name: str) -> RealMember:
        members.append(RealMember(tmp_path, VERSIONS[-1], name))
        return members[-1]

    yield make
    for member in members:
        member.stop()


@pytest.fixture
def member(new_member: NewMember) -> RealMember:
    """A cluster of one member."""
    found = new_member("only")
    found.start()
    return found


def test_a_crash_is_seen_and_loses_nothing(member: RealMember, tmp_path: Path) -> None:
    with writing(Access(), member.endpoint, tmp_path) as writer:
        before = writer.wait_acknowledged()
        member.stop()
        member.start()
        after = writer.wait_acknowledged()
    figures = prove(writer, {"only": member.endpoint})
    assert after.revision > before.revision
    assert sum(figures.errors.values()) > 0
    assert set(figures.errors) <= {"Unreachable", "Unavailable", "NoLeader", "DeadlineExceeded"}


def test_members_that_crash_one_after_the_other_lose_nothing(new_member: NewMember, tmp_path: Path) -> None:
    members = [new_member(name) for name in ("a", "b", "c")]
    for member in members:
        member.start([other for other in members if other is not member])
    with writing(Access(), members[0].endpoint, tmp_path) as writer:
        for member in members[1:]:
            writer.wait_acknowledged()
            member.stop()
            writer.wait_acknowledged()
            member.start([other for other in members if other is not member])
        writer.wait_acknowledged()
    prove(writer, {member.name: member.endpoint for member in members})


def test_tls_is_used_with_a_client_certificate(new_member: NewMember, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", f"DNS:*.{DOMAIN},IP:127.0.0.1")
    files = (f"--cert-file={certificate}", f"--key-file={key}", f"--trusted-ca-file={authority.ca_file}")
    member = new_member("only")
    member.start(tls=[*files, "--client-cert-auth"])
    folder = tmp_path / "tls"
    folder.mkdir()
    for name, file in zip(TLS_FILES, (authority.ca_file, *authority.issue("client")), strict=True):
        shutil.copy(file, folder / name)
    with writing(Access(tls=folder), member.endpoint, tmp_path) as writer:
        writer.wait_acknowledged()
    assert prove(writer, {"only": member.endpoint}).failed_on_time == 0


def test_a_deleted_key_and_a_wiped_volume_are_found(member: RealMember, tmp_path: Path) -> None:
    with writing(Access(), member.endpoint, tmp_path) as writer:
        writer.wait_acknowledged()
        first = writer.acknowledged()[0]
    prove(writer, {"only": member.endpoint})
    member.etcdctl("del", first.key)
    with pytest.raises(AssertionError, match=f"only: {first.key} does not exist"):
        prove(writer, {"only": member.endpoint})
    member.stop()
    shutil.rmtree(tmp_path / member.name / "data")
    member.start()
    found = examine(writer, {"only": member.endpoint})
    keys = {each.key for each in writer.acknowledged()}
    assert {key for key in keys if any(f"only: {key} does not exist" in each for each in found.lost)} == keys


def test_a_cluster_that_never_answers_ends_the_writer(member: RealMember, tmp_path: Path) -> None:
    member.send(signal.SIGSTOP)
    with writing(Access(), member.endpoint, tmp_path, stall=1.0) as writer:
        writer.process.wait(60)
    assert "No write was acknowledged for 1 s." in writer.log
    with pytest.raises(AssertionError, match="No write was acknowledged"):
        prove(writer, {"only": member.endpoint})


def test_a_writer_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    nowhere = Access(tls=tmp_path / "missing")
    with (
        pytest.raises(AssertionError, match=r"The writer has ended\. (.|\n)*No such file"),
        writing(nowhere, Endpoint("127.0.0.1", "", 9), tmp_path) as writer,
    ):
        writer.wait_acknowledged()
