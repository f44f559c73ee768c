"""The structural schemas of Kubernetes' core types, from its OpenAPI document. Development only.

`core_types.json` is written by `./inv core-types`; `text` says what of the document it holds.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pilothouse.api import quantity

ROOTS = ("PersistentVolumeClaimSpec", "PodTemplateSpec")
"""The types that are kept, with all that they are made of."""

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
# What the document says in words of its own, or with more than a structural schema may have.
_SPECIAL: Mapping[str, dict[str, Any]] = {
    "util.intstr.IntOrString": INT_OR_STRING,
    "api.resource.Quantity": {**INT_OR_STRING, "pattern": quantity.PATTERN},
    # Of the metadata of a template, what a template may say: the fields that controller-gen keeps, too.
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
    """The structural schema of a core type, whole.

    Raises:
        KeyError: It is not part of what is kept.
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
    """What FILE holds: the definitions that ROOTS are made of, without what a CRD cannot or need not hold.

    Away go descriptions (they are ten times the rest), the words for strategic merge patches, enums (a newer
    Kubernetes may know more words), and defaults: the API server sets them on what is made of the value. One
    of a list's key stays: a CRD demands it.

    Args:
        document: /openapi/v3/api/v1 of an API server.
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
    # A reference that has a description beside it is written allOf: [reference].
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
    """The types that are items of lists with keys, and these keys."""
    if isinstance(schema, dict):
        if "x-kubernetes-list-map-keys" in schema and "$ref" in schema["items"]:
            yield schema["items"]["$ref"], set(schema["x-kubernetes-list-map-keys"])
        for value in schema.values():
            yield from _list_keys(value)
