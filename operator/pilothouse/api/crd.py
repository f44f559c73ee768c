"""The CustomResourceDefinition of a kind. Development only: the running operator never imports it."""

from typing import Any

from pilothouse.api.kind import Column, Kind
from pilothouse.api.schema import Schema, structural_schema

# Where an object names its schema and itself (the words of k8s.io/apimachinery's TypeMeta, shortened).
_HEADER: Schema = {
    "apiVersion": {
        "type": "string",
        "description": "The version of the schema that the object is written in.",
    },
    "kind": {"type": "string", "description": "The kind of the object."},
}


def crd(kind: Kind[Any]) -> Schema:
    """The CustomResourceDefinition that serves the kind, with its status as a subresource."""
    resource = kind.resource
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
            "versions": [
                {
                    "name": resource.version,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                    "schema": {"openAPIV3Schema": object_schema(kind)},
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def object_schema(kind: Kind[Any]) -> Schema:
    """The structural schema of a whole object of the kind."""
    schema = structural_schema(kind.resource.view)
    properties = schema["properties"]
    if not isinstance(properties, dict) or not {"metadata", "spec", "status"} <= properties.keys():
        raise TypeError(f"{kind.resource.kind}: the view needs the fields metadata, spec and status")
    whole: Schema = {
        "type": "object",
        "description": kind.description,
        "properties": {**_HEADER, **properties},
    }
    if kind.rules:
        whole["x-kubernetes-validations"] = [rule.to_schema() for rule in kind.rules]
    return whole


def _column(column: Column) -> Schema:
    entry: Schema = {"name": column.name, "type": column.type, "jsonPath": column.path}
    if column.description:
        entry["description"] = column.description
    if column.priority:
        entry["priority"] = column.priority
    return entry
