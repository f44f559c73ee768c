"""A small kind of its own for the client's and the informer's tests."""

import json
import secrets
from copy import deepcopy
from typing import Any

import msgspec

from pilothouse.kube import Client, NotFound, ObjectKey, ObjectMeta, PatchType, Resource
from pilothouse.testing import eventually


class Spec(msgspec.Struct, frozen=True):
    size: int = 0


class Status(msgspec.Struct, frozen=True):
    phase: str = ""


class Widget(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: Spec = Spec()
    status: Status = Status()


GROUP = "testing.pilothouse.dev"
WIDGETS = Resource(GROUP, "v1", "Widget", "widgets", Widget)


def kind(name: str) -> Resource[Widget]:
    """A resource like WIDGETS under another name, for tests that add and remove the kind itself."""
    return Resource(GROUP, "v1", name.capitalize(), f"{name}s", Widget)


def widget(name: str, size: int = 1, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {"name": name, **metadata},
        "spec": {"size": size},
    }


def crd(resource: Resource[Widget]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {"size": {"type": "integer", "minimum": 1, "maximum": 10}},
            },
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "plural": resource.plural,
                "singular": resource.kind.lower(),
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
# What `install` has applied, and the generation after that, by the UID of the CRD.
_applied: dict[str, tuple[dict[str, Any], int]] = {}


async def install(client: Client, manifest: dict[str, Any]) -> None:
    """Apply a CRD and wait until the server serves its kind, as a person's `kubectl wait` would.

    A CRD that has not changed since the last call is left alone: the server checks its rules for seconds.
    """
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    if not await _is_applied(client, name, manifest):
        params = {"fieldManager": "tests", "force": "true"}
        answer = await client.request(
            "PATCH", f"{CRDS}/{name}", params=params, body=manifest, content_type=PatchType.APPLY
        )
        metadata = json.loads(answer)["metadata"]
        _applied[metadata["uid"]] = (deepcopy(manifest), metadata["generation"])
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    await eventually(lambda: client.request("GET", path), within=30)


async def _is_applied(client: Client, name: str, manifest: dict[str, Any]) -> bool:
    try:
        metadata = json.loads(await client.request("GET", f"{CRDS}/{name}"))["metadata"]
    except NotFound:
        return False
    return _applied.get(metadata["uid"]) == (manifest, metadata["generation"])


async def make(client: Client, namespace: str, count: int) -> list[Widget]:
    """Create widgets of random names."""
    return [
        await client.create(WIDGETS, widget(f"w-{secrets.token_hex(4)}"), namespace=namespace)
        for _ in range(count)
    ]


def key(namespace: str, name: str) -> ObjectKey:
    return ObjectKey(namespace, name)


async def raw(client: Client, namespace: str, name: str) -> dict[str, Any]:
    """Return the whole object, with the fields that no view reads."""
    value: dict[str, Any] = json.loads(await client.request("GET", WIDGETS.path(namespace, name)))
    return value
