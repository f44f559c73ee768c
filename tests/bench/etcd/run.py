"""One run of the benchmark: it installs the operator, measures every row, and saves what it has found."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from devcluster import etcd_images, toolchain
from devcluster import target as targets
from devcluster.shell import ClusterError
from pilothouse.kube import Client
from tests.bench.contestants import BUILD
from tests.bench.etcd import bad_specs, bare_pod, fleet, report
from tests.bench.etcd.cluster import MeasuredCluster
from tests.bench.etcd.cost import Operator
from tests.bench.etcd.goals import FLEET, MANY, ONE, VERSION
from tests.bench.etcd.results import Results, Sample
from tests.bench.etcd.rows import FAILURES, ROWS, Rows, first_paragraph
from tests.bench.etcd.view import View
from tests.bench.machine import hardware
from tests.cluster.etcd import NAMESPACE, SIZE, Etcd, EtcdClusterOnNode, installed
from tests.cluster.load import open_client
from tests.etcd.proof import Access

RESULTS = BUILD / "etcd.json"
RUNS = 10
#: Results of fewer runs do not go to the page in docs.
LEAST = 3
#: Measured once, after the rows: specs with mistakes, what a cluster costs, and many clusters.
BAD_ROW, COST, FLEET_ROW = "bad-specs", "cost", "fleet"
NAMES = (*ROWS, BAD_ROW, COST, FLEET_ROW)
#: For the files of the writers, and the state of the cluster after each failure.
_FOLDER = BUILD / "etcd"
#: Seconds: the windows without a change with one cluster and with many, and the time without a change before.
_WINDOW_ONE, _WINDOW_MANY, _QUIET = 150.0, 120.0, 20.0


class Bench:
    """Measures the rows.

    Attributes:
        results: What was found so far.
        file: The file for it, which is written after each row.
        page: The page for people.

    Args:
        runs: How often each row is measured.
        rows: The names of the rows. Empty: all.
        earlier: The results of an earlier run, which keep their other rows. None: all results are new.

    Raises:
        ClusterError: There is no row of a name, or the earlier run was on another day or machine.
    """

    def __init__(self, runs: int = RUNS, rows: Sequence[str] = (), earlier: Results | None = None) -> None:
        if unknown := set(rows) - set(NAMES):
            raise ClusterError(f"There is no row '{min(unknown)}'. The rows are: {', '.join(NAMES)}.")
        self._runs = runs
        self._rows = [each for each in NAMES if each in rows] if rows else list(NAMES)
        complete = earlier is not None or (runs >= LEAST and self._rows == list(NAMES))
        self.file = RESULTS if complete else RESULTS.with_name("etcd-trial.json")
        self.page = report.PAGE if complete else self.file.with_suffix(".md")
        machine = f"{hardware()}, kube-apiserver {toolchain.TOOLS['kubernetes'].version}"
        new = Results(datetime.now(UTC).date().isoformat(), machine, runs)
        self.results = new if earlier is None else _without(earlier, self._rows, new)
        self._took: dict[str, list[float]] = {}

    def run(self) -> Results:
        """Measures everything. The page is also written if the run is interrupted.

        Raises:
            ClusterError: The operator could not be installed, or KUBECONFIG names another cluster.
        """
        if targets.elsewhere():
            raise ClusterError("The benchmark needs the local cluster. Unset KUBECONFIG.")
        shutil.rmtree(_FOLDER, ignore_errors=True)
        toolchain.binary("linearizability")
        try:
            with installed() as etcd:
                asyncio.run(self._measure(etcd))
        finally:
            if self._took:
                self.results.save(self.file)
                report.write(self.results, self.page)
        return self.results

    @property
    def durations(self) -> str:
        """How long each row took in each run, with its preparation and its proof, in seconds."""
        return "\n".join(
            f"{name:10} {sum(took) / len(took):6.1f} s per run" for name, took in self._took.items() if took
        )

    async def _measure(self, etcd: Etcd) -> None:
        client = await open_client(etcd.kubectl.kubeconfig)
        async with client, View(client, NAMESPACE) as view:
            cluster = MeasuredCluster(client, view, EtcdClusterOnNode(etcd))
            if any(each in ROWS for each in self._rows):
                image = etcd_images.ensure(targets.current())[VERSION]
                # Not measured: the node pulls the image, and the operator acquires its Lease, which an
                # uninstalled operator could not release.
                await cluster.prepare(SIZE)
                for number in range(1, self._runs + 1):
                    await self._one_run(number, cluster, image)
            if BAD_ROW in self._rows:
                await self._once(BAD_ROW, lambda: self._bad_specs(client))
            operator = Operator(etcd, client)
            if COST in self._rows:
                await self._once(COST, lambda: self._cost(cluster, operator))
            if FLEET_ROW in self._rows:
                await self._once(FLEET_ROW, lambda: self._fleet(cluster, operator))

    async def _one_run(self, number: int, cluster: MeasuredCluster, image: str) -> None:
        """Measures the bare pod and every row once."""
        folder = _FOLDER / f"run-{number}"
        rows = Rows(cluster, Access.of(cluster.node.etcd.node), folder, number)
        bare = await self._bare_pod(number, cluster, image)
        for name in self._rows:
            if name not in ROWS:
                continue
            began = time.monotonic()
            try:
                sample = await ROWS[name](rows)
            except FAILURES as error:
                sample = Sample(number, error=first_paragraph(error))
            if sample.error:
                await self._explain(cluster, folder / f"{name}.txt")
            took = time.monotonic() - began
            sample = msgspec.structs.replace(sample, took=took, bare_pod=bare)
            self._took.setdefault(name, []).append(took)
            self.results.samples.setdefault(name, []).append(sample)
            self.results.save(self.file)
            self._say(f"run {number} of {self._runs}, {name}: {_shown(sample)}")

    async def _bare_pod(self, number: int, cluster: MeasuredCluster, image: str) -> float | None:
        """Measures the bare pod. None: that failed."""
        began = time.monotonic()
        try:
            await cluster.wipe()
            bare = await bare_pod.seconds_to_ready(cluster, image)
        except FAILURES as error:
            self.results.errors[f"bare pod of run {number}"] = first_paragraph(error)
            self._say(f"run {number} of {self._runs}, bare pod: failed: {first_paragraph(error)}")
            return None
        self.results.bare_pods.append(bare)
        self._took.setdefault("bare-pod", []).append(time.monotonic() - began)
        self._say(f"run {number} of {self._runs}, bare pod: {bare:.1f} s")
        return bare

    async def _once(self, name: str, measure: Callable[[], Awaitable[None]]) -> None:
        """Measures something that is not repeated."""
        began = time.monotonic()
        try:
            await measure()
        except FAILURES as error:
            self.results.errors[name] = first_paragraph(error)
            self._say(f"{name}: failed: {first_paragraph(error)}")
        self._took[name] = [time.monotonic() - began]
        self.results.save(self.file)

    async def _bad_specs(self, client: Client) -> None:
        """Applies every bad spec once."""
        self.results.bad_specs = await bad_specs.measure(client, NAMESPACE)

    async def _cost(self, cluster: MeasuredCluster, operator: Operator) -> None:
        """Measures a new process of the operator with one cluster of three members."""
        await operator.restart()
        await cluster.prepare(SIZE)
        self._say(f"{COST}: a window of {_WINDOW_ONE:.0f} s with one cluster")
        await cluster.view.quiet(_QUIET)
        self.results.costs[ONE] = await operator.steady(1, SIZE, _WINDOW_ONE)

    async def _fleet(self, cluster: MeasuredCluster, operator: Operator) -> None:
        """Measures many clusters of one member: their creation, and then a window without a change."""
        await cluster.wipe()
        self._say(f"{FLEET_ROW}: creating {FLEET} clusters")
        self.results.fleet = found = await fleet.create(cluster, operator)
        self.results.save(self.file)
        self._say(f"{FLEET_ROW}: {found.healthy} are healthy after {found.seconds:.0f} s")
        await cluster.view.quiet(_QUIET)
        self.results.costs[MANY] = await operator.steady(FLEET, 1, _WINDOW_MANY)

    async def _explain(self, cluster: MeasuredCluster, file: Path) -> None:
        """Writes the state of the cluster and the logs into a file."""
        text = await asyncio.to_thread(cluster.node.explain)
        file.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(file.write_text, text)

    def _say(self, line: str) -> None:
        print(f"bench: {line}", flush=True)


def _without(earlier: Results, rows: Sequence[str], new: Results) -> Results:
    """Returns earlier results without the rows that are measured again.

    Raises:
        ClusterError: They are of another day or machine than the new ones.
    """
    if (earlier.date, earlier.machine) != (new.date, new.machine):
        raise ClusterError(
            f"The results in {RESULTS} are of {earlier.date} on {earlier.machine}. Measure all rows again."
        )
    for name in rows:
        earlier.samples.pop(name, None)
        earlier.errors.pop(name, None)
    if BAD_ROW in rows:
        earlier.bad_specs = {}
    if COST in rows:
        earlier.costs.pop(ONE, None)
    if FLEET_ROW in rows:
        earlier.costs.pop(MANY, None)
        earlier.fleet = None
    return earlier


def _shown(sample: Sample) -> str:
    if sample.error:
        lost = "not read back" if sample.lost is None else f"{sample.lost} lost writes"
        return f"failed: {sample.error}, {lost} (row took {sample.took:.0f} s)"
    parts = [f"{sample.seconds:.1f} s"]
    if sample.failed_writes is not None and sample.longest_gap is not None:
        parts.append(f"{sample.failed_writes} failed writes, longest gap {sample.longest_gap:.0f} ms")
    parts += [f"{len(sample.problems)} problems: {sample.problems[0]}"] if sample.problems else []
    return f"{', '.join(parts)} (row took {sample.took:.0f} s)"
