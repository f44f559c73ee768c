"""What is done to the cluster in each row of the table, while the writer runs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from devcluster.shell import ClusterError
from pilothouse.kube import KubeError
from tests.bench.etcd.cluster import MeasuredCluster
from tests.bench.etcd.goals import TARGET
from tests.bench.etcd.results import Sample
from tests.cluster.etcd import SIZE
from tests.etcd.history import History
from tests.etcd.proof import Access, WriterProcess, examine, writing

_LARGE = SIZE + 2
#: What a row fails with: the cluster did not do what the row waits for, or the writer did not write.
FAILURES = (
    ClusterError,
    KubeError,
    AssertionError,
    LookupError,
    ValueError,
    OSError,
    subprocess.SubprocessError,
)


def first_paragraph(error: BaseException) -> str:
    """Returns the first paragraph of an error."""
    return str(error).partition("\n")[0] or type(error).__name__


class Rows:
    """Measures one row at a time.

    Args:
        cluster: The cluster. Each row brings it to the state that the row begins with.
        access: How the writer reaches it.
        folder: For the files of the writers. It must be a new one.
        run: The number of the run.
    """

    def __init__(self, cluster: MeasuredCluster, access: Access, folder: Path, run: int) -> None:
        self._cluster = cluster
        self._access = access
        self._folder = folder
        self._run = run

    async def created(self) -> Sample:
        """Measures from the creation until the first acknowledged write through the client Service."""
        await self._cluster.wipe()
        began = time.monotonic_ns()
        await self._cluster.create()

        async def measured(writer: WriterProcess) -> float:
            await asyncio.to_thread(writer.wait_acknowledged)
            await self._cluster.settle(SIZE)
            return (min(each.returned for each in writer.acknowledged()) - began) / 1e9

        return await self._written("created", measured, planned=False)

    async def pod(self) -> Sample:
        """Deletes the pod of a follower."""
        await self._cluster.prepare(SIZE)
        return await self._deleted("pod", self._cluster.follower)

    async def leader(self) -> Sample:
        """Deletes the pod of the leader."""
        await self._cluster.prepare(SIZE)
        return await self._deleted("leader", self._cluster.leader)

    async def two(self) -> Sample:
        """Deletes the pods of the leader and of a follower."""
        await self._cluster.prepare(SIZE)
        return await self._deleted("two", self._cluster.leader, self._cluster.follower)

    async def volume(self) -> Sample:
        """Deletes the pod and the volume of a follower."""
        await self._cluster.prepare(SIZE)
        lost = self._cluster.follower
        uids = self._cluster.uids(lost)

        async def lose() -> None:
            await self._cluster.delete_claim(lost)
            await self._cluster.delete_pods(lost)

        return await self._changed("volume", lose, lambda: self._cluster.settle(SIZE, without=uids))

    async def out(self) -> Sample:
        """Adds two members, without volumes of an earlier scale-in."""
        await self._cluster.prepare(SIZE)
        await self._cluster.drop_left_volumes()
        return await self._resized("out", _LARGE)

    async def out_left(self) -> Sample:
        """Adds two members while volumes of an earlier scale-in are left."""
        await self._cluster.prepare(SIZE)
        await self._cluster.leave_volumes()
        return await self._resized("out-left", _LARGE)

    async def scale_in(self) -> Sample:
        """Removes two of five members."""
        await self._cluster.prepare(_LARGE)
        return await self._resized("in", SIZE)

    async def upgrade(self) -> Sample:
        """Upgrades to the next minor version."""
        await self._cluster.prepare(SIZE)
        return await self._changed(
            "upgrade",
            lambda: self._cluster.change(version=TARGET),
            lambda: self._cluster.settle(SIZE, TARGET),
        )

    async def _deleted(self, row: str, *members: str) -> Sample:
        uids = self._cluster.uids(*members)
        return await self._changed(
            row,
            lambda: self._cluster.delete_pods(*members),
            lambda: self._cluster.settle(SIZE, without=uids),
        )

    async def _resized(self, row: str, size: int) -> Sample:
        return await self._changed(
            row, lambda: self._cluster.change(size=size), lambda: self._cluster.settle(size)
        )

    async def _changed(
        self, row: str, change: Callable[[], Awaitable[None]], healed: Callable[[], Awaitable[float]]
    ) -> Sample:
        """Measures from a change until the cluster is healed."""

        async def measured(writer: WriterProcess) -> float:
            await asyncio.to_thread(writer.wait_acknowledged)
            began = time.monotonic()
            await change()
            seconds = await healed() - began
            await asyncio.to_thread(writer.wait_acknowledged)
            return seconds

        return await self._written(row, measured)

    async def _written(
        self, row: str, measured: Callable[[WriterProcess], Awaitable[float]], *, planned: bool = True
    ) -> Sample:
        """Measures while the writer runs, and then reads its writes back, also if the row has failed.

        Args:
            row: The name of the row.
            measured: Returns what is measured, in seconds.
            planned: Whether the cluster served when the writer began. Otherwise, its failed writes count
                nothing.
        """
        seconds, error = None, ""
        with writing(self._access, await self._cluster.service(), self._writer(row)) as writer:
            try:
                seconds = await measured(writer)
            except FAILURES as failure:
                error = first_paragraph(failure)
        return await self._proven(Sample(self._run, seconds=seconds, error=error), writer, planned)

    async def _proven(self, sample: Sample, writer: WriterProcess, planned: bool) -> Sample:
        """Reads every acknowledged write back, and returns the sample with the figures of the writer.

        A cluster that has healed has the writes on every member, any other one on every member that serves.

        Args:
            sample: What was measured, or why nothing was.
            writer: A writer whose block has ended.
            planned: Whether the failed writes count.
        """
        members = self._cluster.serving() if sample.error else self._cluster.endpoints()
        if not members:
            return replace(sample, problems=("No member serves, so no write could be read back.",))
        try:
            found = await asyncio.to_thread(examine, writer, members)
            unusable = History.load(writer.file).problem()
        except FAILURES as failure:
            return replace(sample, error=sample.error or first_paragraph(failure), problems=(str(failure),))
        figures = found.figures if planned and not unusable and not sample.error else None
        return replace(
            sample,
            failed_writes=figures.failed_writes if figures else None,
            longest_gap=figures.longest_gap if figures else None,
            lost=len(found.lost),
            problems=tuple(found.problems) + ((unusable,) if unusable else ()),
        )

    def _writer(self, row: str) -> Path:
        folder = self._folder / row
        folder.mkdir(parents=True)
        return folder


#: The rows in the order in which they are measured: each leaves the cluster nearly as the next one needs it.
ROWS: Mapping[str, Callable[[Rows], Awaitable[Sample]]] = {
    "created": Rows.created,
    "pod": Rows.pod,
    "leader": Rows.leader,
    "volume": Rows.volume,
    "two": Rows.two,
    "out": Rows.out,
    "in": Rows.scale_in,
    "out-left": Rows.out_left,
    "upgrade": Rows.upgrade,
}
