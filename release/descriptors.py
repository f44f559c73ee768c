"""The owned-CRD entries of a ClusterServiceVersion, which a console shows for a kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Returns the paths and declarations of the fields of a kind's spec or status, such as "pod.labels".

    The fields of a struct follow the struct itself. Those of core types and of list items are not included.

    Raises:
        TypeError: A field is not declared with pilothouse.api.field, so it has no description.
    """
    whole = inspect.type_info(kind.resource.view)
    if not isinstance(whole, inspect.StructType):
        raise TypeError(f"{kind.resource.kind}: the view is not a struct")
    parts = {field.encode_name: field.type for field in whole.fields}
    struct = _struct(parts[part])
    if struct is None:
        raise TypeError(f"{kind.resource.kind}.{part} is not a struct")
    return list(_fields(struct, f"{kind.resource.kind}.{part}", ""))


def _fields(struct: inspect.StructType, where: str, above: str) -> Iterator[tuple[str, inspect.Metadata]]:
    for field in struct.fields:
        path = f"{above}{field.encode_name}"
        if not isinstance(field.type, inspect.Metadata) or not field.type.extra_json_schema:
            raise TypeError(f"{where}.{path}: declare it with field(description)")
        yield path, field.type
        if below := _struct(field.type):
            yield from _fields(below, where, f"{path}.")


def _struct(of: inspect.Type) -> inspect.StructType | None:
    """Returns the struct that a field contains, which may be optional; None if it does not contain one."""
    while isinstance(of, inspect.Metadata):
        of = of.type
    if isinstance(of, inspect.UnionType):
        return next(filter(None, map(_struct, of.types)), None)
    return of if isinstance(of, inspect.StructType) else None


def _descriptors(kind: Kind[Any], part: str) -> list[Document]:
    entries: list[Document] = []
    for path, declared in fields(kind, part):
        words = declared.extra_json_schema or {}
        descriptors = (declared.extra or {}).get("descriptors", ())
        entry = {"path": path, "displayName": words.get("title", path), "description": words["description"]}
        if descriptors:
            entry["x-descriptors"] = [_PREFIX + descriptor for descriptor in descriptors]
        entries.append(entry)
    return entries
