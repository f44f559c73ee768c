"""The store: the objects of a kind as last seen.

All readers share the objects. Views are frozen, so no reader can change an object for the others.
"""

import logging
from collections.abc import Callable, Collection, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from pilothouse.informer.index import DEFECTS, Index, IndexFunc
from pilothouse.informer.progress import Progress
from pilothouse.kube import (
    KubeObject,
    Misfit,
    ObjectKey,
    ObjectMeta,
    Resource,
    hiding_contents,
    holds_secrets,
    ordered,
    version,
)
from pilothouse.telemetry import log_defect, metrics

log = logging.getLogger(__name__)

# The stores of each resource. The metric shows their sum, because a kind may have several views.
_STORES: dict[str, "WeakSet[Store[Any]]"] = {}

T = TypeVar("T", bound=KubeObject)

_NOTHING = nullcontext()

Handler = Callable[[T | None, T | None, bool], None]
"""Called for a change with (old, new, initial).

If `old` is None, the object is new. If `new` is None, the object was deleted, and `old` is its last known
state. `initial` is true if the change comes from a list instead of a watch: the first list, or a later one
after the watch could not be continued."""

MisfitHandler: TypeAlias = Callable[[ObjectKey, Misfit | None], None]
"""Called for an object that does not fit the view, and with None when it fits again or is deleted."""

Transform: TypeAlias = Callable[[T], T]
"""Returns an object without the parts that are not needed, before it is stored. The identity (namespace,
name, uid, resourceVersion) must not change."""


class Store(Generic[T]):
    """Objects by key. The informer updates it, and `observe` adds the results of own writes.

    Handlers are called once per change, in the order of the changes. The call is synchronous, so a handler
    should only enqueue a key and return. An exception in a handler is logged, and does not affect other
    handlers or the watch.

    If versions have no order (see `pilothouse.kube.ordered`), every event counts as newer than the stored
    object, and own writes are not waited for: the store may show an older state for a moment.

    Args:
        name: The resource, for the metric `pilothouse_store_objects`.
        transform: A function applied to every object before it is stored. If it fails for an object, the
            error is logged and the store keeps the object's last state.
        resource: The kind. If it is Secret, the values of an object are hidden in everything that is logged
            while the transform, the indexes and the handlers are called with it.
    """

    def __init__(
        self, name: str, transform: Transform[T] | None = None, resource: Resource[T] | None = None
    ) -> None:
        self._name = name
        self._secrets = resource if resource is not None and holds_secrets(resource) else None
        self.progress = Progress()
        self._transform = transform
        # By namespace and name: an ObjectKey would take 80 bytes per object, which itself takes about 1,000.
        self._objects: dict[str, dict[str, T]] = {}
        self._handlers: list[Handler[T]] = []
        self._indexes: dict[str, Index[T]] = {}
        # The versions of own writes that no event or list has confirmed yet.
        self._unconfirmed: dict[ObjectKey, int] = {}
        # The keys whose own writes were made before the current list began. The state in the list is newer.
        # Conversely, a list must not undo an own write that was made after the list began.
        self._older_than_list: set[ObjectKey] = set()
        # For each scope that is being listed: the known keys that the list has not contained so far.
        self._unlisted: dict[str, dict[ObjectKey, None]] = {}
        # The existing objects that do not fit the view.
        self._misfits: dict[ObjectKey, Misfit] = {}
        self._misfit_handlers: list[MisfitHandler] = []
        alive = _STORES.setdefault(name, WeakSet())
        alive.add(self)
        metrics.STORE_OBJECTS.labels(name).set_function(lambda: sum(map(len, alive)))

    def get(self, key: ObjectKey) -> T | None:
        """Returns the object, or None if it does not exist."""
        namespace, name = key
        objects = self._objects.get(namespace)
        return None if objects is None else objects.get(name)

    def unconfirmed(self, key: ObjectKey) -> bool:
        """Whether the object is the result of an own write that no event or list has confirmed yet."""
        version = self._unconfirmed.get(key) if self._unconfirmed else None
        return version is not None and version > self.progress.seen(key.namespace)

    def keys(self) -> list[ObjectKey]:
        """Returns the keys of all objects."""
        return [
            ObjectKey(namespace, name) for namespace, objects in self._objects.items() for name in objects
        ]

    def values(self) -> list[T]:
        """Returns all objects."""
        return list(chain.from_iterable(objects.values() for objects in self._objects.values()))

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))

    @property
    def resource_version(self) -> str:
        """The last version seen in lists, events and bookmarks. Empty before the first list.

        With several namespaces, it is the lowest of their versions.
        """
        return str(self.progress.seen() or "")

    def add_handler(self, handler: Handler[T]) -> None:
        """Adds a handler that is called for every change.

        It is called immediately for each object that is already in the store, with `initial` set. When a
        handler is called, the store and its indexes already include the change.
        """
        self._handlers.append(handler)
        for obj in self.values():
            with self._hiding(obj):
                _call(handler, None, obj, True)

    def misfit(self, key: ObjectKey) -> Misfit | None:
        """Returns the object if it does not fit the view. `get` returns its last known state, or None."""
        return self._misfits.get(key) if self._misfits else None

    @property
    def misfits(self) -> list[Misfit]:
        """All objects that do not fit the view."""
        return list(self._misfits.values())

    def add_misfit_handler(self, handler: MisfitHandler) -> None:
        """Adds a handler for objects that do not fit the view; see `MisfitHandler`."""
        self._misfit_handlers.append(handler)
        for misfit in self.misfits:
            handler(misfit.metadata.key, misfit)

    def add_index(self, name: str, values: IndexFunc[T]) -> None:
        """Adds an index: `by_index` then finds objects by the values that a function returns for them.

        Args:
            name: The index's name in this store.
            values: Returns an object's values: none, one or several.

        Raises:
            ValueError: An index of that name with another function already exists.
        """
        if name in self._indexes:
            if self._indexes[name].values == values:
                return
            raise ValueError(f"an index {name!r} with another function already exists; use another name")
        index = self._indexes[name] = Index(name, values)
        for obj in self.values():
            with self._hiding(obj):
                index.change(obj.metadata.key, None, obj)

    @property
    def indexes(self) -> Collection[str]:
        """The names of the indexes."""
        return self._indexes.keys()

    def index_failures(self, name: str) -> Mapping[ObjectKey, str]:
        """Returns the objects for which the function of an index failed, and why: it lacks them.

        Raises:
            KeyError: There is no index of that name.
        """
        return self._indexes[name].failures

    def by_index(self, name: str, value: Hashable) -> list[T]:
        """Returns the objects that have a value in an index, in the order in which they got it.

        Raises:
            KeyError: There is no index of that name.
        """
        keys = self._indexes[name].keys(value)
        return [self._objects[key.namespace][key.name] for key in keys]

    def observe(self, obj: T) -> None:
        """Stores the result of an own write if it is newer than the stored object, and calls the handlers.

        The watch event that follows is then not a change, so handlers are not called twice. An older version
        is ignored. An unknown object is also ignored if the watch has already passed its version, because it
        has been deleted since. Pass only objects that match the informer's namespaces and selectors.
        """
        key, new = obj.metadata.key, version(obj)
        old = self.get(key)
        if not new:
            # The version has no order. The stored object was read before the write, so the write is newer.
            if old is not None and _differs(obj, old):
                self._put(key, obj, old, initial=False)
            return
        if new <= (version(old) if old is not None else self.progress.seen(key.namespace)):
            return
        self._unconfirmed[key] = new
        self._older_than_list.discard(key)
        if old is None:
            # Created after a list began. If the list lacks it, it is newer than the list or already deleted.
            for scope in self._unlisted.keys() & {"", key.namespace}:
                self._unlisted[scope][key] = None
        self._put(key, obj, old, initial=False)

    # The reflector of a scope calls the following methods. A scope is a namespace, or all (empty).

    def upsert(self, obj: T, scope: str) -> None:
        """Applies an ADDED or MODIFIED event. The event of an own write, or an older one, changes nothing."""
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
        """Applies a DELETED event. It is ignored if an own write has already created a newer object."""
        key, gone = metadata.key, ordered(metadata.resource_version)
        old = self.get(key)
        if old is not None and (not gone or version(old) <= gone):
            self._drop(key, old, initial=False)
        self._fits(key)
        self._advance(scope, gone)

    def bookmark(self, resource_version: str, scope: str) -> None:
        """Records the version that the watch has reached."""
        self._advance(scope, ordered(resource_version))

    def begin_list(self, scope: str) -> None:
        """Begins a list, possibly after one that did not end.

        Only own writes that are observed from now on can be newer than the list.
        """
        self._older_than_list.update(key for key in self._unconfirmed if scope in ("", key.namespace))
        known = (*self.keys(), *self._misfits)
        self._unlisted[scope] = dict.fromkeys(key for key in known if scope in ("", key.namespace))

    def listed(self, obj: T, scope: str) -> None:
        """Stores an object of the list, unless an own write is newer.

        Its version may be lower than the stored one if etcd was restored. Handlers are called if it differs,
        with `initial` set. Objects are stored one by one, so a large list is never held as a whole.
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
        """Records an object that exists but does not fit the view. Its last known state stays in the store.

        If it were treated as deleted, controllers would clean up after it. The state of an earlier object of
        the same name is removed.
        """
        key = misfit.metadata.key
        known = self.get(key)
        if known is not None and known.metadata.uid != misfit.metadata.uid:
            self._drop(key, known, initial=scope in self._unlisted)
        self._unlisted.get(scope, {}).pop(key, None)
        self._does_not_fit(key, misfit)

    def end_list(self, resource_version: str, scope: str) -> None:
        """Ends a list, which shows the scope at a version.

        Objects that it did not contain were deleted while there was no watch. Handlers are called for them,
        with `initial` set.
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
        """Whether the object's own write is newer than the list, which shows it at a version or not (0)."""
        return key not in self._older_than_list and self._unconfirmed.get(key, 0) > shown

    def _advance(self, scope: str, version: int) -> None:
        # During a streamed list, the version of a deletion does not mean that the list is complete so far.
        if scope not in self._unlisted:
            self.progress.advance(scope, version)

    def _hiding(self, *states: T | None) -> AbstractContextManager[None]:
        """Hides the values of a Secret while functions that an author wrote are called with it."""
        return _NOTHING if self._secrets is None else hiding_contents(self._secrets, *states)

    def _put(self, key: ObjectKey, new: T, old: T | None, *, initial: bool) -> None:
        with self._hiding(new, old):
            self._store(key, new, old, initial=initial)

    def _store(self, key: ObjectKey, new: T, old: T | None, *, initial: bool) -> None:
        if self._transform is not None:
            try:
                transformed = self._transform(new)
            except DEFECTS as error:
                log_defect(log, error, "The transform failed on %s; the store keeps the last state", key)
                why = f"{_named(self._transform, self._name)} failed with {type(error).__name__}"
                self._does_not_fit(key, Misfit(new.metadata, why))
                return
            if transformed is not new:
                if mistake := _mistake(self._transform, self._name, new, transformed):
                    self._does_not_fit(key, Misfit(new.metadata, mistake))
                    return
                new = transformed
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
        log.warning("Ignoring %s %s until it is corrected: %s", self._name, key, misfit.why)
        for handler in self._misfit_handlers:
            handler(key, misfit)

    def _fits(self, key: ObjectKey) -> None:
        """Records that an object fits the view or is deleted."""
        if self._misfits and self._misfits.pop(key, None) is not None:
            for handler in self._misfit_handlers:
                handler(key, None)

    def _drop(self, key: ObjectKey, last: T, *, initial: bool) -> None:
        objects = self._objects[key.namespace]
        del objects[key.name]
        if not objects:
            del self._objects[key.namespace]
        self._unconfirmed.pop(key, None)
        with self._hiding(last):
            if self._indexes:
                self._index(key, last, None)
            for handler in self._handlers:
                _call(handler, last, None, initial)

    def _index(self, key: ObjectKey, old: T | None, new: T | None) -> None:
        for index in self._indexes.values():
            index.change(key, old, new)


def _mistake(transform: Transform[T], name: str, before: T, after: object) -> str:
    """Returns what is wrong with the result of a transform, without full stop; empty if nothing is.

    Stored as it is, None would read as "the object does not exist", and another object could not be found.
    """
    what = _named(transform, name)
    expected = type(before).__name__
    if after is None:
        return f"{what} returned None, but must return the {expected}. Its function may lack a `return`"
    if type(after) is not type(before):
        return f"{what} returned a value of type {type(after).__name__}, but must return the {expected}"
    old, new = before.metadata, after.metadata
    if new is not old and (type(new) is not type(old) or _identity(new) != _identity(old)):
        return f"{what} changed the namespace, name, uid or resourceVersion, which it must keep"
    return ""


def _named(transform: Transform[T], name: str) -> str:
    return f"the transform {getattr(transform, '__name__', type(transform).__name__)!r} of {name}"


def _identity(metadata: ObjectMeta) -> tuple[str, ...]:
    return metadata.namespace, metadata.name, metadata.uid, metadata.resource_version


def _alike(old: Misfit, new: Misfit) -> bool:
    """Whether an object that does not fit the view has no changes that matter."""
    before, after = old.metadata, new.metadata
    return (old.why, before.uid, before.generation, before.deletion_timestamp, before.finalizers) == (
        new.why,
        after.uid,
        after.generation,
        after.deletion_timestamp,
        after.finalizers,
    )


def _differs(new: KubeObject, old: KubeObject) -> bool:
    """Whether two states of an object differ, by version, or by their fields if there is no version."""
    shown = new.metadata.resource_version
    return shown != old.metadata.resource_version if shown else new != old


def _call(handler: Handler[T], old: T | None, new: T | None, initial: bool) -> None:
    try:
        handler(old, new, initial)
    except DEFECTS as error:
        known = [obj.metadata.key for obj in (new, old) if obj is not None]
        log_defect(log, error, "A handler failed on %s; other handlers are not affected", *known[:1])
