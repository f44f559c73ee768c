"""Changes that a real API server does not accept on an existing object, through apply and patch."""

import base64
from typing import Any

import pytest

from pilothouse.kube import Client, ObjectKey, Resource
from pilothouse.testing import ApiServer
from pilothouse.views import JOB, PERSISTENT_VOLUME_CLAIM, STATEFUL_SET
from tests.api.test_playbook_modules import Plays, Thing, kind, operator, ticket
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, SECRET, SERVICE, TicketPlay

pytestmark = ON_BOTH

__all__ = ["kind", "ticket"]

REGION = Resource("tests.dev", "v1", "Region", "regions", Thing)
BINDING = Resource("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", Thing)


def region_field(rule: str, **message: str) -> dict[str, Any]:
    return {"type": "string", "x-kubernetes-validations": [{"rule": rule, **message}]}


FIELDS = {
    "plain": region_field("self == oldSelf"),
    "worded": region_field("self == oldSelf", message="Value is immutable"),
}
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "regions.tests.dev"},
    "spec": {
        "group": "tests.dev",
        "names": {"kind": "Region", "plural": "regions"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "properties": FIELDS}},
                    }
                },
            }
        ],
    },
}


def pods(app: str = "a", value: str = "x") -> dict[str, Any]:
    env = [{"name": f"E{number}", "value": value * 100} for number in range(10)]
    container = {"name": "c", "image": "i", "env": env}
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }


def running_pods(app: str) -> dict[str, Any]:
    template = pods(app)
    del template["spec"]["restartPolicy"]
    return {"selector": {"matchLabels": {"app": app}}, "template": template}


def claim(storage_class: str) -> dict[str, Any]:
    storage = {"requests": {"storage": "1Gi"}}
    return {"accessModes": ["ReadWriteOnce"], "storageClassName": storage_class, "resources": storage}


def role(name: str) -> dict[str, Any]:
    return {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}}


PORTS = {"ports": [{"port": 80}], "selector": {"a": "b"}}
CHANGES: dict[str, tuple[Resource[Any], dict[str, Any], dict[str, Any], str]] = {
    "Job": (
        JOB,
        {"spec": {"template": pods()}},
        {"spec": {"template": pods(value="y")}},
        "spec.template",
    ),
    "StatefulSet": (
        STATEFUL_SET,
        {"spec": {**running_pods("a"), "serviceName": "a"}},
        {"spec": {**running_pods("a"), "serviceName": "b"}},
        "spec.serviceName",
    ),
    "Deployment": (
        DEPLOYMENT,
        {"spec": running_pods("a")},
        {"spec": running_pods("b")},
        "spec.selector",
    ),
    "Service": (
        SERVICE,
        {"spec": PORTS},
        {"spec": {**PORTS, "clusterIP": "10.0.0.77", "clusterIPs": ["10.0.0.77"]}},
        "spec.clusterIPs[0]",
    ),
    "PersistentVolumeClaim": (
        PERSISTENT_VOLUME_CLAIM,
        {"spec": claim("fast")},
        {"spec": claim("slow")},
        "spec.storageClassName",
    ),
    "Secret": (
        SECRET,
        {"immutable": True, "data": {"a": base64.b64encode(b"hunter2").decode()}},
        {"immutable": True, "data": {"a": base64.b64encode(b"hunter3").decode()}},
        "data",
    ),
    "Secret's type": (SECRET, {"type": "Opaque"}, {"type": "tests.dev/other"}, "type"),
    "ConfigMap": (
        CONFIG_MAP,
        {"immutable": True, "data": {"a": "1"}},
        {"immutable": True, "data": {"a": "2"}},
        "data",
    ),
    "RoleBinding": (BINDING, role("a"), role("b"), "roleRef"),
    "rule": (REGION, {"spec": {"plain": "a"}}, {"spec": {"plain": "b"}}, "spec.plain"),
    "message": (REGION, {"spec": {"worded": "a"}}, {"spec": {"worded": "b"}}, "spec.worded"),
}


@pytest.mark.parametrize("how", ["apply", "patch"])
@pytest.mark.parametrize("case", CHANGES)
async def test_a_field_that_cannot_change_is_named(
    api_server: ApiServer, client: Client, ticket: ObjectKey, case: str, how: str
) -> None:
    await install(client, CRD)
    resource, first, second, field = CHANGES[case]
    changes = False

    async def run(play: TicketPlay) -> None:
        if changes and how == "patch":
            await play.patch(resource, ticket.name, second)
        else:
            await play.apply(resource, second if changes else first)

    plays = Plays(client, ticket, run)
    async with operator(api_server, ticket, plays.playbook, owns=[resource]):
        await plays.ready("Reconciled")
        changes = True
        await plays.another()
        message = await plays.ready("Immutable", f"Cannot change {field}")
    assert "hunter" not in message
