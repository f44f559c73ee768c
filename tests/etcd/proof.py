"""Runs the writer beside a test, and then proves that no acknowledged write is lost.

::

    with writing(Access.of(cluster), service, tmp_path) as writer:
        writer.wait_acknowledged()
        ...  # what must not lose a write
        writer.wait_acknowledged()
    figures = prove(writer, {"example-1": endpoint, ...})
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from devcluster import namespaces
from devcluster.cluster import Cluster
from devcluster.folders import CHECKOUT
from devcluster.kubectl import wait_until
from etcd_operator.etcd import Endpoint
from tests.etcd.__main__ import described
from tests.etcd.history import Figures, History, Kind, Operation, Outcome
from tests.etcd.linearizability import check
from tests.etcd.read_back import Contents, differences, losses

#: Seconds without an acknowledged write after which the writer gives up.
STALL = 60.0
#: Seconds for the open calls of a writer that was stopped, and for reading back.
_STOP_SECONDS, _READ_SECONDS = 30.0, 300.0
#: The number of problems that an error lists.
_LISTED = 20


@dataclass(frozen=True)
class Access:
    """How the writer reaches a cluster.

    Attributes:
        words: The start of a command that runs the rest of it where the cluster can be reached. Empty: here.
        tls: A folder with the files of `tests.etcd.__main__.TLS_FILES`. None: plain text.
    """

    words: Sequence[str] = ()
    tls: Path | None = None

    @staticmethod
    def of(cluster: Cluster, tls: Path | None = None) -> Access:
        """Returns the access to pods and Services of the local cluster.

        The host has no route to them, because two clusters on a host use the same addresses. So the writer
        runs in the network namespace of the node, where kube-proxy translates the addresses of Services.
        """
        pid = namespaces.running(cluster.nodes[0])
        return Access(("nsenter", f"--net=/proc/{pid}/ns/net"), tls)

    def command(self, *words: str) -> list[str]:
        """Returns the command line that runs `tests.etcd` with these arguments."""
        tls = [f"--tls={self.tls}"] if self.tls else []
        return [*self.words, sys.executable, "-m", "tests.etcd", *words, *tls]


@dataclass(frozen=True)
class WriterProcess:
    """A writer in a process of its own.

    Attributes:
        access: How it reaches the cluster.
        process: The process.
        folder: Has its files: history, log, what the members have, and a page for a failed check.
    """

    access: Access
    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def file(self) -> Path:
        """The file with the history."""
        return self.folder / "history.jsonl"

    @property
    def log(self) -> str:
        """What the writer printed: why it gave up or failed."""
        return (self.folder / "writer.log").read_text()

    def acknowledged(self, since: int = 0) -> list[Operation]:
        """Returns the acknowledged writes that were called at `since` (`time.monotonic_ns`) or later."""
        if not self.file.exists() or not self.file.stat().st_size:
            return []
        return [
            each
            for each in History.load(self.file).operations
            if each.kind is Kind.WRITE and each.outcome is Outcome.OK and each.called >= since
        ]

    def wait_acknowledged(self, seconds: float = STALL) -> Operation:
        """Waits until a write is acknowledged that was called later than this method, and returns it.

        Raises:
            ClusterError: There was none within the given number of seconds.
            AssertionError: The writer has ended.
        """
        since = time.monotonic_ns()

        def found() -> list[Operation]:
            assert self.process.poll() is None, f"The writer has ended. {self.log}"
            return self.acknowledged(since)

        return wait_until(found, seconds, lambda: f"No write was acknowledged. {self.log}")[0]

    def read_back(self, members: Mapping[str, Endpoint]) -> list[Contents]:
        """Reads every key of the history from every member."""
        file = self.folder / "contents.json"
        words = [f"--member={name}@{described(each)}" for name, each in members.items()]
        done = subprocess.run(
            self.access.command("read-back", f"--history={self.file}", f"--contents={file}", *words),
            cwd=CHECKOUT,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_READ_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"The keys could not be read back:\n{done.stderr}"
        return msgspec.json.decode(file.read_bytes(), type=list[Contents])


@contextmanager
def writing(
    access: Access, service: Endpoint, folder: Path, *, stall: float = STALL
) -> Iterator[WriterProcess]:
    """Runs a writer while the block runs. After the block, its history is complete.

    Args:
        access: How to reach the cluster.
        service: The client Service.
        folder: For the files of the writer. Each writer needs a folder of its own.
        stall: Seconds without an acknowledged write after which the writer gives up.
    """
    words = [f"--endpoint={described(service)}", f"--prefix={secrets.token_hex(4)}", f"--stall={stall}"]
    command = access.command("write", *words, f"--history={folder / 'history.jsonl'}")
    with (folder / "writer.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=_environment(), stdout=log, stderr=log)
    try:
        yield WriterProcess(access, process, folder)
        process.terminate()
        process.wait(_STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Examination:
    """What a writer saw, and what contradicts it.

    Attributes:
        figures: What a user of the cluster saw.
        lost: A sentence for each key of each member that contradicts an acknowledged write.
        others: A sentence for each key that two members have with different values, and one if the history is
            not linearizable.
    """

    figures: Figures
    lost: Sequence[str]
    others: Sequence[str]

    @property
    def problems(self) -> Sequence[str]:
        """All sentences. None: no write is lost, and the history is linearizable."""
        return [*self.lost, *self.others]


def examine(writer: WriterProcess, members: Mapping[str, Endpoint]) -> Examination:
    """Reads back what a writer has written, and checks its history.

    Args:
        writer: A writer whose block has ended.
        members: Every member by name.

    Raises:
        AssertionError: The keys could not be read back from every member.
        ValueError: The history is not finished.
    """
    history = History.load(writer.file)
    contents = writer.read_back(members)
    reads = [read for each in contents for read in each.reads]
    disorder = check([*history.operations, *reads], writer.folder / "not-linearizable.html")
    others = [*differences(contents), *filter(None, [disorder])]
    return Examination(history.figures(), losses(history, contents), others)


def prove(writer: WriterProcess, members: Mapping[str, Endpoint]) -> Figures:
    """Checks what a writer has written, and returns what a user of the cluster saw.

    It judges no times, because the machine may be busy. A benchmark asks `History.problem`, too.

    Args:
        writer: A writer whose block has ended.
        members: Every member by name.

    Raises:
        AssertionError: An acknowledged write is lost, the members differ, the history is not linearizable,
            or the writer stalled. The text names the keys.
    """
    stalled = History.load(writer.file).stalled()
    assert not stalled, f"{stalled} {writer.log}"
    found = examine(writer, members)
    problems = found.problems
    assert not problems, "\n".join([f"{len(problems)} problems, see {writer.folder}:", *problems[:_LISTED]])
    return found.figures


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{CHECKOUT}/operator:{CHECKOUT}"}
