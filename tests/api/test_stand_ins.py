"""The stand-ins for Kubernetes' own controllers on a real API server, which validates what they write."""

import json
from typing import Any

from pilothouse.kube import Client, ObjectKey, Resource
from pilothouse.testing import eventually, explain
from pilothouse.testing.controllers import Deployments, Jobs, Pods, StatefulSets, VolumeClaims, running
from pilothouse.testing.controllers.jobs import JOB
from pilothouse.testing.controllers.pods import CLAIM, POD
from pilothouse.testing.controllers.workloads import DEPLOYMENT, STATEFUL_SET
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

LABELS = {"app": "web"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
WORKLOAD = {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": TEMPLATE}
TASK = {"spec": {"restartPolicy": "Never", "containers": [{"name": "task", "image": "task:1"}]}}
STORAGE = {"resources": {"requests": {"storage": "1Gi"}}, "accessModes": ["ReadWriteOnce"]}


async def create(client: Client, resource: Resource[Any], namespace: str, name: str, spec: Any) -> ObjectKey:
    body = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    await client.create(resource, body, namespace=namespace)
    return ObjectKey(namespace, name)


async def status(client: Client, resource: Resource[Any], key: ObjectKey) -> Any:
    path = resource.path(key.namespace, key.name)
    return json.loads(await client.request("GET", path)).get("status", {})


async def test_workloads_jobs_and_claims_come_to_their_end(client: Client, namespace: str) -> None:
    claims = [{"metadata": {"name": "data"}, "spec": STORAGE}]
    stand_ins = (
        Deployments(),
        StatefulSets(),
        Pods(start_seconds=0.1, ready_seconds=0.1),
        Jobs(try_seconds=0.1, failures=lambda job: 9 if job.metadata.name == "failing" else 1),
        VolumeClaims(bind_seconds=0.1),
    )
    async with running(client, *stand_ins):
        web = await create(client, DEPLOYMENT, namespace, "web", WORKLOAD)
        db_spec = {**WORKLOAD, "serviceName": "db", "volumeClaimTemplates": claims}
        db = await create(client, STATEFUL_SET, namespace, "db", db_spec)
        done = await create(client, JOB, namespace, "done", {"template": TASK})
        failing = await create(client, JOB, namespace, "failing", {"template": TASK, "backoffLimit": 1})

        async def ended() -> bool:
            for resource, key in ((DEPLOYMENT, web), (STATEFUL_SET, db)):
                found = await status(client, resource, key)
                assert (found.get("readyReplicas"), found.get("updatedReplicas")) == (2, 2)
            for key, how in ((done, "Complete"), (failing, "Failed")):
                conditions = (await status(client, JOB, key)).get("conditions", [])
                assert how in [each["type"] for each in conditions]
            claim = await status(client, CLAIM, ObjectKey(namespace, "data-db-1"))
            return bool(claim["phase"] == "Bound")

        describe = explain(client, DEPLOYMENT, STATEFUL_SET, POD, JOB, CLAIM, namespace=namespace)
        await eventually(ended, within=30, describe=describe)
        pod = ObjectKey(namespace, "db-1")
        first = await client.get(POD, pod)
        await client.delete(POD, pod)

        async def replaced() -> bool:
            found = await client.get(POD, pod)
            return found.metadata.uid != first.metadata.uid and found.status.get("phase") == "Running"

        await eventually(replaced, within=30, describe=describe)
