"""The CustomResourceDefinition of a kind. For development only: a running operator never imports it."""

from collections.abc import Iterator
from typing import Any

import msgspec

from pilothouse.api.kind import READY_COLUMNS, Column, Kind, Version
from pilothouse.api.paths import require_path, require_rules
from pilothouse.api.schema import Schema, structural_schema

# The descriptions of k8s.io/apimachinery's TypeMeta, shortened.
_HEADER: Schema = {
    "apiVersion": {
        "type": "string",
        "description": "The API group and version of the object's schema.",
    },
    "kind": {"type": "string", "description": "The kind of the object."},
}

# The limit for all annotations (apimachinery). A client-side `kubectl apply` keeps the manifest in one.
ANNOTATION_BYTES = 262_144
# The largest object that etcd stores by default (--max-request-bytes). The API server adds managedFields.
STORED_BYTES = 1_572_864
# The types of fields that field selectors may use.
_SELECTABLE = ("string", "integer", "boolean")
# The note appears from this fraction of a limit.
_NEAR = 0.8


class WrongValue(TypeError):
    """A value in the declaration of a Kind is not valid.

    Attributes:
        value: The text in the declaration, such as a path or a CEL rule.
    """

    def __init__(self, message: str, value: str) -> None:
        super().__init__(message)
        self.value = value


def size_note(manifest: Schema) -> str:
    """Returns advice about the size of a CustomResourceDefinition. Empty if it is far below the limits.

    Args:
        manifest: The CustomResourceDefinition.
    """
    size = len(msgspec.json.encode(manifest))
    what = f"the CustomResourceDefinition {manifest['metadata']['name']} has {size:,} bytes"
    shorten = "Shorten the descriptions, or split the kind."
    if size > STORED_BYTES:
        return f"{what}. It cannot be stored: etcd accepts at most {STORED_BYTES:,} bytes. {shorten}"
    if size > _NEAR * STORED_BYTES:
        return f"{what}. This is close to etcd's limit of {STORED_BYTES:,} bytes. {shorten}"
    if size > _NEAR * ANNOTATION_BYTES:
        return (
            f"{what}. Install it with `kubectl apply --server-side`: without that option, kubectl keeps a "
            f"copy of it in an annotation, and annotations are limited to {ANNOTATION_BYTES:,} bytes."
        )
    return ""


def crd(kind: Kind[Any]) -> Schema:
    """Returns the CustomResourceDefinition of the kind, with the status as a subresource.

    Raises:
        TypeError: A view cannot be expressed as a schema, or another version does not match the stored one.
    """
    resource = kind.resource
    _require_paths(kind, object_schema(kind))
    names: Schema = {
        "kind": resource.kind,
        "listKind": f"{resource.kind}List",
        "singular": resource.kind.lower(),
        "plural": resource.plural,
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.group}"},
        "spec": {
            "group": resource.group,
            "names": names,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": [_stored(kind), *(_further(kind, version) for version in kind.versions)],
        },
    }


def object_schema(kind: Kind[Any]) -> Schema:
    """Returns the structural schema of an object of the kind, in the stored version."""
    return _object_schema(kind, kind.resource.view)


def _require_paths(kind: Kind[Any], schema: Schema) -> None:
    """Refuses paths of fields that do not exist. The API server would accept such a column."""
    scale = kind.scale
    sizes = (scale.spec_replicas, scale.status_replicas, scale.label_selector) if scale else ()
    columns = () if kind.columns is READY_COLUMNS else (column.path for column in kind.columns)
    for path in (*columns, *sizes, *kind.selectable):
        try:
            found = require_path(schema, path)
        except TypeError as error:
            raise WrongValue(f"{kind.resource.kind}: {error}", path) from None
        if path in kind.selectable and found and found.get("type") not in _SELECTABLE:
            raise WrongValue(
                f"{kind.resource.kind}: selectable has {path!r}, but a field selector needs the type "
                f"{' or '.join(_SELECTABLE)}",
                path,
            )


def _object_schema(kind: Kind[Any], view: type) -> Schema:
    schema = structural_schema(view)
    if not {"metadata", "spec", "status"} <= schema["properties"].keys():
        raise TypeError(f"{view.__name__}: a view of a kind needs the fields metadata, spec and status")
    if "properties" in schema["properties"]["metadata"] or len(schema["properties"]["metadata"]) > 1:
        raise TypeError(f"{view.__name__}.metadata: the type must be ObjectMeta")
    for name in _HEADER.keys() & schema["properties"].keys():
        if schema["properties"][name].get("type") != "string":
            raise TypeError(f"{view.__name__}.{name}: the type must be str")
    whole: Schema = {
        "type": "object",
        "description": kind.description,
        **schema,
        "properties": {**_HEADER, **schema["properties"]},
    }
    if kind.rules:
        whole["x-kubernetes-validations"] = [rule.to_schema() for rule in kind.rules]
        for rule in whole["x-kubernetes-validations"]:
            try:
                require_rules(whole, [rule], root=True)
            except TypeError as error:
                raise WrongValue(f"{kind.resource.kind}: {error}", rule["rule"]) from None
    return whole


def _stored(kind: Kind[Any]) -> Schema:
    stored = {
        "name": kind.resource.version,
        "served": True,
        "storage": True,
        **_shown(kind, object_schema(kind)),
    }
    # Only in this version: the API server refuses a CRD whose versions have the same selectable fields and
    # different schemas (https://github.com/kubernetes/kubernetes/issues/140689).
    if kind.selectable:
        stored["selectableFields"] = [{"jsonPath": path} for path in kind.selectable]
    return stored


def _further(kind: Kind[Any], version: Version) -> Schema:
    schema = _object_schema(kind, version.view)
    stored = object_schema(kind)
    if lost := {*_lost(schema, stored, ""), *_lost(stored, schema, "")}:
        raise TypeError(
            f"{kind.resource.kind} {version.name}: {', '.join(sorted(lost))} would be lost or refused; "
            f"declare the same fields with the same types as in {kind.resource.version}, the stored version"
        )
    deprecated: Schema = (
        {"deprecated": True, "deprecationWarning": version.deprecation} if version.deprecation else {}
    )
    return {
        "name": version.name,
        "served": version.served,
        "storage": False,
        **deprecated,
        **_shown(kind, schema),
    }


def _lost(schema: Schema, other: Schema, path: str) -> Iterator[str]:
    """Yields the fields of a schema that another schema lacks or has with another type."""
    if schema.get("type") != other.get("type"):
        yield path
        return
    for name, part in schema.get("properties", {}).items():
        if name in other.get("properties", {}):
            yield from _lost(part, other["properties"][name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"
    for word in ("items", "additionalProperties"):
        if word in schema and word in other:
            yield from _lost(schema[word], other[word], f"{path}[]")


def _shown(kind: Kind[Any], schema: Schema) -> Schema:
    """Returns the parts that all versions have in common, and the schema."""
    shown: Schema = {
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    if kind.scale is not None:
        scale = {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
        }
        if kind.scale.label_selector:
            scale["labelSelectorPath"] = kind.scale.label_selector
        shown["subresources"]["scale"] = scale
    return shown


def _column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry
