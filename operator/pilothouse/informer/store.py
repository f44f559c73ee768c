"""The objects of a kind as last seen, read by reference.

Views are frozen, so nobody can change what another reads.
"""

import logging
from collections.abc import Callable, Hashable
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from pilothouse.informer.index import DEFECTS, Index, IndexFunc
from pilothouse.informer.progress import Progress
from pilothouse.kube import KubeObject, Misfit, ObjectKey, ObjectMeta, ordered, version
from pilothouse.telemetry import log_defect, metrics

log = logging.getLogger(__name__)

# The stores of each resource, of which the metric shows the sum: one kind may be read in several ways.
_STORES: dict[str, "WeakSet[Store[Any]]"] = {}

T = TypeVar("T", bound=KubeObject)

Handler = Callable[[T | None, T | None, bool], None]
"""Told of a change: (old, new, initial).

`old` None: it appeared. `new` None: it is gone, and `old` is its last state. `initial`: learnt from a list
(the first, or one after the watch had lost its thread), not from a watch."""

MisfitHandler: TypeAlias = Callable[[ObjectKey, Misfit | None], None]
"""Told of an object that does not fit the view; None: it fits now, or is gone."""

Transform: TypeAlias = Callable[[T], T]
"""Returns an object as it is to be stored, without what nobody reads; its identity (namespace, name, uid,
resourceVersion) must stay."""


class Store(Generic[T]):
    """Objects by key. Changed by the informer, and by `observe` with what own writes returned.

    Handlers are called once per change of the store, in the order of the changes, and synchronously: they
    note a key and return. An exception in one is logged, and hurts neither the others nor the stream.

    Where versions have no order (see `pilothouse.kube.ordered`), every event counts as newer than what is
    stored, and own writes are not waited for: after one, the store may show an older state for a moment.

    Args:
        name: the resource, for the metric `pilothouse_store_objects`.
        transform: applied to every object before it is stored, wherever it comes from. An object on which it
            fails is logged, and stays as it was last stored.
    """

    def __init__(self, name: str, transform: Transform[T] | None = None) -> None:
        self._name = name
        self.progress = Progress()
        self._transform = transform
        # By namespace and name: an ObjectKey for each object would cost 80 bytes of some 1,000.
        self._objects: dict[str, dict[str, T]] = {}
        self._handlers: list[Handler[T]] = []
        self._indexes: dict[str, Index[T]] = {}
        # Versions of own writes that no event or list has confirmed yet.
        self._unconfirmed: dict[ObjectKey, int] = {}
        # Whose were made before the list that is being read: whatever it shows of them is newer. A list that
        # was begun before such a write must not undo it.
        self._older_than_list: set[ObjectKey] = set()
        # While a scope is listed: what it holds and the list has not shown yet.
        self._unlisted: dict[str, dict[ObjectKey, None]] = {}
        # What is there, too, and does not fit the view.
        self._misfits: dict[ObjectKey, Misfit] = {}
        self._misfit_handlers: list[MisfitHandler] = []
        alive = _STORES.setdefault(name, WeakSet())
        alive.add(self)
        metrics.STORE_OBJECTS.labels(name).set_function(lambda: sum(map(len, alive)))

    def get(self, key: ObjectKey) -> T | None:
        """Return the object, None when there is none."""
        namespace, name = key
        objects = self._objects.get(namespace)
        return None if objects is None else objects.get(name)

    def unconfirmed(self, key: ObjectKey) -> bool:
        """Whether the object is as an own write returned it, and no event or list has shown it since."""
        version = self._unconfirmed.get(key) if self._unconfirmed else None
        return version is not None and version > self.progress.seen(key.namespace)

    def keys(self) -> list[ObjectKey]:
        """Return the keys of all objects, as of now."""
        return [
            ObjectKey(namespace, name) for namespace, objects in self._objects.items() for name in objects
        ]

    def values(self) -> list[T]:
        """Return all objects, as of now."""
        return list(chain.from_iterable(objects.values() for objects in self._objects.values()))

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    @property
    def resource_version(self) -> str:
        """How far the collection has been seen, in lists, events and bookmarks; empty before a list.

        With several namespaces it is the one that has come least far.
        """
        return str(self.progress.seen() or "")

    def add_handler(self, handler: Handler[T]) -> None:
        """Tell `handler` of every change from now on, and of what is here already, as initial.

        Handlers read the store as it is after the change, indexes included.
        """
        self._handlers.append(handler)
        for obj in self.values():
            _call(handler, None, obj, True)

    def misfit(self, key: ObjectKey) -> Misfit | None:
        """Return the object if it does not fit the view; `get` returns what was last known of it, or None."""
        return self._misfits.get(key) if self._misfits else None

    @property
    def misfits(self) -> list[Misfit]:
        """All objects that do not fit the view, as of now."""
        return list(self._misfits.values())

    def add_misfit_handler(self, handler: MisfitHandler) -> None:
        """Tell `handler` of every object that does not fit the view, and when it does so or is gone."""
        self._misfit_handlers.append(handler)
        for misfit in self.misfits:
            handler(misfit.metadata.key, misfit)

    def add_index(self, name: str, values: IndexFunc[T]) -> None:
        """Let objects be found by what `values` returns for them; see `by_index`.

        Args:
            name: the index's name in this store.
            values: returns an object's values: none, one or several.

        Raises:
            ValueError: there is an index of that name with another function already.
        """
        if name in self._indexes:
            if self._indexes[name].values == values:
                return
            raise ValueError(f"there is an index {name!r} with another function already")
        index = self._indexes[name] = Index(name, values)
        for obj in self.values():
            index.change(obj.metadata.key, None, obj)

    def by_index(self, name: str, value: Hashable) -> list[T]:
        """Return the objects that have a value in an index, the longest known first.

        Raises:
            KeyError: there is no index of that name.
        """
        keys = self._indexes[name].keys(value)
        return [self._objects[key.namespace][key.name] for key in keys]

    def observe(self, obj: T) -> None:
        """Take what an own write returned, if it is newer than what is known; handlers are told now.

        The event that follows it is then no change, and nobody is told twice. An older version is ignored. So
        is an object that is not here although the watch has already come past its version: it has been
        deleted since. Give only objects that the informer's namespaces and selectors admit.
        """
        key, new = obj.metadata.key, version(obj)
        old = self.get(key)
        if not new:
            # Its version has no order. What is stored was read before the write, so the write is newer.
            if old is not None and _differs(obj, old):
                self._put(key, obj, old, initial=False)
            return
        if new <= (version(old) if old is not None else self.progress.seen(key.namespace)):
            return
        self._unconfirmed[key] = new
        self._older_than_list.discard(key)
        if old is None:
            # Made since a list began: unless the list shows it, it is newer than the list, or gone again.
            for scope in self._unlisted.keys() & {"", key.namespace}:
                self._unlisted[scope][key] = None
        self._put(key, obj, old, initial=False)

    # What follows is for the reflector of one scope: a namespace, or (empty) all.

    def upsert(self, obj: T, scope: str) -> None:
        """Take an ADDED or MODIFIED event. The echo of an own write, or anything older, changes nothing."""
        key, new = obj.metadata.key, version(obj)
        if self._unconfirmed and new >= self._unconfirmed.get(key, new + 1):
            del self._unconfirmed[key]
        old = self.get(key)
        if old is None or (new > version(old) if new else _differs(obj, old)):
            self._put(key, obj, old, initial=False)
        else:
            self._fits(key)
        self.progress.advance(scope, new)

    def remove(self, metadata: ObjectMeta, scope: str) -> None:
        """Take a DELETED event. Ignored when an own write has already made a newer object of that name."""
        key, gone = metadata.key, ordered(metadata.resource_version)
        old = self.get(key)
        if old is not None and (not gone or version(old) <= gone):
            self._drop(key, old, initial=False)
        self._fits(key)
        self._advance(scope, gone)

    def bookmark(self, resource_version: str, scope: str) -> None:
        """Note how far the watch has come."""
        self._advance(scope, ordered(resource_version))

    def begin_list(self, scope: str) -> None:
        """Note that a list begins, also after one that did not end.

        Only own writes observed from now on can be newer than it.
        """
        self._older_than_list.update(key for key in self._unconfirmed if scope in ("", key.namespace))
        known = (*self.keys(), *self._misfits)
        self._unlisted[scope] = dict.fromkeys(key for key in known if scope in ("", key.namespace))

    def listed(self, obj: T, scope: str) -> None:
        """Take an object that the list shows, whatever was believed before; newer own writes excepted.

        Its version may be lower than what was known, when etcd was restored. Handlers are told of what
        differs, as initial. Objects go in one by one, so that a large list is nowhere held as a whole.
        """
        key, shown = obj.metadata.key, version(obj)
        self._unlisted[scope].pop(key, None)
        if self._newer_than_list(key, shown):
            return
        self._unconfirmed.pop(key, None)
        old = self.get(key)
        if old is None or _differs(obj, old):
            self._put(key, obj, old, initial=True)
        else:
            self._fits(key)

    def keep(self, misfit: Misfit, scope: str) -> None:
        """Take note that an object is there which does not fit the view: what was last known of it stays.

        A list that showed it as missing would have its owner clean up after it. What was known of an earlier
        object of that name goes.
        """
        key = misfit.metadata.key
        known = self.get(key)
        if known is not None and known.metadata.uid != misfit.metadata.uid:
            self._drop(key, known, initial=scope in self._unlisted)
        self._unlisted.get(scope, {}).pop(key, None)
        self._does_not_fit(key, misfit)

    def end_list(self, resource_version: str, scope: str) -> None:
        """Note that the list is complete, and shows the scope at a version.

        What it did not show has vanished while nobody watched: handlers are told, as initial.
        """
        shown = ordered(resource_version)
        for key in self._unlisted.pop(scope):
            last = self.get(key)
            if last is not None and not self._newer_than_list(key, shown):
                self._drop(key, last, initial=True)
            self._fits(key)
        for key in [key for key in self._unconfirmed if scope in ("", key.namespace)]:
            if not self._newer_than_list(key, shown):
                del self._unconfirmed[key]
        self._older_than_list = {key for key in self._older_than_list if scope not in ("", key.namespace)}
        self.progress.reset(scope, shown)

    def _newer_than_list(self, key: ObjectKey, shown: int) -> bool:
        """Whether an own write was made after the list that shows a version of its object, or none."""
        return key not in self._older_than_list and self._unconfirmed.get(key, 0) > shown

    def _advance(self, scope: str, version: int) -> None:
        # A streamed list tells what is deleted meanwhile: that does not say how far all has been seen.
        if scope not in self._unlisted:
            self.progress.advance(scope, version)

    def _put(self, key: ObjectKey, new: T, old: T | None, *, initial: bool) -> None:
        if self._transform is not None:
            try:
                new = self._transform(new)
            except DEFECTS as error:
                log_defect(log, error, "%s cannot be prepared for the store, which keeps what it had", key)
                why = f"the transform of the watch failed with {type(error).__name__}"
                self._does_not_fit(key, Misfit(new.metadata, why))
                return
        objects = self._objects.get(key.namespace)
        if objects is None:
            objects = self._objects[key.namespace] = {}
        objects[key.name] = new
        if self._indexes:
            self._index(key, old, new)
        for handler in self._handlers:
            _call(handler, old, new, initial)
        self._fits(key)

    def _does_not_fit(self, key: ObjectKey, misfit: Misfit) -> None:
        old = self._misfits.get(key)
        self._misfits[key] = misfit
        if old is not None and _alike(old, misfit):
            return
        log.warning("%s %s is left out until it is corrected: %s", self._name, key, misfit.why)
        for handler in self._misfit_handlers:
            handler(key, misfit)

    def _fits(self, key: ObjectKey) -> None:
        """An object fits the view, or is gone."""
        if self._misfits and self._misfits.pop(key, None) is not None:
            for handler in self._misfit_handlers:
                handler(key, None)

    def _drop(self, key: ObjectKey, last: T, *, initial: bool) -> None:
        objects = self._objects[key.namespace]
        del objects[key.name]
        if not objects:
            del self._objects[key.namespace]
        self._unconfirmed.pop(key, None)
        if self._indexes:
            self._index(key, last, None)
        for handler in self._handlers:
            _call(handler, last, None, initial)

    def _index(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        for index in self._indexes.values():
            index.change(key, old, new)


def _alike(old: Misfit, new: Misfit) -> bool:
    """Whether there is nothing new about an object that does not fit the view."""
    before, after = old.metadata, new.metadata
    return (old.why, before.uid, before.generation, before.deletion_timestamp, before.finalizers) == (
        new.why,
        after.uid,
        after.generation,
        after.deletion_timestamp,
        after.finalizers,
    )


def _differs(new: KubeObject, old: KubeObject) -> bool:
    """Whether two states of an object differ: by their versions, or by their fields where there are none."""
    shown = new.metadata.resource_version
    return shown != old.metadata.resource_version if shown else new != old


def _call(handler: Handler[T], old: T | None, new: T | None, initial: bool) -> None:
    try:
        handler(old, new, initial)
    except DEFECTS as error:
        known = [obj.metadata.key for obj in (new, old) if obj is not None]
        log_defect(log, error, "a handler failed on %s; nothing else did", *known[:1])
