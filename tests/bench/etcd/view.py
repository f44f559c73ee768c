"""The clusters and pods of a namespace as watches report them, so that no figure is a multiple of a poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Self

from devcluster.shell import ClusterError
from etcd_operator.blueprint import SERVING
from etcd_operator.types import ETCD_CLUSTER, LABEL, EtcdCluster
from etcd_operator.views import POD, Pod
from pilothouse.informer import InformerFactory
from pilothouse.kube import Client, ObjectKey

#: Seconds for a change. On a quiet machine, none takes a quarter of it.
PATIENCE = 90.0


class View:
    """What is in a namespace now, as an async context manager.

    Args:
        client: The client for the API server.
        namespace: The namespace.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._namespace = namespace
        self._informers = InformerFactory(client)
        self._clusters = self._informers.informer(ETCD_CLUSTER.resource, namespaces=[namespace])
        self._pods = self._informers.informer(POD, namespaces=[namespace])
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        for informer in (self._clusters, self._pods):
            informer.add_handler(lambda *_: self._changed.set())
        self._task = asyncio.create_task(self._informers.run())
        await self._informers.wait_synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def cluster(self, name: str) -> EtcdCluster | None:
        """Returns an EtcdCluster, or None if it does not exist."""
        return self._clusters.store.get(ObjectKey(self._namespace, name))

    def clusters(self) -> list[EtcdCluster]:
        """Returns every EtcdCluster."""
        return self._clusters.store.values()

    def pod(self, name: str) -> Pod | None:
        """Returns a pod, or None if it does not exist."""
        return self._pods.store.get(ObjectKey(self._namespace, name))

    def members(self, cluster: str) -> dict[str, Pod]:
        """Returns the pods of the members of a cluster by name."""
        pods = self._pods.store.values()
        return {each.metadata.name: each for each in pods if each.metadata.labels.get(LABEL) == cluster}

    def settled(self, name: str, size: int, version: str, without: Collection[str] = ()) -> bool:
        """Returns whether a cluster is healed.

        It is if its status shows `size` started voters that are ready, all run the version, the operator has
        nothing more to do, and exactly these pods serve clients.

        Args:
            name: The name of the cluster.
            size: The number of members.
            version: The version of all members.
            without: The UIDs of pods that must not exist any more.
        """
        cluster, pods = self.cluster(name), self.members(name)
        if cluster is None or len(pods) != size:
            return False
        status = cluster.status
        return (
            healthy(cluster)
            and status.size == size
            and status.current_version == version
            and set(status.members.ready) == pods.keys()
            and not {each.metadata.uid for each in pods.values()} & set(without)
            and all(map(serves, pods.values()))
        )

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> float:
        """Waits for a condition on what is seen here, and returns when it was met (`time.monotonic`).

        Args:
            condition: The condition. It is checked after every change.
            what: The condition, for the error.
            seconds: How long to wait.

        Raises:
            ClusterError: The condition was not met in time.
        """
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise ClusterError(f"Timed out after {seconds:.0f} s. Not reached: {what}.") from None
        return time.monotonic()

    async def quiet(self, seconds: float) -> None:
        """Waits until nothing has changed for the given number of seconds."""
        while True:
            self._changed.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                return


def healthy(cluster: EtcdCluster) -> bool:
    """Returns whether the operator has nothing more to do for the current spec of a cluster."""
    ready = any(each.type == "Ready" and each.status == "True" for each in cluster.status.conditions)
    return ready and cluster.status.observed_generation == cluster.metadata.generation


def is_ready(pod: Pod) -> bool:
    """Returns whether a pod is Ready and not being deleted."""
    ready = any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)
    return ready and pod.metadata.deletion_timestamp is None


def serves(pod: Pod) -> bool:
    """Returns whether the client Service sends requests to a pod."""
    return is_ready(pod) and pod.metadata.labels.get(SERVING) == "true"
