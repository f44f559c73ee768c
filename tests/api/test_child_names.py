"""The names that `child_name` makes, at a real API server: each kind accepts them."""

from typing import Any

import pytest

from pilothouse.kube import Client, ObjectKey, PartialObjectMetadata, PatchType, Resource
from pilothouse.playbook import child_name
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

POD = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
LABELS = {"matchLabels": {"a": "b"}}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {**POD, "restartPolicy": "Always"}}
JOB = {"template": {"spec": POD}}
KINDS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("", "Service", "services", {"spec": {"ports": [{"port": 1}]}}),
    ("", "Pod", "pods", {"spec": POD}),
    ("", "ConfigMap", "configmaps", {}),
    ("", "Secret", "secrets", {}),
    ("apps", "Deployment", "deployments", {"spec": {"selector": LABELS, "template": TEMPLATE}}),
    ("apps", "StatefulSet", "statefulsets", {"spec": {"selector": LABELS, "template": TEMPLATE}}),
    ("batch", "Job", "jobs", {"spec": JOB}),
    ("batch", "CronJob", "cronjobs", {"spec": {"schedule": "@daily", "jobTemplate": {"spec": JOB}}}),
]
PARTS = [("web", "a"), ("1st." * 63, "config"), ("Web_Server:ä", "a-b"), ("a" * 253, "b" * 253), ("-", "1")]


@pytest.mark.parametrize(("group", "kind", "plural", "body"), KINDS, ids=[each[1] for each in KINDS])
@pytest.mark.parametrize("any_kind", [False, True])
async def test_every_kind_accepts_its_names(
    client: Client,
    namespace: str,
    group: str,
    kind: str,
    plural: str,
    body: dict[str, Any],
    any_kind: bool,
) -> None:
    resource = Resource(group, "v1", kind, plural, PartialObjectMetadata)
    for parts in PARTS:
        name = child_name(*parts, kind=None if any_kind else resource)
        manifest = {"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}, **body}
        await client.patch(resource, ObjectKey(namespace, name), manifest, type=PatchType.APPLY, dry_run=True)
