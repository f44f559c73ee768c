"""Checks of a declaration that need no schema, so that a running operator can make them, too."""

import re
from collections.abc import Mapping
from types import FunctionType
from typing import Any, get_args

import msgspec

from pilothouse.kube import Condition

# The module of the function `field`, which imports this module.
_FIELD = "pilothouse.api.kind"
# A quoted text in a JSONPath, such as the one in a filter.
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
# The fields of a status that the engine writes.
_WRITTEN: Mapping[str, Any] = {
    "observed_generation": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Reconciled",
            "message": "Reconciled.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}


class FieldError(TypeError):
    """A field of a struct is declared in a way that would be ignored, or that the engine cannot use.

    Attributes:
        struct: The struct.
        name: The field.
    """

    def __init__(self, struct: type, name: str, problem: str) -> None:
        super().__init__(f"{struct.__name__}.{name}: {problem}")
        self.struct, self.name = struct, name


def require_view(where: str, view: object) -> None:
    """Refuses a view that is not a struct type.

    Raises:
        TypeError: The text names the value.
    """
    if not (isinstance(view, type) and issubclass(view, msgspec.Struct)):
        given = repr(view)
        if isinstance(view, msgspec.Struct):
            kind = type(view).__name__
            given = f"an object of it. Write {kind}, without parentheses"
        raise TypeError(f"{where}: the view must be the struct of its objects, not {given}")


def require_fields(view: type[Any]) -> None:
    """Refuses `field` in a place where Python and msgspec would ignore it.

    Args:
        view: The view of a kind. The structs in it are checked, too.

    Raises:
        FieldError: `field(...)` is the default of a field, `field` has no parentheses, or a type has two.
    """
    seen: set[type] = set()

    def visit(of: Any) -> None:
        for inner in get_args(of):
            visit(inner)
        if not (isinstance(of, type) and issubclass(of, msgspec.Struct)) or of in seen:
            return
        seen.add(of)
        try:
            fields = msgspec.structs.fields(of)
        except (TypeError, NameError):
            return  # A type that the schema refuses.
        for each in fields:
            if isinstance(each.default, msgspec.Meta):
                kind = getattr(each.type, "__name__", "str")
                raise FieldError(
                    of,
                    each.name,
                    f"field(...) is not a default. Write {each.name}: Annotated[{kind}, field(...)] = ...",
                )
            _require_one_description(of, each.name, each.type)
            visit(each.type)

    visit(view)


def _require_one_description(struct: type, name: str, of: Any) -> None:
    for inner in get_args(of):
        _require_one_description(struct, name, inner)
    notes = getattr(of, "__metadata__", ())
    if any(isinstance(each, FunctionType) and each.__module__ == _FIELD for each in notes):
        raise FieldError(
            struct, name, 'field has no parentheses. Write field("..."), with a description of the field'
        )
    texts = [each.description for each in notes if isinstance(each, msgspec.Meta) and each.description]
    if len(texts) > 1:
        raise FieldError(
            struct, name, f"the type has {len(texts)} descriptions, such as {texts[-1]!r}. Use one field(...)"
        )


def require_json_path(where: str, name: str, path: str, *parts: str) -> None:
    """Refuses a JSONPath that the API server would refuse.

    Args:
        where: What has the path, for the error: "Column 'Size'".
        name: The attribute with the path.
        path: The path.
        parts: The parts of an object in which the path may be, such as "spec".

    Raises:
        TypeError: The path does not begin with a dot, or its brackets or quotes are not balanced.
    """
    if not path.startswith("."):
        hint = f"Write .{path}" if path.split(".")[0] in parts else f"Write a path such as .{parts[0]}.size"
        raise TypeError(f"{where}: {name} must begin with a dot, but is {path!r}. {hint}")
    plain, opened = _QUOTED.sub("", path), ""
    for each in plain:
        if each in "[(":
            opened += each
        elif each in "])":
            if opened[-1:] + each not in ("[]", "()"):
                opened = each
                break
            opened = opened[:-1]
    if opened or "'" in plain or '"' in plain:
        raise TypeError(f"{where}: the brackets or quotes in {name} {path!r} are not balanced")


def require_status(view: type[Any]) -> None:
    """Refuses a status that could not be decoded after the engine has written its fields into it.

    Args:
        view: The view of the kind.

    Raises:
        FieldError: A field has no default, or one of the engine's fields has another type.
    """
    try:
        declared = {each.name: each.type for each in msgspec.structs.fields(view)}.get("status")
        struct = _struct_in(declared)
        fields = {each.name: each for each in msgspec.structs.fields(struct)}
    except (TypeError, NameError):
        return  # No struct, or a type that the schema refuses.
    written = _WRITTEN.keys() & fields.keys()
    for name in fields.keys() if written else ():
        if fields[name].required:
            raise FieldError(struct, name, "a new object has no status. Give the field a default")
    for name in sorted(written):
        problem = "the engine writes this field, with another type. Do not declare it: inherit it from Status"
        try:
            found = msgspec.convert({fields[name].encode_name: _WRITTEN[name]}, struct)
        except msgspec.ValidationError as error:
            raise FieldError(struct, name, f"{problem} ({error})") from None
        except TypeError:
            return  # The schema refuses the type, and says why.
        value = getattr(found, name)
        if not (value == 1 or (isinstance(value, tuple) and isinstance(value[0], Condition))):
            raise FieldError(struct, name, problem)


def _struct_in(declared: Any) -> Any:
    """Returns the struct in the type of a field, such as that of an Annotated or of `X | None`."""
    if isinstance(declared, type):
        return declared
    return next(filter(None, map(_struct_in, get_args(declared))), None)
