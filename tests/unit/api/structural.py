"""The part of structural schemas that our CRDs use, as the API server reads it: whether an object fits."""

from collections.abc import Iterator
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def complaints(schema: dict[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What the API server would refuse, CEL rules aside; unknown fields are pruned, not refused."""
    if not isinstance(value, TYPES[schema["type"]]) or (
        isinstance(value, bool) and schema["type"] != "boolean"
    ):
        yield f"{path}: {value!r} is not of type {schema['type']}"
        return
    if value not in schema.get("enum", [value]):
        yield f"{path}: {value!r} is not one of {schema['enum']}"
    if schema["type"] in ("integer", "number"):
        if value < schema.get("minimum", value):
            yield f"{path}: {value} is below {schema['minimum']}"
        if value > schema.get("maximum", value):
            yield f"{path}: {value} is above {schema['maximum']}"
    if isinstance(value, dict):
        for name in set(schema.get("required", ())) - value.keys():
            yield f"{path}.{name}: missing"
        for name, item in value.items():
            if name in schema.get("properties", {}):
                yield from complaints(schema["properties"][name], item, f"{path}.{name}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from complaints(schema["items"], item, f"{path}[{index}]")
