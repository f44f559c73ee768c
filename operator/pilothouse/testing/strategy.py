"""How the API server changes a body before it stores it.

In the real API server this is the strategy of a registry (k8s.io/apiserver, pkg/registry/rest):
PrepareForCreate, PrepareForUpdate, BeforeDelete, GetResetFields.
"""

import base64
from collections.abc import Sequence
from typing import Any

from pilothouse.kube import BadRequest, NotFound, ObjectKey, Resource
from pilothouse.telemetry import now
from pilothouse.testing.documents import Json
from pilothouse.testing.refusals import check_finalizers

# Built-in kinds without a status and a generation.
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
# Metadata that a request cannot set.
_SERVERS_OWN = ("creationTimestamp", "deletionTimestamp", "generation", "resourceVersion", "uid", "selfLink")


def for_create(resource: Resource[Any], key: ObjectKey, body: Json, uid: str, *, status: bool) -> Json:
    """Returns a new object as it is stored.

    Args:
        resource: The kind.
        key: The key of the object.
        body: The body of the request.
        uid: The UID, unless `status` is set and the body has one.
        status: Whether the body may set everything, including the status and the server's metadata.

    Raises:
        BadRequest: A value in a Secret's stringData is not text.
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
    obj = decoded(resource, obj)
    if str(resource) not in _PLAIN:
        metadata.setdefault("generation", 1)
        if not status:
            obj.pop("status", None)
    return obj


def decoded(resource: Resource[Any], obj: Json) -> Json:
    """Returns an object without write-only fields: a Secret's stringData is merged into its data.

    The API server does this when it decodes an object (k8s.io/kubernetes, pkg/apis/core/v1/conversion.go).

    Raises:
        BadRequest: A value in stringData is not text.
    """
    if str(resource) != "secrets" or "stringData" not in obj:
        return obj
    stated = obj["stringData"] or {}
    if not isinstance(stated, dict) or not all(isinstance(each, str | None) for each in stated.values()):
        raise BadRequest(400, "BadRequest", 'Secret in version "v1" cannot be handled as a Secret')
    rest = {name: value for name, value in obj.items() if name != "stringData"}
    data = {name: base64.b64encode((value or "").encode()).decode() for name, value in stated.items()}
    return {**rest, "data": {**(obj.get("data") or {}), **data}} if data else rest


def for_update(resource: Resource[Any], key: ObjectKey, old: Json, new: Json, subresource: str) -> Json:
    """Returns a changed object as it is stored. Equal to the old object if nothing has changed.

    Raises:
        NotFound: The kind does not have the subresource.
        Invalid: The object is being deleted, and the change adds a finalizer.
        BadRequest: A value in a Secret's stringData is not text.
    """
    new = decoded(resource, new)
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
    """Returns an object as it is stored while its deletion waits for finalizers."""
    metadata = {**old["metadata"], "finalizers": list(finalizers), "deletionTimestamp": _timestamp()}
    metadata["deletionGracePeriodSeconds"] = 0
    if "generation" in metadata:
        metadata["generation"] += 1
    return {**old, "metadata": metadata}


def for_apply(resource: Resource[Any], body: Json, subresource: str) -> Json:
    """Returns the part of a body that an apply to the object or the subresource may set."""
    if subresource:
        return {"status": body.get("status", {})}
    if str(resource) in _PLAIN:
        return body
    return {name: value for name, value in body.items() if name != "status"}


def _specification(obj: Json) -> Json:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _timestamp() -> str:
    return now().strftime("%Y-%m-%dT%H:%M:%SZ")
