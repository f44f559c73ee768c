"""The cluster that is measured: changed through the API without a process in between, seen by watches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

import msgspec

from devcluster.shell import ClusterError
from etcd_operator.etcd import Endpoint
from etcd_operator.types import ETCD_CLUSTER, EtcdCluster
from etcd_operator.views import POD
from pilothouse import PERSISTENT_VOLUME_CLAIM, SERVICE
from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource, unstructured
from tests.bench.etcd.goals import VERSION
from tests.bench.etcd.view import PATIENCE, View, serves
from tests.cluster.etcd import NAME, NAMESPACE, SIZE, EtcdClusterOnNode

#: Seconds between two checks of what no watch shows.
_POLL = 0.05


class _ClaimReference(msgspec.Struct, frozen=True):
    namespace: str = ""


class _VolumeSpec(msgspec.Struct, frozen=True, rename="camel"):
    claim_ref: _ClaimReference | None = None


class _VolumeStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class _Volume(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _VolumeSpec = _VolumeSpec()
    status: _VolumeStatus = _VolumeStatus()


_VOLUME = Resource("", "v1", "PersistentVolume", "persistentvolumes", _Volume, namespaced=False)


class MeasuredCluster:
    """One EtcdCluster, and what is done to it.

    Attributes:
        client: The client for the API server.
        view: What is in its namespace.
        node: The same cluster, for what is not measured.
    """

    def __init__(self, client: Client, view: View, node: EtcdClusterOnNode) -> None:
        self.client = client
        self.view = view
        self.node = node

    @property
    def resource(self) -> EtcdCluster:
        """The EtcdCluster.

        Raises:
            ClusterError: It does not exist.
        """
        found = self.view.cluster(NAME)
        if found is None:
            raise ClusterError(f"The EtcdCluster {NAME} does not exist.")
        return found

    @property
    def leader(self) -> str:
        """The name of the leader."""
        return self.resource.status.leader

    @property
    def follower(self) -> str:
        """The name of a member that is not the leader."""
        return min(self.view.members(NAME).keys() - {self.leader})

    def uids(self, *members: str) -> set[str]:
        """Returns the UIDs of the pods of members."""
        pods = self.view.members(NAME)
        return {pods[each].metadata.uid for each in members}

    def endpoints(self) -> Mapping[str, Endpoint]:
        """Returns where each member serves clients."""
        pods = self.view.members(NAME)
        return {name: Endpoint(pod.status.pod_ip, "") for name, pod in pods.items()}

    def serving(self) -> Mapping[str, Endpoint]:
        """Returns where those members serve clients that the client Service sends requests to."""
        pods = self.view.members(NAME)
        return {name: Endpoint(pod.status.pod_ip, "") for name, pod in pods.items() if serves(pod)}

    # Changes.

    async def create(self) -> None:
        """Creates the EtcdCluster."""
        await self.client.create(ETCD_CLUSTER.resource, manifest(NAME, SIZE), namespace=NAMESPACE)

    async def change(self, **spec: object) -> None:
        """Changes fields of the spec."""
        key = ObjectKey(NAMESPACE, NAME)
        await self.client.patch(ETCD_CLUSTER.resource, key, {"spec": spec}, type=PatchType.MERGE)

    async def delete_pods(self, *members: str) -> None:
        """Deletes the pods of members at the same time."""
        await asyncio.gather(*(self.client.delete(POD, ObjectKey(NAMESPACE, each)) for each in members))

    async def delete_claim(self, member: str) -> None:
        """Deletes the volume of a member. It exists until the pod no longer does."""
        await self.client.delete(PERSISTENT_VOLUME_CLAIM, ObjectKey(NAMESPACE, member))

    # Waits.

    async def settle(
        self,
        size: int,
        version: str = VERSION,
        without: Collection[str] = (),
        seconds: float = PATIENCE,
    ) -> float:
        """Waits until the cluster is healed, as `View.settled` defines it, and returns when it was."""
        what = f"{size} members of version {version} serve"
        return await self.view.until(
            lambda: self.view.settled(NAME, size, version, without), what, seconds=seconds
        )

    async def service(self) -> Endpoint:
        """Waits until the client Service has an address, and returns it."""
        key, ends = ObjectKey(NAMESPACE, f"{NAME}-client"), time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            try:
                found = await self.client.get(unstructured(SERVICE), key)
            except NotFound:
                await asyncio.sleep(_POLL)
            else:
                return Endpoint(found.content["spec"]["clusterIP"], "")
        raise ClusterError(f"The Service {key} did not exist after {PATIENCE:.0f} s.")

    # Preparations.

    async def prepare(self, size: int) -> None:
        """Brings the cluster to a size and the first version. One that does not heal is replaced."""
        cluster = self.view.cluster(NAME)
        if cluster is not None and cluster.spec.version == VERSION:
            with suppress(ClusterError):
                await self._resize(size)
                return
        await self.wipe()
        await self.create()
        await self.settle(SIZE)
        await self._resize(size)

    async def _resize(self, size: int) -> None:
        """Brings the cluster to a size, unless it has it, and waits until it is healed."""
        if self.resource.spec.size != size:
            await self.change(size=size)
        await self.settle(size)

    async def wipe(self) -> None:
        """Deletes the EtcdCluster with all its volumes, and waits until their files are deleted."""
        await asyncio.to_thread(self.node.wipe)
        await self.view.until(lambda: self.view.cluster(NAME) is None, "the EtcdCluster is deleted")
        await self.released()

    async def leave_volumes(self) -> None:
        """Makes sure that there are volumes of an earlier scale-in."""
        if not self.resource.status.retained_volumes:
            await self.prepare(SIZE + 2)
            await self.prepare(SIZE)

    async def drop_left_volumes(self) -> None:
        """Deletes the volumes of earlier scale-ins."""
        for each in self.resource.status.retained_volumes:
            await self.delete_claim(each)
        await self.view.until(lambda: not self.resource.status.retained_volumes, "no volume is left")
        await self.released()

    async def released(self) -> None:
        """Waits until the files of all deleted volumes are deleted, which takes a pod for each."""
        ends = time.monotonic() + PATIENCE
        while await self._releasing():
            if time.monotonic() > ends:
                raise ClusterError(f"Deleted volumes still existed after {PATIENCE:.0f} s.")
            await asyncio.sleep(_POLL * 4)

    async def _releasing(self) -> bool:
        volumes = [each async for page in self.client.pages(_VOLUME) for each in page.items]
        return any(map(_deleted, volumes))


def _deleted(volume: _Volume) -> bool:
    claim = volume.spec.claim_ref
    return claim is not None and claim.namespace == NAMESPACE and volume.status.phase != "Bound"


def manifest(name: str, size: int, **spec: object) -> dict[str, object]:
    """Returns an EtcdCluster of the first version."""
    return {
        "apiVersion": ETCD_CLUSTER.resource.api_version,
        "kind": ETCD_CLUSTER.resource.kind,
        "metadata": {"name": name},
        "spec": {"size": size, "version": VERSION, **spec},
    }
