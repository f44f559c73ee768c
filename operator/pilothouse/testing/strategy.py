"""What the API server makes of a body before it stores it, whatever its author wrote there.

In the real one it is the strategy of a registry (k8s.io/apiserver, pkg/registry/rest): PrepareForCreate,
PrepareForUpdate, BeforeDelete, GetResetFields.
"""

from collections.abc import Sequence
from typing import Any

from pilothouse.kube import NotFound, ObjectKey, Resource
from pilothouse.telemetry import now
from pilothouse.testing.documents import Json
from pilothouse.testing.refusals import check_finalizers

# Kinds of the server's own that have neither a status nor a generation.
_PLAIN = {
    "configmaps",
    "endpoints",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "secrets",
    "serviceaccounts",
    "services",
}
# What a user's body never decides.
_SERVERS_OWN = ("creationTimestamp", "deletionTimestamp", "generation", "resourceVersion", "uid", "selfLink")


def for_create(resource: Resource[Any], key: ObjectKey, body: Json, uid: str, *, status: bool) -> Json:
    """Return a new object as it is stored.

    Args:
        resource: its kind.
        key: what it is called.
        body: what was asked.
        uid: what it is to have, unless the body may decide and does.
        status: whether the body decides on everything, the status included.
    """
    metadata = {
        name: value
        for name, value in body["metadata"].items()
        if (name not in _SERVERS_OWN or status) and value not in ({}, [])
    }
    metadata.setdefault("creationTimestamp", _timestamp())
    metadata.setdefault("uid", uid)
    if resource.namespaced:
        metadata["namespace"] = key.namespace
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **body, "metadata": metadata}
    if str(resource) not in _PLAIN:
        metadata.setdefault("generation", 1)
        if not status:
            obj.pop("status", None)
    return obj


def for_update(resource: Resource[Any], key: ObjectKey, old: Json, new: Json, subresource: str) -> Json:
    """Return a changed object as it is stored; equal to the old one when nothing has changed.

    Raises:
        NotFound: it has no such subresource.
        Invalid: it is being deleted, and a finalizer is added.
    """
    has_status = str(resource) not in _PLAIN
    if subresource == "status" and not has_status:
        raise NotFound(404, "NotFound", "the server could not find the requested resource")
    if subresource == "scale":
        new = {**old, "spec": {**old.get("spec", {}), "replicas": new["spec"]["replicas"]}}
    elif subresource:
        rest = {name: value for name, value in old.items() if name != "status"}
        new = {**rest, **({"status": new["status"]} if "status" in new else {})}
    elif has_status:
        new = {name: value for name, value in new.items() if name != "status"}
        if "status" in old:
            new["status"] = old["status"]
    metadata = _updated_metadata(resource, key, old, new)
    new = {**new, "apiVersion": old.get("apiVersion"), "kind": old.get("kind"), "metadata": metadata}
    check_finalizers(resource, key, old, new)
    if has_status and _specification(new) != _specification(old):
        metadata["generation"] = old["metadata"].get("generation", 0) + 1
    return new


def _updated_metadata(resource: Resource[Any], key: ObjectKey, old: Json, new: Json) -> Json:
    asked = new.get("metadata", {})
    metadata = {name: value for name, value in asked.items() if name not in _SERVERS_OWN and value != {}}
    own = {name: old["metadata"][name] for name in _SERVERS_OWN if name in old["metadata"]}
    if "deletionGracePeriodSeconds" in old["metadata"]:
        own["deletionGracePeriodSeconds"] = 0
    metadata |= {"name": key.name, **({"namespace": key.namespace} if resource.namespaced else {}), **own}
    if not metadata.get("finalizers", True):
        del metadata["finalizers"]
    return metadata


def for_delete(old: Json, finalizers: Sequence[str]) -> Json:
    """Return an object as it waits for its finalizers to go."""
    metadata = {**old["metadata"], "finalizers": list(finalizers), "deletionTimestamp": _timestamp()}
    metadata["deletionGracePeriodSeconds"] = 0
    if "generation" in metadata:
        metadata["generation"] += 1
    return {**old, "metadata": metadata}


def for_apply(resource: Resource[Any], body: Json, subresource: str) -> Json:
    """Return the part of a body that an apply may set there."""
    if subresource:
        return {"status": body.get("status", {})}
    if str(resource) in _PLAIN:
        return body
    return {name: value for name, value in body.items() if name != "status"}


def _specification(obj: Json) -> Json:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _timestamp() -> str:
    return now().strftime("%Y-%m-%dT%H:%M:%SZ")
