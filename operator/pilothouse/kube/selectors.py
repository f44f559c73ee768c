"""Label and field selectors, evaluated as in the API server."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from pilothouse.kube.errors import BadRequest

Matches: TypeAlias = Callable[[Mapping[str, Any]], bool]
"""Whether an object, as decoded JSON, is selected."""

_SETS = re.compile(r"^\s*([^\s()]+)\s+(in|notin)\s*\(([^()]*)\)\s*$")
_PAIRS = re.compile(r"^\s*([^\s!=]+)\s*(==|=|!=)\s*([^\s!=()]*)\s*$")
_BOUNDS = re.compile(r"^\s*([^\s!=<>]+)\s*([<>])\s*(-?[0-9]+)\s*$")
_NAMES = re.compile(r"^\s*(!?)\s*([^\s!=<>(),]+)\s*$")
_COMMAS = re.compile(r",(?![^(]*\))")


class _Requirement(NamedTuple):
    """One part of a selector. A selector matches if all parts do.

    Attributes:
        name: The label or the field.
        operator: in, notin, exists, absent, > or <.
        values: The values to compare with.
    """

    name: str
    operator: str
    values: frozenset[str] = frozenset()


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
    labels = [_rule(each, lambda labels, name: labels.get(name)) for each in _label_parts(label_selector)]
    fields = [_rule(each, _field) for each in _field_parts(field_selector)]

    def matches(obj: Mapping[str, Any]) -> bool:
        own = obj["metadata"].get("labels") or {}
        return all(rule(own) for rule in labels) and all(rule(obj) for rule in fields)

    return matches


def exclude_each_other(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Returns whether no object can match two pairs of a label selector and a field selector.

    Raises:
        BadRequest: A selector cannot be parsed.
    """
    labels = [*_label_parts(one[0]), *_label_parts(other[0])]
    fields = [*_field_parts(one[1]), *_field_parts(other[1])]
    return any(_contradict(parts) for parts in (*_by_name(labels), *_by_name(fields)))


def _by_name(requirements: Iterable[_Requirement]) -> Iterable[list[_Requirement]]:
    found: dict[str, list[_Requirement]] = {}
    for each in requirements:
        found.setdefault(each.name, []).append(each)
    return found.values()


def _contradict(requirements: Sequence[_Requirement]) -> bool:
    """Returns whether no value of one label or field fulfils all requirements."""
    if any(each.operator == "absent" for each in requirements):
        return any(each.operator not in ("absent", "notin") for each in requirements)
    listed = [each.values for each in requirements if each.operator == "in"]
    if listed:
        # Only these values are possible, and each requirement can be checked.
        name, rules = requirements[0].name, [_rule(each, dict.get) for each in requirements]
        return not any(all(rule({name: value}) for rule in rules) for value in listed[0])
    above = [int(value) for each in requirements if each.operator == ">" for value in each.values]
    below = [int(value) for each in requirements if each.operator == "<" for value in each.values]
    return bool(above and below) and max(above) + 1 >= min(below)


def _label_parts(selector: str) -> list[_Requirement]:
    return [_label_requirement(part) for part in _COMMAS.split(selector) if part.strip()]


def _field_parts(selector: str) -> list[_Requirement]:
    return [_field_requirement(part) for part in selector.split(",") if part.strip()]


def _label_requirement(text: str) -> _Requirement:
    if found := _SETS.match(text):
        return _Requirement(found[1], found[2], frozenset(value.strip() for value in found[3].split(",")))
    if found := _PAIRS.match(text):
        return _equality(found)
    if found := _BOUNDS.match(text):
        return _Requirement(found[1], found[2], frozenset((found[3],)))
    if found := _NAMES.match(text):
        return _Requirement(found[2], "absent" if found[1] else "exists")
    raise BadRequest(400, "BadRequest", f"unable to parse requirement: {text!r}")


def _field_requirement(text: str) -> _Requirement:
    found = _PAIRS.match(text)
    if not found:
        raise BadRequest(400, "BadRequest", f"invalid selector: {text!r}; can't understand {text!r}")
    return _equality(found)


def _equality(found: re.Match[str]) -> _Requirement:
    return _Requirement(found[1], "notin" if found[2] == "!=" else "in", frozenset((found[3],)))


def _rule(requirement: _Requirement, read: Callable[[Any, str], Any]) -> Matches:
    """Returns a function that returns whether a source of values fulfils a requirement."""
    name, operator, values = requirement
    match operator:
        case "in":
            return lambda source: read(source, name) in values
        case "notin":
            return lambda source: read(source, name) not in values
        case "exists":
            return lambda source: name in source
        case "absent":
            return lambda source: name not in source
    (bound,) = map(int, values)

    def within(labels: Mapping[str, Any]) -> bool:
        held = labels.get(name, "")
        if not re.fullmatch(r"-?[0-9]+", held):
            return False
        return int(held) > bound if operator == ">" else int(held) < bound

    return within


def _field(obj: Any, path: str) -> str:
    for name in path.split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return str(obj).lower()
    return "" if obj is None else str(obj)
