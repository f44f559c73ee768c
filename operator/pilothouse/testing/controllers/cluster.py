"""Runs the stand-ins: caches of the kinds that they watch, and a worker for each stand-in."""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec

from pilothouse.informer import Informer
from pilothouse.kube import (
    AlreadyExists,
    Api,
    Conflict,
    KubeError,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
)
from pilothouse.telemetry import now
from pilothouse.testing.documents import Json

#: Seconds before a sync is retried after a conflict, and after another error of the API server.
CONFLICT_SECONDS, REFUSED_SECONDS = 0.1, 1.0


class Built(msgspec.Struct, frozen=True):
    """An object of a built-in kind: its metadata, and its spec and status as JSON."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: dict[str, Any] = {}
    status: dict[str, Any] = {}

    @property
    def key(self) -> ObjectKey:
        """The namespace and name."""
        return ObjectKey(self.metadata.namespace, self.metadata.name)

    @property
    def owner(self) -> str:
        """The UID of the controller in the owner references; empty if there is none."""
        return next((each.uid for each in self.metadata.owner_references if each.controller), "")


class StandIn(ABC):
    """A stand-in for one of Kubernetes' own controllers, as far as its effects are visible to others.

    An object of this class is only configuration. The state of a run is in its `Cluster`.
    """

    #: The kinds that it watches. It syncs objects of the first kind; the other kinds are owned by them.
    kinds: tuple[Resource[Built], ...]

    @abstractmethod
    async def sync(self, cluster: "Cluster", obj: Built) -> float | None:
        """Does the next step for one object.

        Returns:
            The seconds until the next step; None to wait for a change.
        """

    async def gone(self, cluster: "Cluster", obj: Built) -> None:  # noqa: B027 - optional
        """Called after an object of the first kind was deleted."""

    def concerned(self, resource: Resource[Built], obj: Built, cluster: "Cluster") -> Iterator[ObjectKey]:
        """Yields the keys of the objects to sync when an object changes: itself, or its owner."""
        if resource is self.kinds[0]:
            yield obj.key
        elif obj.owner:
            yield from (each.key for each in cluster.all(self.kinds[0]) if each.metadata.uid == obj.owner)


class Cluster:
    """The state that the stand-ins of one run share.

    Args:
        api: A client of the model or of the real API server.
        stand_ins: The stand-ins.
    """

    def __init__(self, api: Api, stand_ins: tuple[StandIn, ...]) -> None:
        self.api = api
        kinds = dict.fromkeys(kind for each in stand_ins for kind in each.kinds)
        self._informers: Mapping[Resource[Built], Informer[Built]] = {
            kind: Informer(api, kind) for kind in kinds
        }
        self._workers = [_Worker(self, each) for each in stand_ins]
        self._since: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Runs the stand-ins until it is cancelled."""
        for worker in self._workers:
            for kind in worker.stand_in.kinds:
                self._informers[kind].add_handler(worker.handler(kind))
        async with asyncio.TaskGroup() as group:
            for informer in self._informers.values():
                group.create_task(informer.run())
            for informer in self._informers.values():
                await informer.wait_synced()
            for worker in self._workers:
                group.create_task(worker.run())

    def get(self, resource: Resource[Built], key: ObjectKey) -> Built | None:
        """Returns an object from the cache; None if it does not exist."""
        return self._informers[resource].store.get(key)

    def all(self, resource: Resource[Built]) -> list[Built]:
        """Returns all objects of a kind, sorted by name."""
        return sorted(self._informers[resource].store.values(), key=lambda each: each.key)

    def owned(self, resource: Resource[Built], owner: Built) -> list[Built]:
        """Returns the objects of a kind that an object controls, sorted by name."""
        return [each for each in self.all(resource) if each.owner == owner.metadata.uid]

    def elapsed(self, obj: Built, phase: str) -> float:
        """Returns the seconds since the first call with this object and phase."""
        time = asyncio.get_running_loop().time()
        return time - self._since.setdefault((obj.metadata.uid, phase), time)

    def forget(self, obj: Built, phase: str) -> None:
        """Restarts the time of a phase."""
        self._since.pop((obj.metadata.uid, phase), None)

    async def create(
        self,
        resource: Resource[Built],
        owner: Built,
        owner_kind: Resource[Built],
        body: Json,
        *,
        owned: bool = True,
    ) -> None:
        """Creates an object with an owner, unless it exists."""
        metadata = {**body["metadata"]}
        if owned:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": owner_kind.api_version,
                    "kind": owner_kind.kind,
                    "name": owner.metadata.name,
                    "uid": owner.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ]
        made = {"apiVersion": resource.api_version, "kind": resource.kind, **body, "metadata": metadata}
        try:
            created = await self.api.create(resource, made, namespace=owner.metadata.namespace)
            self._informers[resource].store.observe(created)
        except AlreadyExists:
            pass

    async def set_status(self, resource: Resource[Built], obj: Built, status: Json) -> None:
        """Sets fields of the status, if they differ. Unchanged conditions keep their lastTransitionTime."""
        if "conditions" in status:
            status["conditions"] = _timed(status["conditions"], obj.status.get("conditions", ()))
        if any(obj.status.get(name) != value for name, value in status.items()):
            body = {"metadata": {"uid": obj.metadata.uid}, "status": status}
            written = await self.api.patch(
                resource, obj.key, body, type=PatchType.MERGE, subresource="status"
            )
            self._informers[resource].store.observe(written)

    async def delete(self, resource: Resource[Built], obj: Built) -> None:
        """Deletes an object immediately."""
        with suppress(NotFound):
            await self.api.delete(resource, obj.key, uid=obj.metadata.uid, grace_seconds=0)


class _Worker:
    """Syncs the objects of one stand-in, one after another."""

    def __init__(self, cluster: Cluster, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self._cluster = cluster
        self._due: dict[ObjectKey, float] = {}
        self._gone: list[Built] = []
        self._news = asyncio.Event()
        self._time = asyncio.get_running_loop().time

    def handler(self, kind: Resource[Built]) -> Callable[[Built | None, Built | None, bool], None]:
        """Returns the event handler for a kind."""

        def observe(old: Built | None, new: Built | None, initial: bool) -> None:
            replaced = old is not None and (new is None or new.metadata.uid != old.metadata.uid)
            if kind is self.stand_in.kinds[0] and old is not None and replaced:
                self._gone.append(old)
            for obj in filter(None, (old, new)):
                for key in self.stand_in.concerned(kind, obj, self._cluster):
                    self._due[key] = self._time()
            self._news.set()

        return observe

    async def run(self) -> None:
        """Syncs the objects that are due, until it is cancelled."""
        while True:
            self._news.clear()
            while self._gone:
                await self.stand_in.gone(self._cluster, self._gone.pop(0))
            for key in sorted(key for key, at in self._due.items() if at <= self._time()):
                del self._due[key]
                after = await self._sync(key)
                if after is not None:
                    self._due[key] = min(self._due.get(key, self._time() + after), self._time() + after)
            try:
                async with asyncio.timeout_at(min(self._due.values(), default=None)):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _sync(self, key: ObjectKey) -> float | None:
        obj = self._cluster.get(self.stand_in.kinds[0], key)
        if obj is None:
            return None
        try:
            return await self.stand_in.sync(self._cluster, obj)
        except NotFound:
            return None
        except Conflict:
            return CONFLICT_SECONDS
        except KubeError:
            return REFUSED_SECONDS


@asynccontextmanager
async def running(api: Api, *stand_ins: StandIn) -> AsyncIterator[None]:
    """Runs stand-ins for Kubernetes' own controllers inside the block.

    Args:
        api: A client of the real API server or of the model. Give `model.another_client(...)`, so that their
            requests are not in `model.calls`.
        stand_ins: The stand-ins.

    Raises:
        Exception: A stand-in has failed, for example because a callback raised an error.
    """
    work = asyncio.get_running_loop().create_task(Cluster(api, stand_ins).run())
    try:
        yield
        if work.done():
            work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def called(callback: Callable[[Built], Any] | None, obj: Built) -> None:
    """Calls a callback, which may be async."""
    if callback is not None and inspect.isawaitable(answer := callback(obj)):
        await answer


def timestamp() -> str:
    """Returns the current time in the format of the API server."""
    return now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _timed(conditions: list[Json], before: Any) -> list[Json]:
    old = {each["type"]: each for each in before}
    timed = []
    for each in conditions:
        was = old.get(each["type"], {})
        same = was.get("status") == each["status"]
        timed.append({**each, "lastTransitionTime": was["lastTransitionTime"] if same else timestamp()})
    return timed
