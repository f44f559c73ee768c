"""Several views of one kind, fed by one watch.

The watch decodes the *union* of the views: a struct with every field of every view, created when the views
are declared. Each object is then converted to every view, and each view has its own store. So every reader
gets the same as from its own watch: objects of its own type, with its own defaults, names, methods and
checks. `replace`, `==` and `type()` work as expected, and reads cost nothing. The result of an own write goes
into the store of the view that it was read into, and does not need the fields of other views.

The union itself is not stored. If two views have a field of the same type (usually `metadata: ObjectMeta`),
they share the value, so a second view costs little more than its own fields.
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
    """The base of all unions. An absent field is UNSET, so that the default of each view applies."""


def union(resources: Sequence[Resource[Any]]) -> Resource[Any]:
    """Returns a resource whose view has every field of the given views of one kind.

    Raises:
        TypeError: Two views declare incompatible types for a field. The message names the field and the
            types.
    """
    first = resources[0]
    return replace(first, view=reduce(partial(_merge, str(first)), [each.view for each in resources]))


class Reader(NamedTuple, Generic[T]):
    """A reader of a shared watch: its view and its sink."""

    view: type[T]
    sink: Sink[T]


class Fanout:
    """Passes every object of a shared watch to each reader, converted to the reader's view.

    If an object does not fit a reader's view, this reader keeps the last known state, and the object is
    counted in `pilothouse_undecodable_objects_total`. Other readers still get the object.

    Args:
        resource: The resource of the watch, with the union as its view.
        readers: The readers of the watch.
    """

    def __init__(self, resource: Resource[Any], readers: Sequence[Reader[Any]]) -> None:
        self._resource = resource
        self._readers = readers

    def begin_list(self, scope: str) -> None:
        """Begins a list for all readers."""
        for reader in self._readers:
            reader.sink.begin_list(scope)

    def listed(self, obj: KubeObject, scope: str) -> None:
        """Passes an object of a list to all readers."""
        wire = _wire(obj)
        for reader in self._readers:
            view = self._view(obj, wire, reader)
            if isinstance(view, Misfit):
                reader.sink.keep(view, scope)
            else:
                reader.sink.listed(view, scope)

    def keep(self, misfit: Misfit, scope: str) -> None:
        """Passes an object that does not fit the union of the views to all readers."""
        for reader in self._readers:
            reader.sink.keep(misfit, scope)

    def end_list(self, resource_version: str, scope: str) -> None:
        """Ends a list for all readers."""
        for reader in self._readers:
            reader.sink.end_list(resource_version, scope)

    def upsert(self, obj: KubeObject, scope: str) -> None:
        """Passes an object that was added or changed to all readers."""
        wire = _wire(obj)
        for reader in self._readers:
            view = self._view(obj, wire, reader)
            if isinstance(view, Misfit):
                reader.sink.keep(view, scope)
                # The stream has reached this version also for a reader that cannot decode the object.
                reader.sink.bookmark(obj.metadata.resource_version, scope)
            else:
                reader.sink.upsert(view, scope)

    def remove(self, metadata: ObjectMeta, scope: str) -> None:
        """Passes the deletion of an object to all readers."""
        for reader in self._readers:
            reader.sink.remove(metadata, scope)

    def bookmark(self, resource_version: str, scope: str) -> None:
        """Passes the version that the watch has reached to all readers."""
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
    """Returns a union as a dict by wire name, without absent fields. Shared values stay unchanged."""
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
    """Returns the type that contains what both types read of a field."""
    if left == right:
        return left
    # Bounds and descriptions belong to one view. They are checked when the object is converted to that view.
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
        "in the other; declare the same type in both"
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
