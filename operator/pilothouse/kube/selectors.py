"""Label and field selectors, evaluated as in the API server."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

from pilothouse.kube.errors import BadRequest

Matches: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Whether an object, as decoded JSON, is selected."""

_SETS = re.compile(r"^\s*([^\s()]+)\s+(in|notin)\s*\(([^()]*)\)\s*$")
_PAIRS = re.compile(r"^\s*([^\s!=]+)\s*(==|=|!=)\s*([^\s!=()]*)\s*$")
_BOUNDS = re.compile(r"^\s*([^\s!=<>]+)\s*([<>])\s*(-?[0-9]+)\s*$")
_NAMES = re.compile(r"^\s*(!?)\s*([^\s!=<>(),]+)\s*$")
_COMMAS = re.compile(r",(?![^(]*\))")


@lru_cache(maxsize=256)
def matcher(label_selector: str, field_selector: str) -> Matches:
    """Returns a function that returns whether both selectors match an object.

    Args:
        label_selector: The label selector, such as `app=web,tier!=cache,env in (a,b),!old,cores>4`.
        field_selector: The field selector, such as `metadata.name=web,status.phase!=Failed`. It can use any
            field with a scalar value.

    Raises:
        BadRequest: A selector cannot be parsed.
    """
    labels = [_label_rule(part) for part in _COMMAS.split(label_selector) if part.strip()]
    fields = [_field_rule(part) for part in field_selector.split(",") if part.strip()]

    def matches(obj: Mapping[str, Any]) -> bool:
        own = obj["metadata"].get("labels") or {}
        return all(rule(own) for rule in labels) and all(rule(obj) for rule in fields)

    return matches


def _label_rule(text: str) -> Matches:
    if found := _SETS.match(text):
        name, word, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
        return lambda labels: (labels.get(name) in values) == (word == "in")
    if found := _PAIRS.match(text):
        return _equality(found[1], found[2], found[3], lambda labels, name: labels.get(name))
    if found := _BOUNDS.match(text):
        return _bound(found[1], found[2], int(found[3]))
    if found := _NAMES.match(text):
        name, wanted = found[2], not found[1]
        return lambda labels: (name in labels) == wanted
    raise BadRequest(400, "BadRequest", f"unable to parse requirement: {text!r}")


def _field_rule(text: str) -> Matches:
    found = _PAIRS.match(text)
    if not found:
        raise BadRequest(400, "BadRequest", f"invalid selector: {text!r}; can't understand {text!r}")
    return _equality(found[1], found[2], found[3], _field)


def _equality(name: str, operator: str, value: str, read: Callable[[Any, str], Any]) -> Matches:
    return lambda source: (read(source, name) == value) == (operator != "!=")


def _bound(name: str, operator: str, value: int) -> Matches:
    def within(labels: Mapping[str, Any]) -> bool:
        held = labels.get(name, "")
        if not re.fullmatch(r"-?[0-9]+", held):
            return False
        return int(held) > value if operator == ">" else int(held) < value

    return within


def _field(obj: Any, path: str) -> str:
    for name in path.split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return str(obj).lower()
    return "" if obj is None else str(obj)
