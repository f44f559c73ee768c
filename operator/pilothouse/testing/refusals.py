"""Requests that the API server refuses, with its error messages."""

from collections.abc import Sequence
from typing import Any

from pilothouse.kube import BadRequest, Cause, Conflict, Forbidden, Invalid, ObjectKey, Resource
from pilothouse.testing.documents import Json


def conflict(resource: Resource[Any], key: ObjectKey, why: str) -> Conflict:
    """Returns the error for a request that conflicts with the stored object."""
    return Conflict(409, "Conflict", f'Operation cannot be fulfilled on {resource} "{key.name}": {why}')


def invalid(resource: Resource[Any], name: str, causes: Sequence[Cause]) -> Invalid:
    """Returns the error for an invalid object."""
    details = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
    kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    return Invalid(422, "Invalid", f'{kind} "{name}" is invalid: {details}', tuple(causes))


def check_namespace(resource: Resource[Any], namespace: str, metadata: Json) -> None:
    """Refuses an object whose namespace differs from that of the request."""
    if resource.namespaced and metadata.get("namespace", namespace) != namespace:
        raise BadRequest(
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        )


def check_terminating(resource: Resource[Any], name: str, namespace: str, stored: Json | None) -> None:
    """Refuses a new object in a namespace that is being deleted.

    Args:
        resource: The kind of the object.
        name: The name of the object.
        namespace: The name of the namespace.
        stored: The Namespace, if there is one.
    """
    if stored is not None and "deletionTimestamp" in stored["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = Cause(
            "metadata.namespace", f"namespace {namespace} is being terminated", "NamespaceTerminating"
        )
        raise Forbidden(403, "Forbidden", f'{resource} "{name}" is forbidden: {why}', (cause,))


def check_version(resource: Resource[Any], key: ObjectKey, old: Json, new: Json) -> None:
    """Refuses a change that is based on another version than the stored one."""
    asked = new.get("metadata", {}).get("resourceVersion")
    if asked and asked != old["metadata"]["resourceVersion"]:
        raise conflict(
            resource,
            key,
            "the object has been modified; please apply your changes to the latest version and try again",
        )


def check_applied_uid(resource: Resource[Any], key: ObjectKey, stored: Json | None, body: Json) -> None:
    """Refuses an apply whose UID differs from that of the stored object."""
    asked = body.get("metadata", {}).get("uid")
    if asked and stored is None:
        raise conflict(resource, key, f"uid mismatch: {asked} was given, and no object was found")
    if asked and stored and stored["metadata"]["uid"] != asked:
        why = Cause("metadata.uid", f"Invalid value: {asked!r}: field is immutable", "FieldValueInvalid")
        raise invalid(resource, key.name, [why])


def check_finalizers(resource: Resource[Any], key: ObjectKey, old: Json, new: Json) -> None:
    """Refuses to add finalizers to an object that is being deleted."""
    if "deletionTimestamp" not in old["metadata"]:
        return
    added = set(new["metadata"].get("finalizers", ())) - set(old["metadata"].get("finalizers", ()))
    if added:
        message = "Forbidden: no new finalizers can be added if the object is being deleted"
        raise invalid(resource, key.name, [Cause("metadata.finalizers", message, "FieldValueForbidden")])
