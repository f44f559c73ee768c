"""Own writes: after a reconcile has written something, its key waits until the watches have shown it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pilothouse.controller.outcome import ends_task
from pilothouse.informer import Informer
from pilothouse.kube import Api, KubeError, KubeObject, NotFound, ObjectKey, version
from pilothouse.queue import Priority, WorkQueue
from pilothouse.telemetry import log_defect

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)
S = TypeVar("S", bound=KubeObject)

# How long a key waits for the watches to show its own writes before they are read live, in seconds.
PATIENCE = 5.0


class Write(NamedTuple):
    """The object that an own write returned, and the informer whose watch will show it."""

    informer: Informer[Any]
    object: KubeObject

    @property
    def seen(self) -> bool:
        """Whether the informer's watch has reached the version of the write."""
        seen = self.informer.store.progress.seen(self.object.metadata.namespace)
        return version(self.object) <= seen

    def __str__(self) -> str:
        return f"{self.informer.resource.kind} {self.object.metadata.key}"


@dataclass(slots=True)
class Parked:
    """A key that waits without occupying a worker.

    Attributes:
        priority: The priority with which it is queued again: the highest with which it was taken.
        waiting: The asyncio task that queues it again.
    """

    priority: Priority
    waiting: asyncio.Task[None]


class OwnWrites(Generic[T]):
    """Records own writes, and parks the keys whose writes the watches have not shown yet.

    A parked key does not occupy a worker. It is queued again when the watches have shown all its writes. If
    they have not after 5 s, the written objects are read live first.

    Attributes:
        queue: The queue of the controller.

    Args:
        api: Reads an object live.
        informer: The informer of the reconciled objects.
        queue: The queue of the controller.
    """

    def __init__(self, api: Api, informer: Informer[T], queue: WorkQueue[ObjectKey]) -> None:
        self._api = api
        self._informer = informer
        self.queue = queue
        self._kind = informer.resource.kind
        self._time: Callable[[], float] = asyncio.get_running_loop().time
        # Writes of other objects, by the key whose reconcile made them, that no watch is known to have shown.
        self._secondary: dict[ObjectKey, list[Write]] = {}
        self._parked: dict[ObjectKey, Parked] = {}
        # Keys whose writes were read live after the wait: they need not wait again.
        self._read: set[ObjectKey] = set()
        # The key whose own write is being put into the store at this moment.
        self._taking: ObjectKey | None = None

    def wrote(self, obj: T) -> None:
        """Puts the reconciled object, as an own write returned it, into the store without another reconcile.

        The write must have carried the resourceVersion of the object in the store. Only then can the
        returned object contain no changes of other clients.

        Args:
            obj: The object that the write returned.
        """
        self._taking = obj.metadata.key
        try:
            self._informer.store.observe(obj)
        finally:
            self._taking = None

    def wrote_secondary(self, key: ObjectKey, informer: Informer[S], obj: S) -> None:
        """Puts another object, as a reconcile's write returned it, into the store of its kind.

        The key is not reconciled again until the watch of that kind has reached the write, or the object has
        been read live. So the next reconcile sees this write and all earlier changes. Deletions are not
        recorded: deleting an object twice does no harm.

        Args:
            key: The key whose reconcile wrote the object.
            informer: The informer of the other kind.
            obj: The object that the write returned. It must match the informer's namespaces and selectors.
        """
        self._secondary.setdefault(key, []).append(Write(informer, obj))
        informer.store.observe(obj)

    def taking(self, key: ObjectKey) -> bool:
        """Returns whether the store is changing at this moment because of an own write of the given key."""
        return key == self._taking

    def forget(self, key: ObjectKey) -> None:
        """Forgets a key whose object no longer exists."""
        self._secondary.pop(key, None)
        self._read.discard(key)

    def close(self) -> None:
        """Cancels all waits. Parked keys are not queued again."""
        for parked in self._parked.values():
            parked.waiting.cancel()

    def park(self, key: ObjectKey, obj: T | None) -> bool:
        """Parks a key that a worker has just taken, if it has to wait.

        Args:
            key: The key.
            obj: Its object in the store, if any.

        Returns:
            Whether the key was parked.
        """
        if parked := self._parked.get(key):
            parked.priority = min(parked.priority, self.queue.taken_at(key))
            return True
        unseen = self._unseen(key) if key in self._secondary else []
        if obj is not None and self._informer.store.unconfirmed(key):
            unseen.append(Write(self._informer, obj))
        if key in self._read:
            self._read.remove(key)
            return False
        if not unseen:
            return False
        waiting = asyncio.get_running_loop().create_task(self._wait(key, unseen))
        self._parked[key] = Parked(self.queue.taken_at(key), waiting)
        return True

    def _unseen(self, key: ObjectKey) -> list[Write]:
        unseen = [write for write in self._secondary.pop(key) if not write.seen]
        if unseen:
            self._secondary[key] = unseen
        return list(unseen)

    async def _wait(self, key: ObjectKey, writes: list[Write]) -> None:
        ends = self._time() + PATIENCE
        try:
            behind = [write for write in writes if not await self._shown(write, ends)]
            for write in behind:
                log.info("Watch is behind, reading %s live for %s %s", write, self._kind, key)
                there = await self._read_live(write)
                if not there and write.informer is self._informer and write.object.metadata.key == key:
                    return
        except KubeError as error:
            log.warning("Postponing %s %s, could not read what it wrote: %s", self._kind, key, error)
            self.queue.add_rate_limited(key, self._parked[key].priority)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "Postponing %s %s, could not read what it wrote", self._kind, key)
            self.queue.add_rate_limited(key, self._parked[key].priority)
        else:
            if behind:
                self._read.add(key)
            self._secondary.pop(key, None)
            self.queue.add(key, self._parked[key].priority)
        finally:
            del self._parked[key]

    async def _shown(self, write: Write, ends: float) -> bool:
        metadata = write.object.metadata
        left = max(0.0, ends - self._time())
        return await write.informer.wait_reached(metadata.resource_version, left, metadata.namespace)

    async def _read_live(self, write: Write) -> bool:
        """Reads an object live into the store, and returns whether it exists."""
        try:
            live = await self._api.get(write.informer.resource, write.object.metadata.key)
        except NotFound:
            log.debug("%s no longer exists", write)
            return False
        write.informer.store.observe(live)
        return True
