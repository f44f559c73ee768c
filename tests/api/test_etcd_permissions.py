"""The etcd operator with no more rights than its manifests grant, as OLM and as kustomize would run it."""

import json

import pytest

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from etcd_operator.__main__ import NAME
from etcd_operator.types import ETCD_CLUSTER
from pilothouse.api.crd import crd
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType
from pilothouse.testing import ApiServer, eventually, explain
from pilothouse.testing.controllers.pods import CLAIM, POD
from release.documents import load
from release.packages import PACKAGES
from tests.api.test_etcd_clusters import operated
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.etcd.model.world import EtcdWorld

pytestmark = ON_BOTH

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CLUSTERS = ETCD_CLUSTER.resource
VERSION = "3.6.14"


async def token_of_the_operator(client: Client, namespace: str) -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    try:
        await client.request("GET", f"{path}/{NAME}")
    except NotFound:
        await client.request("POST", path, body={"metadata": {"name": NAME}})
    answer = json.loads(await client.request("POST", f"{path}/{NAME}/token", body={"spec": {}}))
    return str(answer["status"]["token"])


async def grant_like_olm(client: Client, namespace: str) -> None:
    """The CSV's permissions as a Role in the one namespace of an OperatorGroup, and none in the cluster."""
    package = PACKAGES[NAME]
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    (permissions,) = csv["spec"]["install"]["spec"]["permissions"]
    path = f"{RBAC}/namespaces/{namespace}"
    await client.request(
        "POST", f"{path}/roles", body={"metadata": {"name": "olm"}, "rules": permissions["rules"]}
    )
    binding = {
        "metadata": {"name": "olm"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "olm"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}],
    }
    await client.request("POST", f"{path}/rolebindings", body=binding)


async def live_through_everything(
    client: Client, world: EtcdWorld, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A cluster is created, healed and resized, and no right is missing."""
    key = ObjectKey(namespace, "example")
    describe = explain(client, CLUSTERS, POD, CLAIM, namespace=namespace)

    async def settled(size: int, without: str = "") -> tuple[str, ...]:
        async def ready() -> tuple[str, ...]:
            found = await client.get(CLUSTERS, key)
            states = {each.type: each for each in found.status.conditions}
            names = found.status.members.ready
            fits = len(names) == size and without not in names and "Ready" in states
            return names if fits and states["Ready"].status == "True" else ()

        names: tuple[str, ...] = await eventually(ready, within=90, describe=describe)
        return names

    body = {
        "apiVersion": CLUSTERS.api_version,
        "kind": CLUSTERS.kind,
        "metadata": {"name": key.name},
        "spec": {"size": 3, "version": VERSION, "storage": {"whenDeleted": "Delete", "whenScaled": "Delete"}},
    }
    await client.create(CLUSTERS, body, namespace=namespace)
    victim = (await settled(3))[0]
    await client.delete(POD, ObjectKey(namespace, victim))
    await client.delete(CLAIM, ObjectKey(namespace, victim))
    await settled(3, without=victim)
    await client.patch(CLUSTERS, key, {"spec": {"size": 1}}, type=PatchType.MERGE)
    await settled(1)

    async def refused() -> bool:
        found = await client.get(CLUSTERS, key)
        return any(each.type == "Ready" and each.reason == "InvalidSpec" for each in found.status.conditions)

    # The operator may also ask the server whether it would accept a pod.
    pod = {"tolerations": [{"key": "a", "operator": "Near"}]}
    await client.patch(CLUSTERS, key, {"spec": {"pod": pod}}, type=PatchType.MERGE)
    await eventually(refused, within=90, describe=describe)
    await client.patch(CLUSTERS, key, {"spec": {"pod": None}}, type=PatchType.MERGE)
    await settled(1)
    assert world.lost() == []
    assert "forbidden" not in caplog.text.lower()


async def test_rights_in_one_namespace_are_enough_for_it(
    api_server: ApiServer, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rights on cluster-scoped objects are optional."""
    await install(client, crd(ETCD_CLUSTER))
    token = await token_of_the_operator(client, namespace)
    await grant_like_olm(client, namespace)
    lease = {"leader_elect": True, "pod_namespace": namespace}
    async with operated(client, api_server, namespace, token=token, **lease) as world:
        await live_through_everything(client, world, namespace, caplog)


async def test_the_plain_manifests_grant_enough(
    api_server: ApiServer, client: Client, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    kubectl = Kubectl(toolchain.binary("kubectl"), api_server.kubeconfig())
    folder = str(CHECKOUT / "config" / "etcd")
    kubectl("apply", "--server-side", "--force-conflicts", "--validate=strict", "-k", folder)
    kubectl("wait", "--for=condition=Established", f"crd/{CLUSTERS}", "--timeout=60s")
    token = await token_of_the_operator(client, NAME)
    lease = {"leader_elect": True, "pod_namespace": NAME}
    async with operated(client, api_server, "", token=token, **lease) as world:
        await live_through_everything(client, world, namespace, caplog)
