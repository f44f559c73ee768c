"""The etcd operator on a real API server, with the model of etcd and of the kubelet."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import ETCD_CLUSTER
from etcd_operator.views import ENDPOINT_SLICE
from pilothouse.api.crd import crd
from pilothouse.kube import Client, ObjectKey, PatchType, Resource, Unstructured
from pilothouse.playbook import add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, Json, eventually, explain
from pilothouse.testing.controllers import running as running_controllers
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.etcd.model.volumes import DEFAULT_CLASS, STORAGE_CLASS
from tests.etcd.model.world import EtcdWorld
from tests.running import running

pytestmark = ON_BOTH

CLUSTERS: Resource[Any] = ETCD_CLUSTER.resource
IMAGES = {f"quay.io/coreos/etcd:v{version}": version for version in ("3.5.33", "3.6.14")}
NAME = "pilothouse-etcd"
NAMESPACES = Resource("", "v1", "Namespace", "namespaces", Unstructured, namespaced=False)


@asynccontextmanager
async def operated(
    client: Client, api_server: ApiServer, namespace: str, *, token: str = "", **settings: Any
) -> AsyncIterator[EtcdWorld]:
    """Runs the operator and the model of the nodes inside the block.

    Without a namespace, the operator watches all. Without a token, it is an administrator.
    """
    await install(client, crd(ETCD_CLUSTER))
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "standard", "annotations": {DEFAULT_CLASS: "true"}},
        "provisioner": "example.com/local",
    }
    await client.patch(STORAGE_CLASS, ObjectKey("", "standard"), body, type=PatchType.APPLY, force=True)
    world = EtcdWorld(IMAGES, ["node-1"])
    watched = (namespace,) if namespace else ()
    own_settings = Settings(health_host="127.0.0.1", health_port=0, watch_namespaces=watched, **settings)
    async with (
        running_controllers(client, *world.controllers),
        Client(api_server.config(token), user_agent=NAME) as own,
    ):
        manager = Manager(NAME, own_settings, own)
        add_watch(manager, etcd_watch(world.connections(), EtcdSettings()))
        async with running(manager):
            yield world


async def read(client: Client, resource: Resource[Any], namespace: str, name: str = "") -> Json:
    found: Json = json.loads(await client.request("GET", resource.path(namespace, name)))
    return found


async def test_a_cluster_is_created_healed_resized_and_upgraded(
    client: Client, api_server: ApiServer, namespace: str
) -> None:
    key = ObjectKey(namespace, "example")

    async def change(**spec: Any) -> None:
        body = {"apiVersion": CLUSTERS.api_version, "kind": CLUSTERS.kind, "metadata": {"name": key.name}}
        await client.patch(CLUSTERS, key, {**body, "spec": spec}, type=PatchType.APPLY, force=True)

    async def ready() -> bool:
        found = await read(client, CLUSTERS, namespace, key.name)
        condition: Json = next(
            (each for each in found.get("status", {}).get("conditions", ()) if each["type"] == "Ready"), {}
        )
        generation = found["metadata"]["generation"]
        return (condition.get("status"), condition.get("observedGeneration")) == ("True", generation)

    async def settled(size: int) -> Json:
        describe = explain(client, CLUSTERS, POD, CLAIM, namespace=namespace)
        await eventually(ready, within=90, describe=describe)
        found = await read(client, CLUSTERS, namespace, key.name)
        assert len(found["status"]["members"]["ready"]) == size
        status: Json = found["status"]
        return status

    async with operated(client, api_server, namespace) as world:
        await change(size=3, version="3.5.33")
        status = await settled(3)
        victim = status["members"]["ready"][0]
        await client.delete(POD, ObjectKey(namespace, victim))
        await client.delete(CLAIM, ObjectKey(namespace, victim))

        async def replaced() -> bool:
            found = await read(client, CLUSTERS, namespace, key.name)
            names = [each["name"] for each in found["status"]["record"]["voters"]]
            return victim not in names and len(names) == 3

        await eventually(
            replaced, within=60, describe=explain(client, ENDPOINT_SLICE, CLUSTERS, POD, namespace=namespace)
        )
        await settled(3)
        await change(size=1, version="3.5.33")
        await settled(1)
        await change(size=2, version="3.5.33")
        await settled(2)
        await change(size=2, version="3.6.14")
        assert (await settled(2))["currentVersion"] == "3.6.14"
        assert world.lost() == []


SPREAD = {"topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
NODES = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Inn"}]}]}
FIELD = {"fieldRef": {"fieldPath": "metadata.name"}}
REFUSED: list[tuple[str, Json]] = [
    ("tolerations", {"tolerations": [{"key": "a", "operator": "Near"}]}),
    ("securityContext", {"securityContext": {"runAsUser": -1}}),
    ("topologySpreadConstraints", {"topologySpreadConstraints": [{"maxSkew": 0, **SPREAD}]}),
    # The server answers this with a 500.
    (
        "topologySpreadConstraints",
        {"topologySpreadConstraints": [{"maxSkew": each, **SPREAD} for each in (1, 2)]},
    ),
    ("affinity", {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": NODES}}}),
    ("etcdEnv", {"etcdEnv": [{"name": "A", "value": "b", "valueFrom": FIELD}]}),
]


async def test_a_pod_that_the_server_refuses_costs_no_member(
    client: Client, api_server: ApiServer, namespace: str
) -> None:
    key = ObjectKey(namespace, "example")

    async def change(pod: Json) -> None:
        spec = {"size": 1, "version": "3.6.14", "pod": pod}
        body = {"apiVersion": CLUSTERS.api_version, "kind": CLUSTERS.kind, "metadata": {"name": key.name}}
        await client.patch(CLUSTERS, key, {**body, "spec": spec}, type=PatchType.APPLY, force=True)

    async def ready() -> Json:
        found = await read(client, CLUSTERS, namespace, key.name)
        current: Json = next(
            (
                each
                for each in found.get("status", {}).get("conditions", ())
                if each["type"] == "Ready" and each["observedGeneration"] == found["metadata"]["generation"]
            ),
            {},
        )
        return current

    async def reports(reason: str, words: str) -> None:
        async def reported() -> bool:
            found = await ready()
            return found.get("reason") == reason and words in found["message"]

        describe = explain(client, CLUSTERS, POD, namespace=namespace)
        await eventually(reported, within=90, describe=describe)

    async def uids() -> list[str]:
        found = await read(client, POD, namespace)
        return [each["metadata"]["uid"] for each in found["items"]]

    async with operated(client, api_server, namespace):
        await change({})
        await reports("Settled", "")
        before = await uids()
        for field, pod in REFUSED:
            await change(pod)
            await reports("InvalidSpec", f"The API server refuses pods with this spec.pod.{field}: ")
        labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        await client.patch(NAMESPACES, ObjectKey("", namespace), labels, type=PatchType.MERGE)
        await change({"securityContext": {"runAsUser": 0}})
        await reports("InvalidSpec", "violates PodSecurity")
        assert await uids() == before
        await change({})
        await reports("Settled", "")
        assert await uids() == before
        await change({"tolerations": [{"key": "a", "operator": "Exists"}]})
        await reports("Settled", "")
        assert len({*before, *await uids()}) == 2
