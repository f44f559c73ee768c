"""The owned-CRD entries of a ClusterServiceVersion, which a console shows for a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import inspect

from pilothouse.api import Kind, ManagedResource
from release.documents import Document

_PREFIX = "urn:alm:descriptor:"


def owned(kind: Kind[Any]) -> list[Document]:
    """Returns a kind's entries in spec.customresourcedefinitions.owned, with descriptors of spec and status.

    OLM requires one entry for each served version. All versions have the same fields
    (`pilothouse.api.Version`).
    """
    resource = kind.resource
    entry = {
        "name": f"{resource.plural}.{resource.group}",
        "version": resource.version,
        "kind": resource.kind,
        "displayName": kind.title,
        "description": kind.description,
        "resources": [{"kind": m.kind, "name": m.name, "version": m.version} for m in _resources(kind)],
        "specDescriptors": _descriptors(kind, "spec"),
        "statusDescriptors": _descriptors(kind, "status"),
    }
    return [entry, *({**entry, "version": version.name} for version in kind.versions if version.served)]


def _resources(kind: Kind[Any]) -> Sequence[ManagedResource]:
    """Returns the kinds that an operator manages. Event is always one, because every operator records them.

    Without it operator-sdk mistakes the permission to create Events for one on an API version that
    Kubernetes removed in v1.25 (operator-framework/api, pkg/validation/internal/removed_apis.go).
    """
    events = any(each.kind == "Event" for each in kind.manages)
    return kind.manages if events else (*kind.manages, ManagedResource("Event", "v1"))


def fields(kind: Kind[Any], part: str) -> list[tuple[str, inspect.Metadata]]:
    """Returns the names and declarations of the fields of a kind's spec or status.

    Raises:
        TypeError: A field is not declared with pilothouse.api.field, so it has no description.
    """
    whole = inspect.type_info(kind.resource.view)
    if not isinstance(whole, inspect.StructType):
        raise TypeError(f"{kind.resource.kind}: the view is not a struct")
    parts = {field.encode_name: field.type for field in whole.fields}
    struct = parts[part]
    while isinstance(struct, inspect.Metadata):
        struct = struct.type
    if not isinstance(struct, inspect.StructType):
        raise TypeError(f"{kind.resource.kind}.{part} is not a struct")
    found = []
    for field in struct.fields:
        if not isinstance(field.type, inspect.Metadata) or not field.type.extra_json_schema:
            raise TypeError(
                f"{kind.resource.kind}.{part}.{field.encode_name}: declare it with field(description)"
            )
        found.append((field.encode_name, field.type))
    return found


def _descriptors(kind: Kind[Any], part: str) -> list[Document]:
    entries: list[Document] = []
    for name, declared in fields(kind, part):
        words = declared.extra_json_schema or {}
        descriptors = (declared.extra or {}).get("descriptors", ())
        entry = {"path": name, "displayName": words.get("title", name), "description": words["description"]}
        if descriptors:
            entry["x-descriptors"] = [_PREFIX + descriptor for descriptor in descriptors]
        entries.append(entry)
    return entries
