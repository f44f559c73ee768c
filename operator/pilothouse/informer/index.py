"""Indexes: objects found by a value in them, such as the pods of a node."""

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeAlias, TypeVar

from pilothouse.kube import KubeObject, ObjectKey
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

DEFECTS = (Exception, asyncio.CancelledError, SystemExit)
"""What an author's function may raise by mistake. It has no await, so a CancelledError is its own, too."""

IndexFunc: TypeAlias = Callable[[T], Iterable[Hashable]]
"""Returns the values by which an object is to be found: none, one or several. It depends on nothing but the
object."""


class Index(Generic[T]):
    """The keys of a store's objects by one of their values, kept up to date change by change.

    An object on which the function fails is logged, and found by no value; the others are not touched.

    Attributes:
        values: returns an object's values.

    Args:
        name: the index's name, for the log.
        values: see the attribute.
    """

    def __init__(self, name: str, values: IndexFunc[T]) -> None:
        self._name = name
        self.values = values
        # Dictionaries, because they keep an order, so that the same history is read the same way.
        self._keys: dict[Hashable, dict[ObjectKey, None]] = {}

    def keys(self, value: Hashable) -> Iterable[ObjectKey]:
        """Return the keys of the objects that have a value."""
        return self._keys.get(value, ())

    def change(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        """Take a change of the object of that key; None: it was not there, or is no more."""
        before = self._of(key, old)
        after = self._of(key, new)
        for value in before - after:
            # Absent if the function, against its contract, returns something else for the same object.
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
            log_defect(log, error, "index %s failed on %s, which it does not hold", self._name, key)
            return set()
