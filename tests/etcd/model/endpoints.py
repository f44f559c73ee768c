"""EndpointSlices of Services, and the names of pods that DNS derives from them."""

from __future__ import annotations

from typing import Any

from pilothouse.kube import ObjectKey, PatchType, Resource
from pilothouse.testing import Json
from pilothouse.testing.controllers import Built, StandIn
from pilothouse.testing.controllers.cluster import Cluster
from pilothouse.testing.controllers.pods import POD, is_ready
from tests.etcd.model.members import Members

SERVICE: Resource[Built] = Resource("", "v1", "Service", "services", Built)
SLICE: Resource[Built] = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", Built)


class Endpoints(StandIn):
    """Writes one EndpointSlice per Service, and publishes the names of pods with a subdomain.

    Args:
        members: The model of etcd, whose network gets the names.
    """

    kinds = (SERVICE, POD)

    def __init__(self, members: Members) -> None:
        self._members = members
        self._written: dict[str, list[Json]] = {}
        self._names: dict[ObjectKey, dict[str, str]] = {}
        self.ready: dict[ObjectKey, list[str]] = {}

    def concerned(self, resource: Resource[Built], obj: Built, cluster: Cluster) -> Any:
        """Yields the keys of the Services to check when an object changes."""
        if resource is SERVICE:
            yield obj.key
        else:
            yield from (
                each.key for each in cluster.all(SERVICE) if each.metadata.namespace == obj.metadata.namespace
            )

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Brings the EndpointSlice of a Service up to date."""
        selector = obj.spec.get("selector") or {}
        pods = [
            each
            for each in cluster.all(POD)
            if each.metadata.namespace == obj.metadata.namespace
            and each.status.get("podIP")
            and selector.items() <= each.metadata.labels.items()
        ]
        if not selector:
            return None
        endpoints = [_endpoint(obj, pod) for pod in pods]
        self._publish(obj, endpoints)
        if self._written.get(obj.metadata.uid) != endpoints:
            await self._write(cluster, obj, endpoints)
            self._written[obj.metadata.uid] = endpoints
        return None

    async def gone(self, cluster: Cluster, obj: Built) -> None:
        """Forgets the names of a deleted Service."""
        self._publish(obj, [])

    def _publish(self, obj: Built, endpoints: list[Json]) -> None:
        """Publishes the addresses of a Service and the names of its pods."""
        ready = [each["addresses"][0] for each in endpoints if each["conditions"]["ready"]]
        self.ready[obj.key] = ready
        domain = f"{obj.metadata.name}.{obj.metadata.namespace}.svc"
        names = {
            f"{each['hostname']}.{domain}": each["addresses"][0]
            for each in endpoints
            if "hostname" in each and each["conditions"]["ready"]
        }
        if names == self._names.get(obj.key):
            return
        self._members.advance()
        for name in self._names.get(obj.key, {}):
            self._members.network.names.pop(name, None)
        self._names[obj.key] = names
        self._members.network.names |= names
        self._members.refresh()

    async def _write(self, cluster: Cluster, obj: Built, endpoints: list[Json]) -> None:
        owner = {
            "apiVersion": "v1",
            "kind": "Service",
            "name": obj.metadata.name,
            "uid": obj.metadata.uid,
            "controller": True,
        }
        name = f"{obj.metadata.name}-endpoints"
        body = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": name,
                "namespace": obj.metadata.namespace,
                "labels": {**obj.metadata.labels, "kubernetes.io/service-name": obj.metadata.name},
                "ownerReferences": [owner],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [
                {name: value for name, value in port.items() if name in ("name", "port", "protocol")}
                for port in obj.spec.get("ports", [])
            ],
        }
        key = ObjectKey(obj.metadata.namespace, name)
        await cluster.api.patch(SLICE, key, body, type=PatchType.APPLY, force=True)


def _endpoint(service: Built, pod: Built) -> Json:
    terminating = pod.metadata.deletion_timestamp is not None
    serving = is_ready(pod)
    always = bool(service.spec.get("publishNotReadyAddresses"))
    endpoint: Json = {
        "addresses": [pod.status["podIP"]],
        "conditions": {
            "ready": always or (serving and not terminating),
            "serving": serving or always,
            "terminating": terminating,
        },
        "nodeName": pod.spec.get("nodeName", ""),
        "targetRef": {
            "kind": "Pod",
            "namespace": pod.metadata.namespace,
            "name": pod.metadata.name,
            "uid": pod.metadata.uid,
        },
    }
    if pod.spec.get("subdomain") == service.metadata.name and pod.spec.get("hostname"):
        endpoint["hostname"] = pod.spec["hostname"]
    return endpoint
