"""A model of the API server in memory, with enough of its rules to run controllers under virtual time.

`ModelServer` implements the rules; contract tests compare it with the real server. `ModelApi` is its client:
it has the methods that a controller calls, and methods with which a test changes objects directly.
"""

import asyncio
import math
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

import msgspec

from pilothouse.api import Kind
from pilothouse.kube import (
    EventType,
    KubeObject,
    NotFound,
    ObjectKey,
    Page,
    PatchType,
    Resource,
    WatchEvent,
    reader,
)
from pilothouse.kube.answers import event_reader, read_object, read_page
from pilothouse.kube.resource import require_flags
from pilothouse.kube.selectors import Matches, matcher
from pilothouse.kube.subresources import PODS
from pilothouse.playbook.arguments import shown
from pilothouse.testing import garbage
from pilothouse.testing.collection import Change
from pilothouse.testing.documents import Json, as_json
from pilothouse.testing.server import ModelServer

T = TypeVar("T", bound=KubeObject)

#: A watch without events sends a bookmark at this interval, in seconds.
BOOKMARK_SECONDS = 60.0
#: A watch sends its last bookmark this long before its end, in seconds, so that the next one needs little
#: history.
LAST_BOOKMARK_SECONDS = 2.0
_POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/(eviction|log|binding)")
WRITES = ("create", "patch", "delete")


class Call(NamedTuple):
    """A request: verb, resource name, key of the object, subresource, body, and whether it is a dry run."""

    verb: str
    resource: str
    key: ObjectKey
    subresource: str = ""
    body: Any = None
    dry_run: bool = False

    @property
    def writes(self) -> bool:
        """Whether the request changes something."""
        return self.verb in WRITES and not self.dry_run

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what} {self.key}"


async def _nothing(call: Call) -> None:
    """Does nothing: the default hook."""


class ModelApi:
    """A client of the model, with the methods of `pilothouse.kube.Client`, where they are documented.

    Attributes:
        server: The objects and the rules. Set `server.validate` to validate objects.
        calls: All requests so far, except watches and lists.
        before: Awaited before a request takes effect. Raise an error to refuse it, sleep to delay it.
        after: Awaited after a request has taken effect, before the reply. Raise an error to lose the reply.
        logs: The logs of Pods.
        connected: While this event is cleared, watches and lists deliver nothing.
        ends_watches: Whether a watch ends after the time that the client requests, as on a real server.

    Args:
        field_manager: The default field manager of the writes.
        server: The server. By default a new one without objects.
    """

    def __init__(self, field_manager: str = "pilothouse", server: ModelServer | None = None) -> None:
        self.server = server or ModelServer()
        self.server.changed.append(self._notify_watches)
        self.calls: list[Call] = []
        self.before: Callable[[Call], Awaitable[None]] = _nothing
        self.after: Callable[[Call], Awaitable[None]] = _nothing
        self.logs: dict[ObjectKey, str] = {}
        self.connected = asyncio.Event()
        self.connected.set()
        self.ends_watches = True
        self._field_manager = field_manager
        self._changed = asyncio.Event()

    @property
    def version(self) -> int:
        """The version of the last change."""
        return self.server.version

    @property
    def writes(self) -> list[Call]:
        """The requests in `calls` that change something."""
        return [call for call in self.calls if call.writes]

    def another_client(self, field_manager: str = "kube-controller-manager") -> "ModelApi":
        """Returns another client of the same server, with calls, hooks and connections of its own.

        Args:
            field_manager: The default field manager of its writes.
        """
        other = ModelApi(field_manager, self.server)
        other.ends_watches = self.ends_watches
        return other

    # The methods of the client, which controllers call.

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Returns an object."""
        call = Call("get", str(resource), key, subresource)
        return _view(resource, await self._request(call, lambda: self.server.get(resource, key)))

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Creates an object. A number is appended to `generateName`."""
        built = as_json(body)
        metadata = built.get("metadata", {})
        key = ObjectKey(namespace, metadata.get("name") or metadata.get("generateName", ""))
        call = Call("create", str(resource), key, body=built)

        def create() -> Json:
            return self.server.create(resource, namespace, built, manager=self._field_manager)

        return _view(resource, await self._request(call, create))

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
    ) -> T:
        """Changes fields of an object with a merge patch, a JSON patch or server-side apply."""
        require_flags("ModelApi.patch", force=force, dry_run=dry_run)
        built = as_json(body)
        call = Call("patch", str(resource), key, subresource, built, dry_run)

        def patch() -> Json:
            return self.server.patch(
                resource,
                key,
                built,
                type=type,
                subresource=subresource,
                manager=field_manager or self._field_manager,
                force=force,
                dry_run=dry_run,
            )

        return _view(resource, await self._request(call, patch))

    async def delete(
        self,
        resource: Resource[T],
        key: ObjectKey,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Deletes an object. The next `collect_garbage` deletes the objects that it owns."""

        def delete() -> Json:
            return self.server.delete(
                resource, key, uid=uid, resource_version=resource_version, propagation=propagation
            )

        await self._request(Call("delete", str(resource), key), delete)

    async def request(self, method: str, path: str, *, body: Any = None, **options: Any) -> bytes:
        """Evicts a Pod, which is deleted immediately, binds it to a node, or returns its log from `logs`.

        Raises:
            NotFound: There is no such Pod, or the model does not support the path.
        """
        found = _POD.fullmatch(path)
        key = ObjectKey(found[1], found[2]) if found else ObjectKey("", "")
        if found and (method, found[3]) == ("POST", "eviction"):
            uid = body.get("deleteOptions", {}).get("preconditions", {}).get("uid", "")
            call = Call("create", str(PODS), key, "eviction", body)
            await self._request(call, lambda: self.server.delete(PODS, key, uid=uid))
            return b"{}"
        if found and (method, found[3]) == ("GET", "log"):
            await self._request(Call("get", str(PODS), key, "log"), lambda: self.server.get(PODS, key))
            return self.logs.get(key, "").encode()
        if found and (method, found[3]) == ("POST", "binding"):
            call = Call("create", str(PODS), key, "binding", body)
            await self._request(call, lambda: self.server.bind(PODS, key, body["target"]["name"]))
            return b"{}"
        raise NotFound(404, "NotFound", f"the model does not support {method} {path}")

    async def pages(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> AsyncGenerator[Page[T], None]:
        """Lists a collection in pages. All pages show the same version, while the server remembers it."""
        await self.connected.wait()
        matches = _scoped(matcher(label_selector, field_selector), namespace)
        collection, version = self.server.collection(resource), self.version
        shown = [obj for _, obj in sorted(collection.objects.items()) if matches(obj)]
        limit = limit or len(shown) or 1
        for start in range(0, len(shown) or 1, limit):
            collection.require_remembered(version)
            body = {"metadata": {"resourceVersion": str(version)}, "items": shown[start : start + limit]}
            page, _ = read_page(resource, msgspec.json.encode(body))
            yield page

    async def watch_list(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the existing objects as ADDED, then END_OF_LIST, then the changes."""
        ends = self._end_of_watch(reader.WATCH_LIST_SECONDS)
        shown = self.pages(
            resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector
        )
        version = ""
        async for page in shown:
            version = page.resource_version
            for obj in page.items:
                yield WatchEvent(EventType.ADDED, obj, obj.metadata.resource_version)
            for misfit in page.misfits:
                yield WatchEvent(EventType.ADDED, None, misfit.metadata.resource_version, misfit)
        yield WatchEvent(EventType.END_OF_LIST, None, version)
        matches = _scoped(matcher(label_selector, field_selector), namespace)
        async with aclosing(self._changes(resource, int(version), matches, ends)) as changes:
            async for event in changes:
                yield event

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the changes after a version, a BOOKMARK at the start, and one per minute without changes.

        The watch ends within a minute, as that of the client does, and sends a last BOOKMARK 2 seconds
        before.
        """
        ends = self._end_of_watch(reader.WATCH_SECONDS)
        matches = _scoped(matcher(label_selector, field_selector), namespace)
        self.server.collection(resource).require_remembered(int(resource_version))
        yield WatchEvent(EventType.BOOKMARK, None, resource_version)
        async with aclosing(self._changes(resource, int(resource_version), matches, ends)) as changes:
            async for event in changes:
                yield event

    async def _changes(
        self, resource: Resource[T], seen: int, matches: Matches, ends: float
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the changes after a version in the history, until the given time of the loop."""
        collection, read = self.server.collection(resource), event_reader(resource)
        sent, due = seen, math.inf
        loop = asyncio.get_running_loop()
        last_bookmark = ends - LAST_BOOKMARK_SECONDS
        while True:
            changed = self._changed
            await self.connected.wait()
            for change in collection.since(seen):
                seen = change.version
                if seen_as := _as_seen(change, matches):
                    kind, obj = seen_as
                    sent, due = seen, math.inf
                    yield read(msgspec.json.encode({"type": kind, "object": obj}))
            if sent < self.version and due == math.inf and loop.time() < last_bookmark:
                due = min(loop.time() + BOOKMARK_SECONDS, last_bookmark)
            wakes = min(due, ends)
            try:
                async with asyncio.timeout_at(None if wakes == math.inf else wakes):
                    await changed.wait()
            except TimeoutError:
                if changed.is_set():
                    continue  # A change at the same moment has precedence.
                if wakes == ends:
                    return
                seen = sent = self.version
                due = math.inf
                yield WatchEvent(EventType.BOOKMARK, None, str(sent))

    def _end_of_watch(self, lasts: tuple[int, int]) -> float:
        """Returns the time of the loop at which a watch ends that starts now."""
        if not self.ends_watches:
            return math.inf
        return asyncio.get_running_loop().time() + random.randint(*lasts)  # noqa: S311 - as the client does

    # The methods for tests, which are not recorded in `calls`.

    def put(self, resource: Resource[T], name: str, namespace: str = "default", **fields: Any) -> ObjectKey:
        """Creates an object or sets fields of it, as a user would. `metadata=` adds to the metadata.

        Can also set the status. Does not validate the object.

        Raises:
            TypeError: `resource` is not a Resource, or a name is not text.
        """
        _require("put", resource, name, namespace)
        key = ObjectKey(namespace if resource.namespaced else "", name)
        self.server.put(resource, key, fields, fields.pop("metadata", {}))
        return key

    def read(self, resource: Resource[T], key: ObjectKey) -> Json:
        """Returns an object as JSON. Do not modify it.

        Raises:
            KeyError: The object does not exist.
        """
        _require("read", resource, key)
        return self.server.collection(resource).objects[key]

    def exists(self, resource: Resource[T], key: ObjectKey) -> bool:
        """Returns whether an object exists."""
        _require("exists", resource, key)
        return key in self.server.collection(resource).objects

    def all(self, resource: Resource[T]) -> list[Json]:
        """Returns all objects of a kind as JSON. Do not modify them."""
        _require("all", resource)
        return list(self.server.collection(resource).objects.values())

    def remove(self, resource: Resource[T], key: ObjectKey) -> None:
        """Deletes an object, as a user would."""
        _require("remove", resource, key)
        self.server.delete(resource, key)

    def forget(self) -> None:
        """Forgets the history, so that a watch from an old version gets 410 (Expired)."""
        self.server.forget()

    def collect_garbage(self) -> None:
        """Deletes objects whose owners are deleted, as the garbage collector of a cluster does by itself."""
        garbage.collect(self.server)

    # Shared by both.

    async def _request(self, call: Call, take_effect: Callable[[], Json]) -> Json:
        self.calls.append(call)
        await asyncio.sleep(0)
        await self.before(call)
        result = take_effect()
        await self.after(call)
        return result

    def _notify_watches(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _view(resource: Resource[T], obj: Json) -> T:
    """Returns an object as the real client decodes it."""
    return read_object(resource, msgspec.json.encode(obj))


def _scoped(matches: Matches, namespace: str) -> Matches:
    if not namespace:
        return matches
    return lambda obj: obj["metadata"].get("namespace") == namespace and matches(obj)


def _as_seen(change: Change, matches: Matches) -> tuple[EventType, Json] | None:
    """Returns the event of a change for a watch with a selector; None if it does not see the change."""
    was = change.before is not None and matches(change.before)
    if change.type is not EventType.DELETED and matches(change.object):
        return (EventType.MODIFIED if was else EventType.ADDED), change.object
    if not was or change.before is None:
        return None
    # A DELETED event has the last state of the object, with the version of the deletion.
    version = change.object["metadata"]["resourceVersion"]
    last = change.before
    return EventType.DELETED, {**last, "metadata": {**last["metadata"], "resourceVersion": version}}


def _require(module: str, resource: object, *names: object) -> None:
    """Refuses arguments of a test that are not a Resource, or not an ObjectKey or the texts of one."""
    if not isinstance(resource, Resource):
        hint = " Write KIND.resource." if isinstance(resource, Kind) else ""
        raise TypeError(f"ModelApi.{module}: the resource is {shown(resource)}, not a Resource.{hint}")
    kind, hint = (
        (str, "Give fields by name: spec={...}") if module == "put" else (ObjectKey, "Give its ObjectKey")
    )
    for each in names:
        if not isinstance(each, kind):
            raise TypeError(f"ModelApi.{module}: {each!r} does not name an object. {hint}.")
