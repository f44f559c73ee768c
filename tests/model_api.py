"""The API server as a model in memory: enough of its rules for controllers to run on it under virtual time.

It keeps resourceVersions, generations, the status subresource, finalizers and deletion, answers with the
errors of the real one, and lets a test look at every call before and after it takes effect.
"""

import asyncio
import copy
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import msgspec

from pilothouse.kube import (
    AlreadyExists,
    Conflict,
    EventType,
    Expired,
    KubeObject,
    NotFound,
    ObjectKey,
    Page,
    PatchType,
    Resource,
    WatchEvent,
)

T = TypeVar("T", bound=KubeObject)

Json = dict[str, Any]


class Call(NamedTuple):
    """A request: its verb, the resource's name, the object, the subresource, the body."""

    verb: str
    resource: str
    key: ObjectKey
    subresource: str = ""
    body: Any = None

    @property
    def writes(self) -> bool:
        return self.verb in ("create", "patch", "delete")


class Change(NamedTuple):
    """A line of a watch, as it is remembered."""

    version: int
    resource: str
    type: EventType
    object: Json


async def _nothing(call: Call) -> None:
    """Lets a call through."""


class ModelApi:
    """A model of the API server.

    Attributes:
        calls: all requests so far, watches and lists left out.
        before: awaited before a request takes effect: raise to refuse it, sleep to delay it.
        after: awaited when it has taken effect, before the answer: raise to lose the answer.
        connected: cleared, it holds back what watches would tell.
    """

    def __init__(self) -> None:
        self.version = 100
        self.calls: list[Call] = []
        self.before: Callable[[Call], Awaitable[None]] = _nothing
        self.after: Callable[[Call], Awaitable[None]] = _nothing
        self.connected = asyncio.Event()
        self.connected.set()
        self._objects: dict[str, dict[ObjectKey, Json]] = {}
        self._history: list[Change] = []
        self._oldest = 0
        self._news = asyncio.Event()

    @property
    def writes(self) -> list[Call]:
        """The requests that would change something."""
        return [call for call in self.calls if call.writes]

    # What a controller calls.

    async def get(self, resource: Resource[T], key: ObjectKey) -> T:
        return await self._request(Call("get", str(resource), key), resource)

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        built: Json = msgspec.to_builtins(body)
        key = ObjectKey(namespace, built["metadata"]["name"])
        return await self._request(Call("create", str(resource), key, body=built), resource)

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str = "",
    ) -> T:
        assert type is PatchType.MERGE, "the model knows merge patches"
        call = Call("patch", str(resource), key, subresource, msgspec.to_builtins(body))
        return await self._request(call, resource)

    async def delete(self, resource: Resource[T], key: ObjectKey) -> None:
        await self._request(Call("delete", str(resource), key), resource)

    async def pages(self, resource: Resource[T], **selectors: str) -> AsyncGenerator[Page[T], None]:
        await self.connected.wait()
        objects = self._objects.get(str(resource), {}).values()
        yield Page([msgspec.convert(obj, resource.view) for obj in objects], str(self.version))

    async def watch(
        self, resource: Resource[T], *, resource_version: str, **selectors: str
    ) -> AsyncGenerator[WatchEvent[T], None]:
        seen = int(resource_version)
        if seen < self._oldest:
            raise Expired(410, "Expired", "too old resource version")
        yield WatchEvent(EventType.BOOKMARK, None, resource_version)
        while True:
            news = self._news
            await self.connected.wait()
            for change in [change for change in self._history if change.version > seen]:
                seen = change.version
                if change.resource == str(resource):
                    obj = msgspec.convert(change.object, resource.view)
                    yield WatchEvent(change.type, obj, str(seen))
            await news.wait()

    # What a test does, unseen by the controller.

    def put(self, resource: Resource[T], name: str, namespace: str = "default", **fields: Any) -> ObjectKey:
        """Create or replace an object as a user would; `metadata=` adds to its metadata."""
        key = ObjectKey(namespace, name)
        old = self._objects.get(str(resource), {}).get(key)
        metadata = {
            "name": name,
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "generation": 1,
            **(old["metadata"] if old else {}),
            **fields.pop("metadata", {}),
        }
        new = {**(copy.deepcopy(old) if old else {}), **fields, "metadata": metadata}
        if old and new.get("spec") != old.get("spec"):
            metadata["generation"] += 1
        self._store(str(resource), key, new, EventType.MODIFIED if old else EventType.ADDED)
        return key

    def read(self, resource: Resource[T], key: ObjectKey) -> Json:
        """The object as JSON; KeyError when there is none."""
        return self._objects[str(resource)][key]

    def exists(self, resource: Resource[T], key: ObjectKey) -> bool:
        """Whether there is such an object."""
        return key in self._objects.get(str(resource), {})

    def all(self, resource: Resource[T]) -> list[Json]:
        """All objects of a kind, as JSON."""
        return list(self._objects.get(str(resource), {}).values())

    def remove(self, resource: Resource[T], key: ObjectKey) -> None:
        """Ask for an object's deletion, as a user would."""
        obj = copy.deepcopy(self.read(resource, key))
        if obj["metadata"].get("finalizers"):
            obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self._store(str(resource), key, obj, EventType.MODIFIED)
        else:
            self._store(str(resource), key, obj, EventType.DELETED)

    def forget(self) -> None:
        """Forget the past, so that a watch that asks for it is told 410."""
        self._oldest = self.version
        self._history.clear()

    # Behind both.

    async def _request(self, call: Call, resource: Resource[T]) -> T:
        self.calls.append(call)
        await asyncio.sleep(0)
        await self.before(call)
        result = getattr(self, f"_{call.verb}")(call)
        await self.after(call)
        return msgspec.convert(result, resource.view)

    def _get(self, call: Call) -> Json:
        try:
            return self._objects[call.resource][call.key]
        except KeyError:
            raise NotFound(404, "NotFound", f'{call.resource} "{call.key.name}" not found') from None

    def _create(self, call: Call) -> Json:
        if call.key in self._objects.get(call.resource, {}):
            raise AlreadyExists(409, "AlreadyExists", f'{call.resource} "{call.key.name}" already exists')
        obj = copy.deepcopy(call.body)
        obj["metadata"] |= {"namespace": call.key.namespace, "uid": str(uuid.uuid4()), "generation": 1}
        return self._store(call.resource, call.key, obj, EventType.ADDED)

    def _delete(self, call: Call) -> Json:
        obj = self._get(call)
        return self._store(call.resource, call.key, copy.deepcopy(obj), EventType.DELETED)

    def _patch(self, call: Call) -> Json:
        old = self._get(call)
        asked = call.body.get("metadata", {}).get("resourceVersion")
        if asked not in (None, old["metadata"]["resourceVersion"]):
            raise Conflict(409, "Conflict", f"Operation cannot be fulfilled on {call.resource}: modified")
        if call.subresource == "status":
            new = {**old, "status": _merged(old.get("status", {}), call.body.get("status", {}))}
        else:
            new = _merged(old, {name: value for name, value in call.body.items() if name != "status"})
            if new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] += 1
        if new == old:
            return old
        if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            return self._store(call.resource, call.key, new, EventType.DELETED)
        return self._store(call.resource, call.key, new, EventType.MODIFIED)

    def _store(self, resource: str, key: ObjectKey, obj: Json, change: EventType) -> Json:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        objects = self._objects.setdefault(resource, {})
        if change is EventType.DELETED:
            objects.pop(key, None)
        else:
            objects[key] = obj
        self._history.append(Change(self.version, resource, change, obj))
        news, self._news = self._news, asyncio.Event()
        news.set()
        return obj


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result
