"""The shipped views read what the real API server sends, with its defaults and nulls."""

from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.kube import Client, ObjectKey, PatchType, Resource
from pilothouse.playbook.rollouts import explained
from pilothouse.views import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

LABELS = {"app": "web"}
CONTAINERS = [{"name": "app", "image": "none"}]
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": CONTAINERS}}
NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


async def make(client: Client, resource: Resource[Any], namespace: str, **fields: Any) -> Any:
    metadata = {"name": "web", **fields.pop("metadata", {})}
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **fields}
    return await client.create(resource, body, namespace=namespace)


async def report(client: Client, resource: Resource[Any], namespace: str, status: dict[str, Any]) -> Any:
    """Does what a controller or the kubelet does."""
    key = ObjectKey(namespace, "web")
    return await client.patch(resource, key, {"status": status}, type=PatchType.MERGE, subresource="status")


async def test_config_maps_and_secrets(client: Client, namespace: str) -> None:
    config_map = await make(client, CONFIG_MAP, namespace, data={"a": "b"}, binaryData={"c": "AAE="})
    assert config_map.data == {"a": "b"}
    await client.delete(CONFIG_MAP, config_map.metadata.key)
    assert (await make(client, CONFIG_MAP, namespace)).data == {}
    secret = await make(client, SECRET, namespace, data={"a": "czNjcjN0", "empty": "", "null": None})
    assert (secret.type, secret.data["a"], secret.data["empty"]) == ("Opaque", b"s3cr3t", b"")
    assert secret.data.get("null", b"") == b""
    assert "s3cr3t" not in repr(secret)


async def test_services(client: Client, namespace: str) -> None:
    spec = {"selector": LABELS, "type": "LoadBalancer", "ports": [{"port": 80}]}
    service = await make(client, SERVICE, namespace, spec=spec)
    assert service.spec.cluster_ip
    assert service.spec.ports[0].node_port
    ingress = {"ingress": [{"ip": "192.0.2.1"}]}
    service = await report(client, SERVICE, namespace, {"loadBalancer": ingress})
    assert service.status.load_balancer.ingress[0].ip == "192.0.2.1"


async def test_claims(client: Client, namespace: str) -> None:
    requests = {"requests": {"storage": "1024Mi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": requests}
    claim = await make(client, PERSISTENT_VOLUME_CLAIM, namespace, spec=spec)
    assert (claim.status.phase, claim.spec.storage_class_name) == ("Pending", "fast")
    claim = await report(
        client, PERSISTENT_VOLUME_CLAIM, namespace, {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    )
    assert claim.status.capacity == {"storage": "1Gi"}


async def test_jobs(client: Client, namespace: str) -> None:
    template = {"spec": {"containers": CONTAINERS, "restartPolicy": "Never"}}
    job = await make(client, JOB, namespace, spec={"template": template})
    assert not job.status.ended("Complete")
    job = await report(client, JOB, namespace, {"active": 1, "failed": 2, "startTime": NOW})
    assert (job.status.active, job.status.failed) == (1, 2)


async def test_a_deployment_and_why_its_pod_does_not_run(client: Client, namespace: str) -> None:
    spec = {"replicas": 1, "selector": {"matchLabels": LABELS}, "template": TEMPLATE}
    deployment = await make(client, DEPLOYMENT, namespace, spec=spec)
    assert (deployment.spec.replicas, str(deployment.spec.selector)) == (1, "app=web")
    assert "has not seen" in deployment.rolled_out().message
    counts = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1}
    deployment = await report(client, DEPLOYMENT, namespace, {**counts, "unavailableReplicas": 1})
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d", "uid": "u", "controller": True}
    await make(
        client,
        POD,
        namespace,
        metadata={"labels": LABELS, "ownerReferences": [owner]},
        spec={
            **TEMPLATE["spec"],  # type: ignore[dict-item]
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    )
    scheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes.",
    }
    pod = await report(client, POD, namespace, {"conditions": [scheduled]})
    assert (pod.status.phase, pod.claims) == ("Pending", ("data",))
    rollout = (await explained(client, deployment)).rollout
    assert rollout.reason == "VolumePending"
    assert rollout.message.endswith("0/3 nodes. PersistentVolumeClaim data does not exist.")
    terminated = {"exitCode": 137, "reason": "OOMKilled", "startedAt": None, "finishedAt": NOW}
    status = {
        "name": "app",
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}},
        "lastState": {"terminated": terminated},
    }
    ended = {**scheduled, "status": "True", "reason": None, "message": None}
    await report(client, POD, namespace, {"conditions": [ended], "containerStatuses": [status]})
    rollout = (await explained(client, deployment)).rollout
    assert rollout.reason == "CrashLoopBackOff"
    assert "exit code 137 (OOMKilled)" in rollout.message
    done = {**counts, "readyReplicas": 1, "availableReplicas": 1, "unavailableReplicas": None}
    assert (await report(client, DEPLOYMENT, namespace, done)).rolled_out()


@pytest.mark.parametrize("strategy", [{}, {"type": "OnDelete"}])
async def test_a_stateful_set(client: Client, namespace: str, strategy: dict[str, Any]) -> None:
    spec = {
        "replicas": 2,
        "serviceName": "web",
        "selector": {"matchLabels": LABELS},
        "template": TEMPLATE,
        "updateStrategy": strategy,
    }
    found = await make(client, STATEFUL_SET, namespace, spec=spec)
    assert found.spec.update_strategy.type == strategy.get("type", "RollingUpdate")
    assert found.spec.update_strategy.rolling_update.partition == 0
    assert not found.rolled_out()
    ready = {"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "availableReplicas": 2}
    found = await report(client, STATEFUL_SET, namespace, {**ready, "updatedReplicas": 1})
    assert found.rolled_out().done == bool(strategy)
    found = await report(client, STATEFUL_SET, namespace, {**ready, "updatedReplicas": 2})
    assert found.rolled_out()
