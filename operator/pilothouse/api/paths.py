"""Checks the paths of fields in a declaration: in columns, subresources, selectable fields and rules.

For development only: a running operator never imports it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pilothouse.api.cel import paths_of_self

# The first part of a JSONPath, up to an index or a filter.
_PLAIN = re.compile(r"((?:\.[A-Za-z_][\w-]*)+)(?:\[.*)?", re.DOTALL)
# What CEL rules may read of an object's metadata, and the fields of every object.
_METADATA = ("name", "generateName")


def require_path(schema: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """Checks that the field exists that a path such as ".spec.size" names.

    Args:
        schema: The schema of the value that the path begins at.
        path: The path. Only its part before an index or a filter is checked.

    Returns:
        The schema of the field; None if it is not known.

    Raises:
        TypeError: There is no such field.
    """
    plain = _PLAIN.fullmatch(path)
    if plain is None:
        return None
    found: Mapping[str, Any] | None = schema
    for name, found in _steps(schema, plain[1][1:].split(".")):
        if found is None:
            raise TypeError(f"there is no field {name!r} for the path {path!r}")
    return found if plain[0] == plain[1] else None


def require_rules(schema: Mapping[str, Any], rules: Sequence[Mapping[str, Any]], *, root: bool) -> None:
    """Checks the CEL rules of a value: their syntax, and the fields that they read and name.

    Args:
        schema: The schema of the value.
        rules: Entries of x-kubernetes-validations.
        root: Whether the value is the whole object. Rules can read little of its metadata.

    Raises:
        TypeError: A rule is not valid.
    """
    for rule in rules:
        for path in paths_of_self(rule["rule"]):
            if root and path[0] == "metadata":
                if path[1:2] and path[1] not in _METADATA:
                    raise TypeError(
                        f"the CEL rule {rule['rule']!r} reads metadata.{path[1]}, but rules can read only "
                        f"{' and '.join(_METADATA)}"
                    )
                continue
            for name, found in _steps(schema, path):
                if found is None:
                    raise TypeError(
                        f"the CEL rule {rule['rule']!r} reads a field {name!r} that does not exist"
                    )
        if "fieldPath" in rule:
            require_path(schema, rule["fieldPath"])


def _steps(schema: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yields each field of a path with its schema; None for one that does not exist.

    Ends where the schema does not list the fields: in metadata, in maps, and in values of any shape.
    """
    for name in names:
        if schema.get("type", "") in ("", "object"):
            if "properties" not in schema or schema.get("x-kubernetes-preserve-unknown-fields"):
                return
            if "__" in name:
                return  # an escape of CEL
            found = schema["properties"].get(name)
        else:
            found = None
        yield name, found
        if found is None:
            return
        schema = found
