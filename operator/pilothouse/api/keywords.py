"""The keywords of a structural schema that a field may set.

https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/
"""

from collections.abc import Mapping

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
