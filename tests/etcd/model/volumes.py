"""PersistentVolumeClaims: binding, protection, and the data that is deleted with them."""

from __future__ import annotations

from typing import Any

from pilothouse.kube import PatchType, Resource
from pilothouse.testing.controllers import Built, StandIn
from pilothouse.testing.controllers.cluster import Cluster
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.members import Members
from tests.etcd.model.node import SELECTED_NODE, Machines, claims_of

PROTECTION = "kubernetes.io/pvc-protection"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
#: Seconds from the first pod on a claim until it is bound.
BIND = 2.0


STORAGE_CLASS: Resource[Built] = Resource(
    "storage.k8s.io", "v1", "StorageClass", "storageclasses", Built, namespaced=False
)


class Volumes(StandIn):
    """Binds claims when the first pod uses them, and protects claims that pods use.

    A claim without a class gets the default class, also if that is created later.

    Args:
        members: The model of etcd.
        machines: The nodes.
    """

    kinds = (CLAIM, POD, STORAGE_CLASS)

    def __init__(self, members: Members, machines: Machines) -> None:
        self._members = members
        self._machines = machines

    def concerned(self, resource: Resource[Built], obj: Built, cluster: Cluster) -> Any:
        """Yields the keys of the claims to check when an object changes."""
        if resource is CLAIM:
            yield obj.key
        for each in cluster.all(CLAIM):
            if resource is STORAGE_CLASS or (resource is POD and each.metadata.name in claims_of(obj)):
                yield each.key

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a claim."""
        users = [each for each in cluster.all(POD) if _uses(each, obj)]
        finalizers = obj.metadata.finalizers
        if obj.metadata.deletion_timestamp is not None:
            if not users and PROTECTION in finalizers:
                await _patch(cluster, obj, finalizers=[each for each in finalizers if each != PROTECTION])
            return None
        if PROTECTION not in finalizers:
            await _patch(cluster, obj, finalizers=[*finalizers, PROTECTION])
            return None
        if obj.status.get("phase") in ("Bound", "Lost"):
            return None
        if not obj.status.get("phase"):
            await cluster.set_status(CLAIM, obj, {"phase": "Pending"})
        if not obj.spec.get("storageClassName"):
            await self._choose_class(cluster, obj)
            return None
        if not users or not self._exists(cluster, obj.spec["storageClassName"]):
            return None
        if (left := BIND - cluster.elapsed(obj, "used")) > 1e-6:
            return left
        await self._bind(cluster, obj, users[0])
        return None

    async def gone(self, cluster: Cluster, obj: Built) -> None:
        """Deletes the data of a deleted claim."""
        volume = self._machines.volumes.pop(obj.metadata.uid, None)
        if volume is not None:
            self._members.drop(volume)

    async def _choose_class(self, cluster: Cluster, obj: Built) -> None:
        classes = cluster.all(STORAGE_CLASS)
        default = [each for each in classes if each.metadata.annotations.get(DEFAULT_CLASS) == "true"]
        if default:
            await _patch(cluster, obj, spec={"storageClassName": default[0].metadata.name})

    def _exists(self, cluster: Cluster, name: str) -> bool:
        return any(each.metadata.name == name for each in cluster.all(STORAGE_CLASS))

    async def _bind(self, cluster: Cluster, obj: Built, user: Built) -> None:
        node = str(user.spec.get("nodeName") or self._machines.nodes[0])
        spec = {"volumeName": f"pvc-{obj.metadata.uid}"}
        body = {"metadata": {"uid": obj.metadata.uid, "annotations": {SELECTED_NODE: node}}, "spec": spec}
        bound = await cluster.api.patch(CLAIM, obj.key, body, type=PatchType.MERGE)
        capacity = obj.spec.get("resources", {}).get("requests", {})
        modes = obj.spec.get("accessModes", [])
        status = {"phase": "Bound", "accessModes": modes, "capacity": capacity}
        await cluster.set_status(CLAIM, bound, status)


async def _patch(cluster: Cluster, obj: Built, *, finalizers: Any = None, spec: Any = None) -> None:
    body: dict[str, Any] = {"metadata": {"uid": obj.metadata.uid}}
    if finalizers is not None:
        body["metadata"]["finalizers"] = finalizers
    if spec is not None:
        body["spec"] = spec
    await cluster.api.patch(CLAIM, obj.key, body, type=PatchType.MERGE)


def _uses(pod: Built, claim: Built) -> bool:
    finished = pod.status.get("phase") in ("Succeeded", "Failed")
    same = pod.metadata.namespace == claim.metadata.namespace
    return same and not finished and claim.metadata.name in claims_of(pod)
