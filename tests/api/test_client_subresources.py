"""Discovery, scale, eviction and log with the real API server, which has no node."""

import pytest

from pilothouse.kube import (
    BadRequest,
    Client,
    Conflict,
    Discovery,
    NotFound,
    ObjectKey,
    PartialObjectMetadata,
    PatchType,
    Resource,
    TooManyRequests,
    evict,
    pod_log,
    scale_of,
)
from pilothouse.testing import eventually
from tests.api.versions import ON_BOTH
from tests.api.widgets import GROUP, crd, install, kind

pytestmark = ON_BOTH

PODS = Resource("", "v1", "Pod", "pods", PartialObjectMetadata)
DEPLOYMENTS = Resource("apps", "v1", "Deployment", "deployments", PartialObjectMetadata)
BUDGETS = Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", PartialObjectMetadata)
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
SELECTOR = {"matchLabels": {"app": "web"}}


async def pod(client: Client, namespace: str) -> PartialObjectMetadata:
    metadata = {"name": "web", "labels": SELECTOR["matchLabels"]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": TEMPLATE["spec"]}
    return await client.create(PODS, body, namespace=namespace)


@pytest.mark.parametrize("name", ["Deployment", "deployments", "deploy", "deployments.apps"])
async def test_builtin_kinds_are_found_by_any_name(client, name):
    assert await Discovery(client).resolve(name, PartialObjectMetadata) == DEPLOYMENTS


async def test_scopes(client):
    discovery = Discovery(client)
    assert (await discovery.resolve("po", PartialObjectMetadata)) == PODS
    assert not (await discovery.resolve("namespaces", PartialObjectMetadata)).namespaced
    with pytest.raises(NotFound):
        await discovery.resolve("ghosts", PartialObjectMetadata)


async def test_a_kind_that_is_installed_later_is_found_in_its_preferred_version(client):
    discovery = Discovery(client)
    await discovery.resolve("pods", PartialObjectMetadata)
    manifest = crd(kind("doohickey"))
    versions = manifest["spec"]["versions"]
    versions.append({**versions[0], "name": "v1beta1", "storage": False})
    versions.append({**versions[0], "name": "v1alpha1", "storage": False, "served": False})
    await install(client, manifest)
    found = await eventually(lambda: discovery.resolve("doohickey", PartialObjectMetadata))
    assert (found.group, found.version, found.kind, found.plural) == (GROUP, "v1", "Doohickey", "doohickeys")


async def test_scale(client, namespace):
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE},
    }
    made = await client.create(DEPLOYMENTS, body, namespace=namespace)
    deployments = scale_of(DEPLOYMENTS)
    scale = await client.get(deployments, made.metadata.key, subresource="scale")
    assert (scale.spec.replicas, scale.status.selector) == (1, "app=web")
    patch = {"metadata": {"resourceVersion": scale.metadata.resource_version}, "spec": {"replicas": 3}}
    scaled = await client.patch(
        deployments, made.metadata.key, patch, type=PatchType.MERGE, subresource="scale"
    )
    assert scaled.spec.replicas == 3
    with pytest.raises(Conflict):
        await client.patch(deployments, made.metadata.key, patch, type=PatchType.MERGE, subresource="scale")


async def test_eviction(client, namespace):
    made = await pod(client, namespace)
    await evict(client, made.metadata.key, uid=made.metadata.uid)
    with pytest.raises(NotFound):
        await client.get(PODS, made.metadata.key)


async def test_a_disruption_budget_refuses_an_eviction(client, namespace):
    made = await pod(client, namespace)
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(PODS, made.metadata.key, {"status": ready}, type=PatchType.MERGE, subresource="status")
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}}
    spec = {"minAvailable": 1, "selector": SELECTOR}
    held = await client.create(BUDGETS, {**budget, "spec": spec}, namespace=namespace)
    counts = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "disruptionsAllowed": 0}
    status = {"status": {**counts, "observedGeneration": held.metadata.generation}}
    await client.patch(BUDGETS, held.metadata.key, status, type=PatchType.MERGE, subresource="status")
    with pytest.raises(TooManyRequests, match="disruption budget") as caught:
        await evict(client, made.metadata.key)
    assert [cause.reason for cause in caught.value.causes] == ["DisruptionBudget"]
    assert (await client.get(PODS, made.metadata.key)).metadata.uid == made.metadata.uid


async def test_log_of_a_pod_without_a_node(client, namespace):
    made = await pod(client, namespace)
    assert await pod_log(client, made.metadata.key) == ""
    with pytest.raises(BadRequest, match="container"):
        await pod_log(client, made.metadata.key, container="other")
    with pytest.raises(NotFound):
        await pod_log(client, ObjectKey(namespace, "none"))
