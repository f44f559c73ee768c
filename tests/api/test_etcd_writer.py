"""The writer as a process on a real etcd: a crash loses nothing, and each planted loss is found."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devcluster import toolchain
from devcluster.kubectl import wait_until
from etcd_operator.etcd import Endpoint
from tests.etcd.proof import Access, prove, writing

pytestmark = pytest.mark.timeout(300)


@dataclass
class Member:
    """A cluster of one member on this host, whose process can be killed and started again."""

    folder: Path
    port: int
    peer: int
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", "localhost", self.port)

    def start(self) -> None:
        """Starts etcd and waits until it serves."""
        words = [
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls=http://127.0.0.1:{self.port}",
            f"--advertise-client-urls=http://127.0.0.1:{self.port}",
            f"--listen-peer-urls=http://127.0.0.1:{self.peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{self.peer}",
            f"--initial-cluster=default=http://127.0.0.1:{self.peer}",
        ]
        with (self.folder / "etcd.log").open("ab") as log:
            self.process = subprocess.Popen([toolchain.binary("etcd"), *words], stdout=log, stderr=log)
        wait_until(lambda: self.etcdctl("endpoint", "health"), 30, (self.folder / "etcd.log").read_text)

    def kill(self) -> None:
        """Ends etcd with SIGKILL."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def etcdctl(self, *words: str) -> bool:
        """Runs etcdctl and returns whether it succeeded."""
        command: list[str | Path] = [
            toolchain.binary("etcdctl"),
            f"--endpoints=127.0.0.1:{self.port}",
            *words,
        ]
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    """A running member."""
    with _free_ports() as (port, peer):
        found = Member(tmp_path, port, peer)
    try:
        found.start()
        yield found
    finally:
        found.kill()


@contextmanager
def _free_ports() -> Iterator[tuple[int, int]]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        yield first.getsockname()[1], second.getsockname()[1]


def test_a_crash_is_seen_and_loses_nothing(member: Member, tmp_path: Path) -> None:
    with writing(Access(), member.endpoint, tmp_path) as writer:
        before = writer.wait_acknowledged()
        member.kill()
        member.start()
        after = writer.wait_acknowledged()
    figures = prove(writer, {"default": member.endpoint})
    assert after.revision > before.revision
    assert set(figures.errors) <= {"Unreachable", "Unavailable", "NoLeader", "DeadlineExceeded"}
    assert sum(figures.errors.values()) > 0
    assert figures.longest_gap > 0


def test_a_wiped_volume_and_a_deleted_key_are_found(member: Member, tmp_path: Path) -> None:
    with writing(Access(), member.endpoint, tmp_path) as writer:
        writer.wait_acknowledged()
        first = writer.acknowledged()[0]
    prove(writer, {"default": member.endpoint})
    assert member.etcdctl("del", first.key)
    with pytest.raises(AssertionError, match=f"default: {first.key} does not exist"):
        prove(writer, {"default": member.endpoint})
    member.kill()
    shutil.rmtree(tmp_path / "data")
    member.start()
    with pytest.raises(AssertionError) as found:
        prove(writer, {"default": member.endpoint})
    assert re.search(r"^\d+ problems", str(found.value))


def test_a_cluster_that_never_answers_ends_the_writer(member: Member, tmp_path: Path) -> None:
    member.kill()
    with writing(Access(), member.endpoint, tmp_path, stall=1.0) as writer:
        writer.process.wait(60)
    assert "No write was acknowledged for 1 s." in writer.log
    with pytest.raises(AssertionError, match="No write was acknowledged"):
        prove(writer, {"default": member.endpoint})


def test_a_writer_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    nowhere = Access(tls=tmp_path / "missing")
    with (
        pytest.raises(AssertionError, match=r"The writer has ended\. (.|\n)*No such file"),
        writing(nowhere, Endpoint("127.0.0.1", "", 9), tmp_path) as writer,
    ):
        writer.wait_acknowledged()
