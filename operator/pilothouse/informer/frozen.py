"""Views are frozen: what a store holds is read by reference, by every sync, handler and index."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Struct


def require_frozen(view: type) -> None:
    """Refuse a view whose objects could be changed by who reads them from a store.

    Mappings and lists in it cannot be frozen; that nobody changes them is left to who reads them.

    Raises:
        TypeError: the view is no Struct, or it or a Struct in it is not frozen; the message names the class.
    """
    if not issubclass(view, Struct):
        raise TypeError(
            f"an informer cannot keep objects as {view.__qualname__}: declare a view with the fields that "
            "are read, class View(msgspec.Struct, frozen=True)"
        )
    for struct in _structs(view, set()):
        if not struct.__struct_config__.frozen:
            raise TypeError(
                f"{struct.__qualname__} is not frozen, and a change of what a store holds would be seen by "
                f"all who read it: declare it as class {struct.__name__}(msgspec.Struct, frozen=True)"
            )


def _structs(kind: Any, seen: set[Any]) -> Iterator[type[Struct]]:
    """Go over the Structs in a type, each once: a view may hold itself."""
    struct = get_origin(kind) or kind
    if not (isinstance(struct, type) and issubclass(struct, Struct)):
        for part in get_args(kind):
            yield from _structs(part, seen)
    elif kind not in seen:
        seen.add(kind)
        yield struct
        for field in msgspec.structs.fields(kind):
            yield from _structs(field.type, seen)
