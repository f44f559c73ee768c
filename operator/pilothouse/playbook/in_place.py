"""Detects that a task changed a mapping or a list inside its object, which is shared with all other readers.

Views are frozen, but a mapping in them is not. A change in place would alter the object in the store, so the
status would not differ from the stored one and would not be written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

_SCALARS = (str, bytes, int, float, bool, type(None))


def _as_dict(value: Any) -> Any:
    """Returns a mapping that msgspec does not know, such as the read-only default of labels, as a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError


# MessagePack takes half the time of JSON.
_encode = msgspec.msgpack.Encoder(enc_hook=_as_dict).encode


class _Field(NamedTuple):
    """A field that may hold a mapping or a list.

    Attributes:
        owner: The names of the attributes from the object to the Struct that has the field.
        name: The name of the attribute.
        type: The type of the field.
        optional: Whether one of these attributes may be None.
    """

    owner: tuple[str, ...]
    name: str
    type: Any
    optional: bool

    @property
    def path(self) -> str:
        """The field for people: "status.members"."""
        return ".".join((*self.owner, self.name))

    def struct(self, obj: Any) -> Any:
        """Returns the Struct of an object that has the field; None if there is none."""
        for name in self.owner:
            obj = getattr(obj, name)
            if obj is None:
                return None
        return obj


class _Group(NamedTuple):
    """The fields of a Struct in an object that may lack it, such as an optional `spec.pod`.

    Attributes:
        fields: The fields, which have the same owner.
        get: Returns their values.
        lacking: Their values if there is no such Struct.
    """

    fields: Sequence[_Field]
    get: Callable[[Any], tuple[Any, ...]]
    lacking: tuple[None, ...]


class _View:
    """The fields of a view that may hold mappings or lists.

    Attributes:
        fields: The fields, in the order in which `values` returns their values.
    """

    def __init__(self, view: type) -> None:
        found = list(_found(view, (), (view,), optional=False))
        always = [each for each in found if not each.optional]
        optional = sorted((each for each in found if each.optional), key=lambda each: each.owner)
        # One call of an attrgetter reads all fields, in a quarter of the time of a loop.
        self._get = _getter([each.path for each in always])
        self._groups = []
        for _, fields in groupby(optional, key=lambda each: each.owner):
            group = list(fields)
            get = _getter([each.name for each in group])
            self._groups.append(_Group(group, get, (None,) * len(group)))
        self.fields: Sequence[_Field] = [*always, *optional]

    def values(self, obj: Any) -> tuple[Any, ...]:
        """Returns the values of the fields in an object; None for a field that the object does not have."""
        values = self._get(obj)
        for group in self._groups:
            struct = group.fields[0].struct(obj)
            values += group.lacking if struct is None else group.get(struct)
        return values


def _getter(paths: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Returns a function that returns the values of attributes: also a tuple if there are less than two."""
    if len(paths) > 1:
        return attrgetter(*paths)
    one = [attrgetter(path) for path in paths]
    return lambda obj: tuple([get(obj) for get in one])


# An operator has few views.
_VIEWS: dict[type, _View] = {}


class Contents:
    """The mappings and lists in an object before its tasks run.

    Args:
        obj: The object.
    """

    __slots__ = ("_before", "_obj", "_values", "_view")

    def __init__(self, obj: Any) -> None:
        view = _VIEWS.get(type(obj))
        if view is None:
            view = _VIEWS[type(obj)] = _View(type(obj))
        self._obj = obj
        self._view = view
        self._values = view.values(obj)
        self._before = _encoded(self._values)

    def restore(self) -> str:
        """Restores the fields that were changed in place.

        Returns:
            The name of the first one, such as "status.members"; empty if there is none.
        """
        # The object is frozen, so it still has the same mappings and lists.
        if not self._before or _encoded(self._values) == self._before:
            return ""
        changed = []
        before = msgspec.msgpack.decode(self._before, type=list[msgspec.Raw])
        for field, value, encoded in zip(self._view.fields, self._values, before, strict=True):
            if _encoded(value) == bytes(encoded):
                continue
            changed.append(field.path)
            with suppress(msgspec.MsgspecError):
                restored = msgspec.msgpack.decode(encoded, type=field.type)
                force_setattr(field.struct(self._obj), field.name, restored)
        return changed[0] if changed else ""


def _encoded(value: Any) -> bytes:
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError):
        return b""  # A task has put in a value that cannot be encoded. A stored object has none.


def _found(
    struct: type, owner: tuple[str, ...], inside: tuple[type, ...], *, optional: bool
) -> Iterator[_Field]:
    hints = get_type_hints(struct, include_extras=True)
    for each in struct.__struct_fields__:  # type: ignore[attr-defined]
        declared = hints[each]
        inner = _struct(declared)
        if inner is None:
            if _changeable(declared, inside):
                yield _Field(owner, each, declared, optional)
        elif inner not in inside:
            may_lack = optional or type(None) in _arguments(declared)
            yield from _found(inner, (*owner, each), (*inside, inner), optional=may_lack)


def _arguments(declared: Any) -> Iterator[Any]:
    for each in get_args(declared):
        yield each
        yield from _arguments(each)


def _struct(declared: Any) -> type | None:
    """Returns the Struct that a field holds, also if it is optional or annotated; else None."""
    if get_origin(declared) is not None:
        found = [each for each in get_args(declared) if each is not type(None)]
        is_wrapped = get_origin(declared) not in (tuple, list, dict)
        return _struct(found[0]) if is_wrapped and found else None
    return declared if isinstance(declared, type) and issubclass(declared, Struct) else None


def _changeable(declared: Any, inside: tuple[type, ...]) -> bool:
    """Returns whether a value of a type can be changed in place, or contains such a value."""
    if get_origin(declared) is Annotated:
        return _changeable(get_args(declared)[0], inside)
    kind = get_origin(declared) or declared
    if kind is Any:
        return True
    if isinstance(kind, type) and issubclass(kind, Struct):
        return kind not in inside and any(True for _ in _found(kind, (), (*inside, kind), optional=False))
    if isinstance(kind, type) and kind not in _SCALARS and kind is not tuple:
        return hasattr(kind, "__len__") and not issubclass(kind, str | bytes)
    return any(_changeable(each, inside) for each in get_args(declared))
