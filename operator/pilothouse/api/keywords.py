"""The keywords of a structural schema that a field may set.

https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pilothouse.kube.resource import require_flags

_NUMBER = (int, float)
_LIST = (list, tuple)

# The types that each keyword's value may have. Empty: any type.
_KEYWORDS: Mapping[str, tuple[type, ...]] = {
    "description": (str,),
    "default": (),
    "enum": _LIST,
    "example": (),
    "format": (str,),
    "nullable": (bool,),
    "minimum": _NUMBER,
    "maximum": _NUMBER,
    "exclusiveMinimum": (bool,),
    "exclusiveMaximum": (bool,),
    "multipleOf": _NUMBER,
    "minLength": (int,),
    "maxLength": (int,),
    "pattern": (str,),
    "minItems": (int,),
    "maxItems": (int,),
    "minProperties": (int,),
    "maxProperties": (int,),
    "x-kubernetes-embedded-resource": (bool,),
    "x-kubernetes-preserve-unknown-fields": (bool,),
    "x-kubernetes-map-type": (str,),
    "x-kubernetes-list-type": (str,),
    "x-kubernetes-list-map-keys": _LIST,
    "x-kubernetes-validations": _LIST,
}

# The types of values that a keyword is about. It has no effect on others.
_NUMBERS, _TEXTS, _ARRAYS, _OBJECTS = ("integer", "number"), ("string",), ("array",), ("object",)
_ABOUT: Mapping[str, tuple[str, ...]] = {
    "minimum": _NUMBERS,
    "maximum": _NUMBERS,
    "exclusiveMinimum": _NUMBERS,
    "exclusiveMaximum": _NUMBERS,
    "multipleOf": _NUMBERS,
    "minLength": _TEXTS,
    "maxLength": _TEXTS,
    "pattern": _TEXTS,
    "minItems": _ARRAYS,
    "maxItems": _ARRAYS,
    "minProperties": _OBJECTS,
    "maxProperties": _OBJECTS,
}
_SIZES = ("Length", "Items", "Properties")


def require_bounds(type_name: str, words: Mapping[str, Any]) -> None:
    """Checks the bounds of a field, which the API server would accept although they mean nothing.

    Args:
        type_name: The type in the structural schema, such as "string". Empty: any.
        words: The field's keywords, each of which `require_keyword` accepts.

    Raises:
        TypeError: A bound is about another type, is negative, or is above the opposite bound.
    """
    for word in words:
        about = _ABOUT.get(word, ())
        if type_name and about and type_name not in about:
            raise TypeError(
                f"{word} is for the type {' or '.join(about)}, but the field is of type {type_name}"
            )
    for size in _SIZES:
        for word in (f"min{size}", f"max{size}"):
            if words.get(word, 0) < 0:
                raise TypeError(f"{word} must not be negative, but is {words[word]}")
    for low, high in (("minimum", "maximum"), *((f"min{size}", f"max{size}") for size in _SIZES)):
        if low in words and high in words and words[low] > words[high]:
            raise TypeError(f"{low} is {words[low]}, but {high} is {words[high]}, so no value is valid")


def broken_keyword(schema: Mapping[str, Any], value: Any) -> str:
    """Returns the keyword that a default does not satisfy, with its value; empty if it satisfies all.

    Args:
        schema: The schema of the field.
        value: The default.
    """
    if value is None:
        return ""
    broken: dict[str, bool] = {}
    if "enum" in schema:
        broken["enum"] = value not in schema["enum"]
    if isinstance(value, int | float) and not isinstance(value, bool):
        broken["minimum"] = value < schema.get("minimum", value)
        broken["maximum"] = value > schema.get("maximum", value)
    for size, kind in (("Length", str), ("Items", list | tuple), ("Properties", dict)):
        if isinstance(value, kind):
            broken[f"min{size}"] = len(value) < schema.get(f"min{size}", 0)
            broken[f"max{size}"] = len(value) > schema.get(f"max{size}", len(value))
    return next((f"{word}={schema[word]!r}" for word, is_broken in broken.items() if is_broken), "")


def require_list_type(base: Mapping[str, Any], words: Mapping[str, Any]) -> None:
    """Checks the kind of a list, and the fields that identify its items.

    Args:
        base: The schema of the field without its keywords.
        words: The field's keywords.

    Raises:
        TypeError: The field is not a list, its items lack a field, or are not text, numbers or booleans.
    """
    kind = words.get("x-kubernetes-list-type")
    if kind is None or base.get("x-kubernetes-preserve-unknown-fields"):
        return
    items = base.get("items")
    if items is None:
        raise TypeError("map_keys and list_type are for lists, but the field is of type " + base["type"])
    if kind == "map":
        for name in words["x-kubernetes-list-map-keys"]:
            if name not in items.get("properties", {}):
                raise TypeError(f"map_keys has {name!r}, but the items of the list have no such field")
    elif kind == "set" and items.get("type") in ("object", "array"):
        raise TypeError('list_type="set" is for lists of text, numbers or booleans. Use map_keys')


def require_types(where: str, declared: object) -> None:
    """Refuses an attribute of a dataclass that is not the str, int or bool that its annotation requires.

    Raises:
        TypeError: The text names the attribute and the value.
    """
    for each in dataclasses.fields(declared):  # type: ignore[arg-type]
        value = getattr(declared, each.name)
        if each.type is bool:
            require_flags(where, **{each.name: value})
        if each.type not in (str, int):
            continue
        if not isinstance(value, each.type) or (each.type is int and isinstance(value, bool)):
            raise TypeError(f"{where}: {each.name} must be of type {each.type.__name__}, not {value!r}")


def require_list(where: str, **values: object) -> None:
    """Refuses a single value where a list is expected. A str would be taken for a list of its characters.

    Raises:
        TypeError: A value is not a list or tuple.
    """
    for name, value in values.items():
        if not isinstance(value, list | tuple):
            raise TypeError(f"{where}: {name} is {value!r}, which is not a list. Pass a list: {name}=[...]")


def require_keyword(word: str, value: object) -> None:
    """Checks a keyword that the API server would otherwise refuse, or silently drop.

    Raises:
        TypeError: The keyword does not exist, or its value has the wrong type.
    """
    if word not in _KEYWORDS:
        raise TypeError(f"{word!r} is not a keyword of a structural schema{_similar(word)}")
    types = _KEYWORDS[word]
    if types and (not isinstance(value, types) or (isinstance(value, bool) and bool not in types)):
        names = " or ".join(each.__name__ for each in types)
        raise TypeError(f"{word} must be of type {names}, not {value!r}")


def _similar(word: str) -> str:
    import difflib  # Imported only for a mistake, to save memory in a running operator.

    found = difflib.get_close_matches(word, _KEYWORDS, n=1)
    return f"; did you mean {found[0]}?" if found else ""
