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

    If the function fails for an object, the error is logged, and the object is in `failures` instead of in
    the index.

    Attributes:
        values: Returns an object's values.
        failures: The objects for which the function failed, and the reason in a few words.

    Args:
        name: The index's name, for the log.
        values: Returns an object's values.
    """

    def __init__(self, name: str, values: IndexFunc[T]) -> None:
        self._name = name
        self.values = values
        self.failures: dict[ObjectKey, str] = {}
        # Dictionaries instead of sets, because they are ordered: the same history gives the same results.
        self._keys: dict[Hashable, dict[ObjectKey, None]] = {}

    def keys(self, value: Hashable) -> Iterable[ObjectKey]:
        """Returns the keys of the objects that have the value."""
        return self._keys.get(value, ())

    def change(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        """Updates the index for a change of an object. `old` or `new` is None if the object did not exist."""
        before = self._before(key, old)
        self.failures.pop(key, None)
        after = set() if new is None else self._of(key, new)
        for value in before - after:
            # Missing if the function violates its contract and returns different values for the same object.
            keys = self._keys.get(value, {})
            keys.pop(key, None)
            if not keys:
                self._keys.pop(value, None)
        for value in after - before:
            self._keys.setdefault(value, {})[key] = None

    def _before(self, key: ObjectKey, old: T | None) -> set[Hashable]:
        if old is None or key in self.failures:
            return set()
        values = self._of(key, old)
        if key in self.failures:  # The function violates its contract: it returned values for it before.
            return {value for value, keys in self._keys.items() if key in keys}
        return values

    def _of(self, key: ObjectKey, obj: T) -> set[Hashable]:
        try:
            values = self.values(obj)
            if isinstance(values, str | bytes):
                # It would be taken for a sequence of its characters.
                raise TypeError("an index function must return a list of values, not a single text")
            return set(values)
        except BaseException as error:
            # Libraries in other languages raise errors that are no Exceptions, such as PyO3's PanicException.
            if isinstance(error, KeyboardInterrupt):
                raise
            log_defect(log, error, "Index %s failed on %s; the index does not contain it", self._name, key)
            self.failures[key] = f"unexpected {type(error).__name__}"
            return set()
