"""The objects of a kind as last seen, read by reference.

Views are frozen, so nobody can change what another reads.
"""

import logging
from collections.abc import Callable, Iterable, KeysView, ValuesView
from typing import Generic, TypeVar

from pilothouse.informer.progress import Progress
from pilothouse.kube import KubeObject, ObjectKey, version
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

Handler = Callable[[T | None, T | None, bool], None]
"""Told of a change: (old, new, initial).

`old` None: it appeared. `new` None: it is gone, and `old` is its last state. `initial`: learnt from a list
(the first, or one after the watch had lost its thread), not from a watch."""


class Store(Generic[T]):
    """Objects by key. Changed by the informer, and by `observe` with what own writes returned.

    Handlers are called once per change of the store, in the order of the changes, and synchronously: they
    note a key and return. An exception in one is logged, and hurts neither the others nor the stream.

    Args:
        name: the resource, for the metric `pilothouse_store_objects`.
    """

    def __init__(self, name: str) -> None:
        self.progress = Progress()
        self._objects: dict[ObjectKey, T] = {}
        self._handlers: list[Handler[T]] = []
        # Versions of own writes that no event has confirmed yet: a list that was begun before such a write
        # must not undo it.
        self._unconfirmed: dict[ObjectKey, int] = {}
        metrics.STORE_OBJECTS.labels(name).set_function(lambda: len(self._objects))

    def get(self, key: ObjectKey) -> T | None:
        """Return the object, None when there is none."""
        return self._objects.get(key)

    def keys(self) -> KeysView[ObjectKey]:
        """Return a live view of the keys; copy it before awaiting inside a loop over it."""
        return self._objects.keys()

    def values(self) -> ValuesView[T]:
        """Return a live view of the objects; copy it before awaiting inside a loop over it."""
        return self._objects.values()

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def resource_version(self) -> str:
        """How far the collection has been seen, in lists, events and bookmarks; empty before a list.

        With several namespaces it is the one that has come least far.
        """
        return str(self.progress.seen() or "")

    def add_handler(self, handler: Handler[T]) -> None:
        """Tell `handler` of every change from now on, and of what is here already, as initial."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            _call(handler, None, obj, True)

    def observe(self, obj: T) -> None:
        """Take what an own write returned, if it is newer than what is known; handlers are told now.

        The event that follows it is then no change, and nobody is told twice. An older version is ignored. So
        is an object that is not here although the watch has already come past its version: it has been
        deleted since. Give only objects that the informer's namespaces and selectors admit.
        """
        key, new = obj.metadata.key, version(obj)
        old = self._objects.get(key)
        if new <= (version(old) if old is not None else self.progress.seen(key.namespace)):
            return
        self._unconfirmed[key] = new
        self._put(key, obj, old, initial=False)

    # What follows is for the reflector of one scope: a namespace, or (empty) all.

    def upsert(self, obj: T, scope: str) -> None:
        """Take an ADDED or MODIFIED event. The echo of an own write, or anything older, changes nothing."""
        key, new = obj.metadata.key, version(obj)
        if self._unconfirmed and new >= self._unconfirmed.get(key, new + 1):
            del self._unconfirmed[key]
        old = self._objects.get(key)
        if old is None or new > version(old):
            self._put(key, obj, old, initial=False)
        self.progress.advance(scope, new)

    def remove(self, obj: T, scope: str) -> None:
        """Take a DELETED event. Ignored when an own write has already made a newer object of that name."""
        key, gone = obj.metadata.key, version(obj)
        old = self._objects.get(key)
        if old is not None and version(old) <= gone:
            self._drop(key, obj, initial=False)
        self.progress.advance(scope, gone)

    def bookmark(self, resource_version: str, scope: str) -> None:
        """Note how far the watch has come."""
        self.progress.advance(scope, int(resource_version))

    def begin_replace(self, scope: str) -> None:
        """Note that a list begins: only own writes observed from now on can be newer than it."""
        for key in [key for key in self._unconfirmed if scope in ("", key.namespace)]:
            del self._unconfirmed[key]

    def replace(self, objects: Iterable[T], resource_version: str, scope: str) -> None:
        """Make one scope what a list shows, whatever was believed before, own writes after the list excepted.

        Handlers are told of what differs: objects that vanished while nobody watched count as deleted,
        changed ones as changed, and all of it as initial. The collection's version may fall, when etcd was
        restored.
        """
        listed = int(resource_version)
        newer = {key for key, written in self._unconfirmed.items() if written > listed}
        fresh = {obj.metadata.key: obj for obj in objects}
        vanished = [key for key in self._objects if scope in ("", key.namespace) and key not in fresh]
        for key in vanished:
            if key not in newer:
                self._drop(key, self._objects[key], initial=True)
        for key, obj in fresh.items():
            old = self._objects.get(key)
            if key not in newer and (old is None or version(obj) != version(old)):
                self._put(key, obj, old, initial=True)
        self.progress.reset(scope, listed)

    def _put(self, key: ObjectKey, new: T, old: T | None, *, initial: bool) -> None:
        self._objects[key] = new
        for handler in self._handlers:
            _call(handler, old, new, initial)

    def _drop(self, key: ObjectKey, last: T, *, initial: bool) -> None:
        del self._objects[key]
        self._unconfirmed.pop(key, None)
        for handler in self._handlers:
            _call(handler, last, None, initial)


def _call(handler: Handler[T], old: T | None, new: T | None, initial: bool) -> None:
    try:
        handler(old, new, initial)
    except Exception:
        known = [obj.metadata.key for obj in (new, old) if obj is not None]
        log.exception("a handler failed on %s; nothing else did", *known[:1])
