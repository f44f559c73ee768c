"""Many clusters of one member that are created at the same time."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time

from devcluster.shell import ClusterError
from etcd_operator.types import ETCD_CLUSTER
from tests.bench.etcd.cluster import MeasuredCluster, manifest
from tests.bench.etcd.cost import Operator
from tests.bench.etcd.goals import FLEET, VERSION
from tests.bench.etcd.results import Fleet
from tests.cluster.etcd import NAMESPACE

#: Seconds until all are healthy.
PATIENCE = 420.0
#: Bytes of disk for each member: two files of the log of 64 MiB, and the database.
_DISK = 140 * 2**20
#: Bytes that must stay free. The kubelet of the local node evicts pods when less than 1 % is.
_MARGIN = 3 * 2**30
_POD = {"persistentVolumeClaimSpec": {"resources": {"requests": {"storage": "256Mi"}}}}


async def create(cluster: MeasuredCluster, operator: Operator) -> Fleet:
    """Creates all clusters at the same time, and waits until they are healthy.

    Args:
        cluster: The access to the namespace, which has no other cluster.
        operator: The operator.

    Raises:
        ClusterError: There is not enough disk space.
    """
    _require_disk(cluster)
    view = cluster.view
    healthy: dict[str, float] = {}
    pending = {f"fleet-{number:02}" for number in range(FLEET)}

    def all_healthy() -> bool:
        for name in [each for each in pending if view.settled(each, 1, VERSION)]:
            pending.remove(name)
            healthy[name] = time.monotonic() - began
        return not pending

    began = time.monotonic()
    await asyncio.gather(
        *(
            cluster.client.create(ETCD_CLUSTER.resource, manifest(name, 1, pod=_POD), namespace=NAMESPACE)
            for name in sorted(pending)
        )
    )
    try:
        await view.until(all_healthy, f"{FLEET} clusters are healthy", PATIENCE)
    except ClusterError:
        if not healthy:
            raise
    memory = operator.process().memory()
    return Fleet(
        clusters=FLEET,
        healthy=len(healthy),
        seconds=max(healthy.values()),
        median=statistics.median(healthy.values()),
        resident=memory.resident,
        peak=memory.peak,
    )


def _require_disk(cluster: MeasuredCluster) -> None:
    free = shutil.disk_usage(cluster.node.etcd.node.nodes[0].folder).free
    needed = FLEET * _DISK + _MARGIN
    if free < needed:
        raise ClusterError(
            f"{FLEET} clusters need {needed / 2**30:.0f} GiB of disk, but only {free / 2**30:.0f} GiB are "
            "free. Delete what you do not need, for example build/ of other checkouts."
        )
