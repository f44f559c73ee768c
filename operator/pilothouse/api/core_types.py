"""The structural schemas of Kubernetes' core types, from its OpenAPI document. For development only.

`./inv core-types` writes `core_types.json`. The function `text` documents which parts it contains.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pilothouse.api import quantity

ROOTS = ("PersistentVolumeClaimSpec", "PodTemplateSpec")
"""The types that are kept, together with the types that they refer to."""

FILE = Path(__file__).with_suffix(".json")

_PREFIXES = ("io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.")
_KEPT = (
    *("type", "format", "required", "additionalProperties", "items", "properties", "$ref"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"),
)
INT_OR_STRING: dict[str, Any] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
# Types that the document describes in its own way, or with more than a structural schema allows.
_SPECIAL: Mapping[str, dict[str, Any]] = {
    "util.intstr.IntOrString": INT_OR_STRING,
    "api.resource.Quantity": {**INT_OR_STRING, "pattern": quantity.PATTERN},
    # The metadata of a template: the fields that controller-gen keeps as well.
    "apis.meta.v1.ObjectMeta": {
        "type": "object",
        "properties": {
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "finalizers": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "name": {"type": "string"},
            "namespace": {"type": "string"},
        },
    },
}


def core_schema(name: str) -> dict[str, Any]:
    """Returns the complete structural schema of a core type.

    Raises:
        KeyError: The type is not in `core_types.json`.
    """
    schema: dict[str, Any] = _resolved(_definitions()[name])
    return schema


@cache
def _definitions() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text())
    return loaded


def _resolved(schema: Any) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return core_schema(schema["$ref"])
        return {word: _resolved(value) for word, value in schema.items()}
    return [_resolved(each) for each in schema] if isinstance(schema, list) else schema


def text(document: Mapping[str, Any]) -> str:
    """Returns the content of FILE: the definitions of ROOTS, without the parts that a CRD does not need.

    These are left out:

    - descriptions, which are ten times as large as the rest
    - the keywords for strategic merge patches
    - enums, because a newer Kubernetes may know more values
    - defaults, because the API server sets them on the object that the operator creates. The default of a
      list's key is kept, because a CRD requires it.

    Args:
        document: The document /openapi/v3/api/v1 of an API server.
    """
    schemas = document["components"]["schemas"]
    found: dict[str, Any] = {}
    pending = [f"io.k8s.api.core.v1.{root}" for root in ROOTS]
    while pending:
        name = pending.pop()
        if _short(name) not in found:
            schema = _SPECIAL.get(_short(name)) or _trimmed(schemas[name])
            found[_short(name)] = schema
            pending += [long for long in schemas if _short(long) in set(_references(schema))]
    for name, keys in _list_keys(found):
        long = next(long for long in schemas if _short(long) == name)
        for key in keys - set(found[name].get("required", ())):
            found[name]["properties"][key]["default"] = schemas[long]["properties"][key]["default"]
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _short(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _trimmed(schema: Mapping[str, Any]) -> dict[str, Any]:
    # A reference with a description is written as allOf: [reference].
    for part in schema.get("allOf", ()):
        schema = part
    kept = {word: schema[word] for word in _KEPT if word in schema}
    if "$ref" in kept:
        return {"$ref": _short(kept["$ref"].rpartition("/")[2])}
    if "properties" in kept:
        kept["properties"] = {name: _trimmed(part) for name, part in kept["properties"].items()}
    for word in ("items", "additionalProperties"):
        if word in kept:
            kept[word] = _trimmed(kept[word])
    return kept


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)


def _list_keys(schema: Any) -> Iterator[tuple[str, set[str]]]:
    """Yields the types that are items of lists with keys, and these keys."""
    if isinstance(schema, dict):
        if "x-kubernetes-list-map-keys" in schema and "$ref" in schema["items"]:
            yield schema["items"]["$ref"], set(schema["x-kubernetes-list-map-keys"])
        for value in schema.values():
            yield from _list_keys(value)
