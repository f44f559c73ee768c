"""Detects that a task changed a mapping or a list inside its object, which is shared with all other readers.

Views are frozen, but a mapping in them is not. A change in place would alter the object in the store, so the
status would not differ from the stored one and would not be written.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

# The fields by view. An operator has few views.
_FIELDS: dict[type, Sequence["_Field"]] = {}
_SCALARS = (str, bytes, int, float, bool, type(None))


class _Field(NamedTuple):
    """A field that may hold a mapping or a list.

    Attributes:
        owner: The names of the attributes from the object to the Struct that has the field.
        name: The name of the attribute.
        type: The type of the field.
    """

    owner: tuple[str, ...]
    name: str
    type: Any

    @property
    def path(self) -> str:
        """The field for people: "status.members"."""
        return ".".join((*self.owner, self.name))


class _Value(NamedTuple):
    """A field of an object, and its encoded value before the tasks ran; empty for an empty one."""

    field: _Field
    owner: Any
    before: bytes


class Contents:
    """The mappings and lists in an object before its tasks run.

    Args:
        obj: The object.
    """

    __slots__ = ("_values",)

    def __init__(self, obj: Any) -> None:
        self._values = [
            _Value(field, owner, _encoded(getattr(owner, field.name)))
            for field in _fields(type(obj))
            if (owner := _owner(obj, field.owner)) is not None
        ]

    def restore(self) -> str:
        """Restores the fields that were changed in place.

        Returns:
            The name of the first one, such as "status.members"; empty if there is none.
        """
        changed = [
            each for each in self._values if _encoded(getattr(each.owner, each.field.name)) != each.before
        ]
        for each in changed:
            name = each.field.name
            with suppress(msgspec.MsgspecError):
                if each.before:
                    value = msgspec.json.decode(each.before, type=each.field.type)
                else:
                    value = type(getattr(each.owner, name))()
                force_setattr(each.owner, name, value)
        return changed[0].field.path if changed else ""


def _encoded(value: Any) -> bytes:
    if not value:
        return b""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError):
        return b"a value that JSON cannot express"


def _owner(obj: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        obj = getattr(obj, name)
        if obj is None:
            return None
    return obj


def _fields(view: type) -> Sequence[_Field]:
    """Returns the fields of a view that may hold mappings or lists."""
    found = _FIELDS.get(view)
    if found is None:
        found = _FIELDS[view] = tuple(_found(view, (), (view,)))
    return found


def _found(struct: type, owner: tuple[str, ...], inside: tuple[type, ...]) -> Iterator[_Field]:
    hints = get_type_hints(struct, include_extras=True)
    for each in struct.__struct_fields__:  # type: ignore[attr-defined]
        declared = hints[each]
        inner = _struct(declared)
        if inner is None:
            if _changeable(declared, inside):
                yield _Field(owner, each, declared)
        elif inner not in inside:
            yield from _found(inner, (*owner, each), (*inside, inner))


def _struct(declared: Any) -> type | None:
    """Returns the Struct that a field holds, also if it is optional or annotated; else None."""
    if get_origin(declared) is not None:
        found = [each for each in get_args(declared) if each is not type(None)]
        is_wrapped = get_origin(declared) not in (tuple, list, dict)
        return _struct(found[0]) if is_wrapped and found else None
    return declared if isinstance(declared, type) and issubclass(declared, Struct) else None


def _changeable(declared: Any, inside: tuple[type, ...]) -> bool:
    """Returns whether a value of a type can be changed in place, or contains such a value."""
    kind = get_origin(declared) or declared
    if kind is Any:
        return True
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind not in inside and any(True for _ in _found(kind, (), (*inside, kind)))
    if isinstance(kind, type) and kind not in _SCALARS and kind is not tuple:
        return hasattr(kind, "__len__") and not issubclass(kind, str | bytes)
    return any(_changeable(each, inside) for each in get_args(declared))
