"""The keywords of a structural schema that a field may set.

https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
"""

from collections.abc import Mapping
from typing import Any

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
