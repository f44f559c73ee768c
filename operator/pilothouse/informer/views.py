"""Several views of one kind, fed by one watch.

The watch reads the *union* of the views: a struct with every field that one of them has, made when the views
are declared. Each object that comes is converted to every view, and each view has a store of its own. So a
reader gets what a watch of its own would bring: an object of its own type, with its own defaults, names,
methods and checks, on which `replace`, `==` and `type()` do what its author expects, at no cost per read.
What an own write returned goes into the store of the view that read it, and needs no field of the others.

The union itself is not kept. Where two views have a field of the same type (`metadata: ObjectMeta`, as a
rule) both hold the very same value, so a second view costs little more than its own fields.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import UNSET, Struct, UnsetType

from pilothouse.informer.reflector import Sink
from pilothouse.kube import KubeObject, Misfit, ObjectMeta, Resource, holds_secrets
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)


class _Union(Struct, frozen=True):
    """The base of all unions: an absent field is UNSET, so that each view's own default applies."""


def union(resources: Sequence[Resource[Any]]) -> Resource[Any]:
    """Return the resource whose view has every field of these views of one kind.

    Raises:
        TypeError: two views give a field types that no value has both of; the message names field and types.
    """
    first = resources[0]
    return replace(first, view=reduce(partial(_merge, str(first)), [each.view for each in resources]))


class Reader(NamedTuple, Generic[T]):
    """Who reads a shared watch: in which view, into what."""

    view: type[T]
    sink: Sink[T]


class Fanout:
    """Gives every object that a shared watch brings to each reader, in the reader's own view.

    Of an object that does not fit a reader's view, that reader keeps what it last knew, with a count in
    `pilothouse_undecodable_objects_total`; other readers have it.

    Args:
        resource: what the watch reads: the union.
        readers: who reads it.
    """

    def __init__(self, resource: Resource[Any], readers: Sequence[Reader[Any]]) -> None:
        self._resource = resource
        self._readers = readers

    def begin_list(self, scope: str) -> None:
        """Tell all readers that a list begins."""
        for reader in self._readers:
            reader.sink.begin_list(scope)

    def listed(self, obj: KubeObject, scope: str) -> None:
        """Give an object of a list to all readers."""
        wire = _wire(obj)
        for reader in self._readers:
            view = self._view(obj, wire, reader)
            if isinstance(view, Misfit):
                reader.sink.keep(view, scope)
            else:
                reader.sink.listed(view, scope)

    def keep(self, misfit: Misfit, scope: str) -> None:
        """Tell all readers that an object is there which does not fit the union of their views."""
        for reader in self._readers:
            reader.sink.keep(misfit, scope)

    def end_list(self, resource_version: str, scope: str) -> None:
        """Tell all readers that the list is complete."""
        for reader in self._readers:
            reader.sink.end_list(resource_version, scope)

    def upsert(self, obj: KubeObject, scope: str) -> None:
        """Give an object that appeared or changed to all readers."""
        wire = _wire(obj)
        for reader in self._readers:
            view = self._view(obj, wire, reader)
            if isinstance(view, Misfit):
                reader.sink.keep(view, scope)
                # The stream has come so far for those, too, who cannot read the object.
                reader.sink.bookmark(obj.metadata.resource_version, scope)
            else:
                reader.sink.upsert(view, scope)

    def remove(self, metadata: ObjectMeta, scope: str) -> None:
        """Tell all readers that an object is gone."""
        for reader in self._readers:
            reader.sink.remove(metadata, scope)

    def bookmark(self, resource_version: str, scope: str) -> None:
        """Tell all readers how far the watch has come."""
        for reader in self._readers:
            reader.sink.bookmark(resource_version, scope)

    def _view(self, obj: KubeObject, wire: Any, reader: Reader[T]) -> T | Misfit:
        try:
            return msgspec.convert(wire, reader.view)
        except Exception as error:  # a view's own checks may raise anything
            metrics.UNDECODABLE_OBJECTS.labels(str(self._resource)).inc()
            what = f"{self._resource} {obj.metadata.key} does not fit {reader.view.__qualname__}"
            # The error may quote a value.
            return Misfit(obj.metadata, what if holds_secrets(self._resource) else f"{what}: {error}")


def _wire(value: Any) -> Any:
    """Return a union as a dict of wire names, absent fields left out. What views share stays as it is."""
    if isinstance(value, _Union):
        pairs = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        values = ((wire, getattr(value, name)) for wire, name in pairs)
        return {wire: _wire(each) for wire, each in values if each is not UNSET}
    if isinstance(value, list | tuple):
        return [_wire(each) for each in value]
    if isinstance(value, dict):
        return {key: _wire(each) for key, each in value.items()}
    return value


def _merge(path: str, left: Any, right: Any) -> Any:
    """Return the type that holds what either type reads of a field."""
    if left == right:
        return left
    # Bounds and descriptions belong to one view, which checks them when the object is converted to it.
    left, right = _bare(left), _bare(right)
    if left == right:
        return left
    if NoneType in (*_choices(left), *_choices(right)):
        return _merge(path, _without(left, NoneType), _without(right, NoneType)) | None
    if _is_struct(left) and _is_struct(right):
        return _merge_structs(path, left, right)
    origin, left_of, right_of = get_origin(left), get_args(left), get_args(right)
    if origin is not None and origin is get_origin(right) and len(left_of) == len(right_of):
        parts = (_merge(f"{path}[]", *each) for each in zip(left_of, right_of, strict=True))
        return origin[tuple(parts)]
    raise TypeError(
        f"two views of one kind contradict each other: {path} is {_name(left)} in one and {_name(right)} "
        "in the other; give the field one type"
    )


def _merge_structs(path: str, left: type[Struct], right: type[Struct]) -> type[Struct]:
    types: dict[str, Any] = {}
    names: dict[str, str] = {}
    for field in (*msgspec.structs.fields(left), *msgspec.structs.fields(right)):
        wire, kind = field.encode_name, _without(field.type, UnsetType)
        if wire in types:
            types[wire] = _merge(f"{path}.{wire}", types[wire], kind)
        else:
            types[wire] = kind
            names[wire] = field.name if field.name not in names.values() else f"{field.name}_{len(names)}"
    return msgspec.defstruct(
        f"{left.__name__}_{right.__name__}",
        [
            (names[wire], kind | UnsetType, msgspec.field(default=UNSET, name=wire))
            for wire, kind in types.items()
        ],
        bases=(_Union,),
        frozen=True,
    )


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _choices(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def _without(kind: Any, unwanted: type) -> Any:
    return Union[tuple(each for each in _choices(kind) if each is not unwanted)]  # noqa: UP007 - computed


def _name(kind: Any) -> str:
    return kind.__qualname__ if isinstance(kind, type) else str(kind)
