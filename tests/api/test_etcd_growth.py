"""Whether volumes grow: the API server's own admission decides, and the operator agrees with it."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from etcd_operator.types import ETCD_CLUSTER, EtcdCluster
from pilothouse.api.crd import crd
from pilothouse.kube import Client, KubeError, ObjectKey, PatchType
from pilothouse.testing import ApiServer, eventually, explain
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.api.test_etcd_clusters import operated
from tests.api.test_etcd_permissions import grant_like_olm, token_of_the_operator
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.etcd.model.volumes import STORAGE_CLASS

pytestmark = ON_BOTH

CLUSTERS = ETCD_CLUSTER.resource


async def create_class(client: Client, name: str, *, grows: bool) -> None:
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "example.com/local",
        "allowVolumeExpansion": grows,
    }
    await client.patch(STORAGE_CLASS, ObjectKey("", name), body, type=PatchType.APPLY, force=True)


class Grown:
    """A cluster of one member whose volume is to grow."""

    def __init__(self, client: Client, namespace: str, storage_class: str) -> None:
        self.client = client
        self.key = ObjectKey(namespace, "example")
        self.storage_class = storage_class

    async def apply(self, size: str) -> None:
        claim = {"storageClassName": self.storage_class, "resources": {"requests": {"storage": size}}}
        spec = {"size": 1, "version": "3.6.14", "pod": {"persistentVolumeClaimSpec": claim}}
        head = {"apiVersion": CLUSTERS.api_version, "kind": CLUSTERS.kind}
        body = {**head, "metadata": {"name": self.key.name}, "spec": spec}
        await self.client.patch(CLUSTERS, self.key, body, type=PatchType.APPLY, force=True)

    async def until(self, condition: Callable[[EtcdCluster], bool]) -> EtcdCluster:
        """Waits until the status of the current spec meets a condition."""

        async def met() -> Any:
            found = await self.client.get(CLUSTERS, self.key)
            current = found.status.observed_generation == found.metadata.generation
            return found if current and condition(found) else None

        describe = explain(self.client, CLUSTERS, POD, CLAIM, namespace=self.key.namespace)
        found: EtcdCluster = await eventually(met, within=90, describe=describe)
        return found

    async def claim(self) -> tuple[ObjectKey, str]:
        """Returns the volume, and the storage that it requests."""
        listed = json.loads(await self.client.request("GET", CLAIM.path(self.key.namespace)))
        [found] = listed["items"]
        key = ObjectKey(self.key.namespace, found["metadata"]["name"])
        return key, found["spec"]["resources"]["requests"]["storage"]


def ready(found: EtcdCluster) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in found.status.conditions)


def degraded(found: EtcdCluster, reason: str) -> str:
    states = {each.reason: each.message for each in found.status.conditions if each.status != "Unknown"}
    return states.get(reason, "")


@pytest.fixture(params=["administrator", "namespaced"])
def rights(request: pytest.FixtureRequest) -> str:
    """The rights of the operator. Without those on the whole cluster, it cannot read StorageClasses."""
    chosen: str = request.param
    return chosen


@asynccontextmanager
async def grown(
    client: Client, api_server: ApiServer, namespace: str, rights: str, *, grows: bool
) -> AsyncIterator[Grown]:
    """Yields a cluster whose volume requests 1Gi of a class that allows it to grow, or not."""
    await install(client, crd(ETCD_CLUSTER))
    settings: dict[str, Any] = {}
    if rights == "namespaced":
        settings = {"token": await token_of_the_operator(client, namespace)}
        await grant_like_olm(client, namespace)
    name = "elastic" if grows else "rigid"
    await create_class(client, name, grows=grows)
    async with operated(client, api_server, namespace, **settings):
        cluster = Grown(client, namespace, name)
        await cluster.apply("1Gi")
        await cluster.until(ready)
        yield cluster


async def test_a_volume_grows_if_its_class_allows_it(
    client: Client, api_server: ApiServer, namespace: str, rights: str
) -> None:
    async with grown(client, api_server, namespace, rights, grows=True) as cluster:
        await cluster.apply("2Gi")

        async def bigger() -> bool:
            return (await cluster.claim())[1] == "2Gi"

        await eventually(bigger, within=90)
        await cluster.until(ready)


async def test_growth_that_the_class_does_not_allow_is_refused_with_a_sentence(
    client: Client, api_server: ApiServer, namespace: str, rights: str
) -> None:
    async with grown(client, api_server, namespace, rights, grows=False) as cluster:
        key, _ = await cluster.claim()
        body = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
        with pytest.raises(KubeError, match="must support resize"):
            await client.patch(CLAIM, key, body, type=PatchType.MERGE)
        await cluster.apply("2Gi")
        reason = "InvalidSpec" if rights == "administrator" else "VolumeNotResized"
        message = degraded(await cluster.until(lambda found: bool(degraded(found, reason))), reason)
        if rights == "administrator":
            assert "the StorageClass rigid does not allow volumes to grow. Set it to 1Gi again" in message
        else:
            assert message.startswith(f"The volume {key.name} cannot grow from 1Gi to 2Gi.")
            assert "must support resize" in message, "the words of the API server"
        assert (await cluster.claim())[1] == "1Gi"
        await cluster.apply("1Gi")
        await cluster.until(ready)
