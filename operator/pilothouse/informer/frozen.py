"""The check that views are frozen: reconciles, handlers and indexes share the objects of a store."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct


def require_frozen(view: type) -> None:
    """Refuses a view whose objects could be changed by code that reads them from a store.

    Mappings and lists in a view cannot be frozen. Code that reads them must not change them.

    Raises:
        TypeError: The view is not a Struct, or the view or a Struct in it is not frozen. The message names
            the class.
    """
    if not issubclass(view, Struct):
        raise TypeError(
            f"an informer cannot store objects as {view.__qualname__}; declare a view with the fields that "
            "you need: class View(msgspec.Struct, frozen=True)"
        )
    for struct in _structs(view, set()):
        if not struct.__struct_config__.frozen:
            raise TypeError(
                f"{struct.__qualname__} is not frozen, but all readers of a store share its objects; "
                f"declare it as class {struct.__name__}(msgspec.Struct, frozen=True)"
            )


def _structs(kind: Any, seen: set[Any]) -> Iterator[type[Struct]]:
    """Yields the Structs in a type, each once, because a view may contain itself."""
    struct = get_origin(kind) or kind
    if not (isinstance(struct, type) and issubclass(struct, Struct)):
        for part in get_args(kind):
            yield from _structs(part, seen)
    elif kind not in seen:
        seen.add(kind)
        yield struct
        for field in msgspec.structs.fields(kind):
            yield from _structs(field.type, seen)
