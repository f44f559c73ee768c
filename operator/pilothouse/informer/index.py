"""Indexes: lookup of objects by a value in them, such as pods by node name."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

from pilothouse.kube import KubeObject, ObjectKey
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

DEFECTS = (Exception, asyncio.CancelledError, SystemExit)
"""The errors that an author's function may raise by mistake.

The function has no await, so a CancelledError comes from the function itself.
"""

IndexFunc: TypeAlias = Callable[[T], Iterable[Hashable]]
"""Returns the values by which an object can be looked up: none, one or several. The result must depend only
on the object."""


class Index(Generic[T]):
    """The keys of a store's objects by value. It is updated with each change of the store.

    If the function fails for an object, the error is logged and the object is not in the index.

    Attributes:
        values: Returns an object's values.

    Args:
        name: The index's name, for the log.
        values: Returns an object's values.
    """

    def __init__(self, name: str, values: IndexFunc[T]) -> None:
        self._name = name
        self.values = values
        # Dictionaries instead of sets, because they are ordered: the same history gives the same results.
        self._keys: dict[Hashable, dict[ObjectKey, None]] = {}

    def keys(self, value: Hashable) -> Iterable[ObjectKey]:
        """Returns the keys of the objects that have the value."""
        return self._keys.get(value, ())

    def change(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        """Updates the index for a change of an object. `old` or `new` is None if the object did not exist."""
        before = self._of(key, old)
        after = self._of(key, new)
        for value in before - after:
            # Missing if the function violates its contract and returns different values for the same object.
            keys = self._keys.get(value, {})
            keys.pop(key, None)
            if not keys:
                self._keys.pop(value, None)
        for value in after - before:
            self._keys.setdefault(value, {})[key] = None

    def _of(self, key: ObjectKey, obj: T | None) -> set[Hashable]:
        if obj is None:
            return set()
        try:
            return set(self.values(obj))
        except DEFECTS as error:
            log_defect(log, error, "Index %s failed on %s; the index does not contain it", self._name, key)
            return set()
