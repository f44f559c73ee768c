"""What syncs have written and the watches have not brought back: no key is synced from a store behind it."""

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

# How long a key waits for its own writes to come back through the watches before they are read live.
PATIENCE = 5.0


class Write(NamedTuple):
    """What an own write returned, and the informer that will bring it back."""

    informer: Informer[Any]
    object: KubeObject

    @property
    def seen(self) -> bool:
        """Whether the informer has come as far as the write."""
        seen = self.informer.store.progress.seen(self.object.metadata.namespace)
        return version(self.object) <= seen

    def __str__(self) -> str:
        return f"{self.informer.resource.kind} {self.object.metadata.key}"


@dataclass(slots=True)
class Parked:
    """A key that waits outside of any worker.

    Attributes:
        priority: At which it comes back: the one at which it was taken, or a better one since.
        waiting: What brings it back.
    """

    priority: Priority
    waiting: asyncio.Task[None]


class OwnWrites(Generic[T]):
    """Takes what own writes returned, and parks the keys whose writes the watches have not shown yet.

    A parked key waits outside of any worker. It is added to the queue again when the watches have shown all
    that it wrote, or, after 5 s, when that was read live.

    Attributes:
        queue: The queue of the controller whose syncs write.

    Args:
        api: Reads an object live.
        informer: The informer of the synced objects.
        queue: See the attribute.
    """

    def __init__(self, api: Api, informer: Informer[T], queue: WorkQueue[ObjectKey]) -> None:
        self._api = api
        self._informer = informer
        self.queue = queue
        self._kind = informer.resource.kind
        self._time: Callable[[], float] = asyncio.get_running_loop().time
        # What syncs of a key have written of other objects and no watch is known to have brought back.
        self._secondary: dict[ObjectKey, list[Write]] = {}
        self._parked: dict[ObjectKey, Parked] = {}
        # Keys that waited in vain and were read live instead.
        self._read: set[ObjectKey] = set()
        # The key whose own write is being taken into the store at this moment.
        self._taking: ObjectKey | None = None

    def wrote(self, obj: T) -> None:
        """Takes what a write of the synced object returned into the store. It causes no further sync.

        The write must have carried the resourceVersion of the object in the store: then what it returned
        cannot contain a change by another client.
        """
        self._taking = obj.metadata.key
        try:
            self._informer.store.observe(obj)
        finally:
            self._taking = None

    def wrote_secondary(self, key: ObjectKey, informer: Informer[S], obj: S) -> None:
        """Takes what a sync's write of another object returned into that kind's store.

        The key is not synced again until that kind's watch has come as far, or the object has been read
        live. The next sync then sees what this one made, and what others did before. A deletion needs no
        such care, because deleting an object that is gone is harmless.

        Args:
            key: The object whose sync wrote.
            informer: The informer of the other kind.
            obj: What the write returned; the informer's namespaces and selectors must admit it.
        """
        self._secondary.setdefault(key, []).append(Write(informer, obj))
        informer.store.observe(obj)

    def taking(self, key: ObjectKey) -> bool:
        """Whether the store changes at this moment because of an own write of the object."""
        return key == self._taking

    def forget(self, key: ObjectKey) -> None:
        """Forgets a key whose object is gone."""
        self._secondary.pop(key, None)
        self._read.discard(key)

    def close(self) -> None:
        """Brings nothing back any more."""
        for parked in self._parked.values():
            parked.waiting.cancel()

    def park(self, key: ObjectKey, obj: T | None) -> bool:
        """Parks a key that a worker has just taken, if it has to wait; returns whether it has.

        Args:
            key: The key.
            obj: Its object as the store shows it.
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
            behind = [write for write in writes if not await self._comes_back(write, ends)]
            for write in behind:
                log.info("the watch is behind, reading %s live for %s %s", write, self._kind, key)
                there = await self._read_live(write)
                if not there and write.informer is self._informer and write.object.metadata.key == key:
                    return
        except KubeError as error:
            log.warning("%s %s has to wait, what it wrote cannot be read: %s", self._kind, key, error)
            self.queue.add_rate_limited(key, self._parked[key].priority)
        except BaseException as error:
            if ends_task(error):
                raise
            log_defect(log, error, "%s %s has to wait, what it wrote cannot be read", self._kind, key)
            self.queue.add_rate_limited(key, self._parked[key].priority)
        else:
            if behind:
                self._read.add(key)
            self._secondary.pop(key, None)
            self.queue.add(key, self._parked[key].priority)
        finally:
            del self._parked[key]

    async def _comes_back(self, write: Write, ends: float) -> bool:
        metadata = write.object.metadata
        left = max(0.0, ends - self._time())
        return await write.informer.wait_reached(metadata.resource_version, left, metadata.namespace)

    async def _read_live(self, write: Write) -> bool:
        """Takes an object from the server into the store; returns whether it is there."""
        try:
            live = await self._api.get(write.informer.resource, write.object.metadata.key)
        except NotFound:
            log.debug("%s is gone", write)
            return False
        write.informer.store.observe(live)
        return True
