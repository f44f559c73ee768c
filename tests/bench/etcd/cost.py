"""What the operator's process costs while nothing changes, from the kernel and from its own metrics."""

from __future__ import annotations

import asyncio
import time
from typing import Any, NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from pilothouse.informer import Informer
from pilothouse.kube import Client, ObjectKey, PartialObjectMetadata, Resource
from release import packages
from tests.bench.etcd.results import Cost
from tests.bench.process import Process
from tests.cluster.etcd import Etcd

#: Seconds until the operator has counted the answer to a request that a watch has shown. It renews its Lease
#: every 2 s, so the next renewal does not come before the counters are read.
_COUNTED = 0.3
_PORT = 8081
_LEASE = Resource("coordination.k8s.io", "v1", "Lease", "leases", PartialObjectMetadata)


class Counts(NamedTuple):
    """What the operator's counters show.

    Attributes:
        writes: Writes to Kubernetes.
        reads: Reads from Kubernetes without watches.
        watches: Watches that it has opened.
        etcd_calls: Calls to members.
    """

    writes: int
    reads: int
    watches: int
    etcd_calls: int


def counts(metrics: str) -> Counts:
    """Returns the counts in the operator's metrics.

    Only the counter of all requests includes watches, which are GET requests; the histogram does not.

    Args:
        metrics: The metrics in the Prometheus text format.
    """
    reads = writes = gets = etcd = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            value = int(sample.value)
            match sample.name, sample.labels.get("verb", sample.labels.get("method")):
                case "rest_client_request_duration_seconds_count", "GET":
                    reads += value
                case "rest_client_request_duration_seconds_count", _:
                    writes += value
                case "rest_client_requests_total", "GET":
                    gets += value
                case "etcd_client_requests_total", _:
                    etcd += value
    return Counts(writes, reads, gets - reads, etcd)


class Operator:
    """The installed operator as a process of this machine.

    Args:
        etcd: The installation.
        client: The client for the API server.
    """

    def __init__(self, etcd: Etcd, client: Client) -> None:
        self._etcd = etcd
        self._client = client

    async def restart(self) -> None:
        """Replaces its pod, and waits until only the new one exists."""
        package = self._etcd.package
        [old] = self._pods()
        words = ("pod", old["metadata"]["name"], "-n", packages.NAMESPACE)
        await asyncio.to_thread(self._etcd.kubectl, "delete", *words, timeout=90)
        rollout = ("rollout", "status", f"deployment/{package.name}", "-n", packages.NAMESPACE)
        await asyncio.to_thread(self._etcd.kubectl, *rollout, timeout=90)

    def process(self) -> Process:
        """Returns its process."""
        [pod] = self._pods()
        return Process(pod["metadata"]["uid"], self._etcd.package.module)

    async def counts(self) -> Counts:
        """Reads its counters through the API server."""
        [pod] = self._pods()
        path = f"/api/v1/namespaces/{packages.NAMESPACE}/pods/{pod['metadata']['name']}:{_PORT}/proxy/metrics"
        return counts((await self._client.request("GET", path, accept="text/plain")).decode())

    async def steady(self, clusters: int, members: int, seconds: float) -> Cost:
        """Measures a window in which nothing changes.

        The window begins and ends at a renewal of the Lease. So the renewals in it can be counted, and be
        subtracted from the writes.

        Args:
            clusters: The number of clusters.
            members: The number of members of each.
            seconds: The least length of the window.
        """
        async with _Renewals(self._client, self._etcd.package.name) as renewals:
            process = self.process()
            before, renewed = await self._at_renewal(renewals)
            cpu, began = process.cpu_seconds(), time.monotonic()
            await asyncio.sleep(seconds)
            after, renewed_now = await self._at_renewal(renewals)
            memory = process.memory()
            return Cost(
                clusters=clusters,
                members=members,
                seconds=time.monotonic() - began,
                resident=memory.resident,
                peak=memory.peak,
                cpu_seconds=process.cpu_seconds() - cpu,
                writes=after.writes - before.writes - (renewed_now - renewed),
                renewals=renewed_now - renewed,
                reads=after.reads - before.reads,
                watches=after.watches - before.watches,
                etcd_calls=after.etcd_calls - before.etcd_calls,
            )

    async def _at_renewal(self, renewals: _Renewals) -> tuple[Counts, int]:
        await renewals.next()
        await asyncio.sleep(_COUNTED)
        return await self.counts(), renewals.count

    def _pods(self) -> list[dict[str, Any]]:
        return [each for each in self._etcd.pods() if "deletionTimestamp" not in each["metadata"]]


class _Renewals:
    """Counts the renewals of the operator's Lease, from a watch.

    Attributes:
        count: The number so far.
    """

    def __init__(self, client: Client, name: str) -> None:
        self.count = 0
        self._name = name
        self._renewed = asyncio.Event()
        self._informer = Informer(
            client, _LEASE, namespaces=[packages.NAMESPACE], field_selector=f"metadata.name={name}"
        )

    async def __aenter__(self) -> Self:
        self._informer.add_handler(self._note)
        self._task = asyncio.create_task(self._informer.run())
        await self._informer.wait_synced()
        if self._informer.store.get(ObjectKey(packages.NAMESPACE, self._name)) is None:
            raise LookupError(f"The operator has no Lease {packages.NAMESPACE}/{self._name}.")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def next(self) -> None:
        """Waits for the next renewal."""
        self._renewed.clear()
        async with asyncio.timeout(60):
            await self._renewed.wait()

    def _note(self, old: object, new: object, initial: bool) -> None:
        if new is not None and not initial:
            self.count += 1
            self._renewed.set()
