"""Events at a real API server: for objects whose own names an Event cannot have, and at every limit."""

import asyncio
import json
from typing import Any

import pytest

from pilothouse.controller import Event, EventRecorder, EventType, ObjectReference
from pilothouse.controller.events import EVENT
from pilothouse.kube import Client, ObjectKey, PartialObjectMetadata, Resource
from pilothouse.testing import eventually
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

CLUSTER_ROLE = Resource(
    "rbac.authorization.k8s.io",
    "v1",
    "ClusterRole",
    "clusterroles",
    PartialObjectMetadata,
    namespaced=False,
)
ROLE = Resource("rbac.authorization.k8s.io", "v1", "Role", "roles", PartialObjectMetadata)
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps", PartialObjectMetadata)


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        (CLUSTER_ROLE, "system:Node:events-test"),
        (ROLE, "system::Controller:x."),
        (ROLE, "Z" * 253),
        (CONFIG_MAP, "a" * 253),
        (CONFIG_MAP, "a." * 126 + "a"),
    ],
)
async def test_an_event_is_stored_for_an_object_of_any_name(
    client: Client, namespace: str, resource: Resource[Any], name: str
) -> None:
    where = namespace if resource.namespaced else ""
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
    made = await client.create(resource, body, namespace=where)
    regarding = ObjectReference(
        resource.api_version, resource.kind, ObjectKey(where, name), made.metadata.uid
    )
    recorder = EventRecorder(client, "events.tests.dev/" + "o" * 63, "i" * 300)

    async def found() -> list[dict[str, Any]]:
        stored = json.loads(await client.request("GET", EVENT.path(where or "default")))["items"]
        return [each for each in stored if each["regarding"]["uid"] == made.metadata.uid]

    try:
        recorder.record(Event(regarding, EventType.WARNING, "R" * 200, "ö" * 200, "ü" * 2000))
        writer = asyncio.create_task(recorder.run())
        [event] = await eventually(found)
        assert event["regarding"]["name"] == name
        writer.cancel()
    finally:
        await client.delete(resource, ObjectKey(where, name))
