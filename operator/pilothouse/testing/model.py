"""The API server as a model in memory: enough of its rules for controllers to run on it under virtual time.

`ModelServer` has the rules, and the contract tests hold them against the real server. `ModelApi` is its
client: what a controller calls, and what a test does unseen by the controller.
"""

import asyncio
import math
import random
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NamedTuple, TypeVar

import msgspec

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
from pilothouse.kube.selectors import Matches, matcher
from pilothouse.kube.subresources import PODS
from pilothouse.testing import garbage
from pilothouse.testing.collection import Change
from pilothouse.testing.documents import Json, as_json
from pilothouse.testing.server import ModelServer

T = TypeVar("T", bound=KubeObject)

#: A watch that has nothing to tell says at least this often how far it has come, seconds.
BOOKMARK_SECONDS = 60.0
#: And so long before its end, so that whoever goes on asks for little of the past, seconds.
LAST_BOOKMARK_SECONDS = 2.0
_POD = re.compile(r"/api/v1/namespaces/([^/]+)/pods/([^/]+)/(eviction|log|binding)")
WRITES = ("create", "patch", "delete")


class Call(NamedTuple):
    """A request: its verb, the resource's name, the object, the subresource, the body, if it is a dry run."""

    verb: str
    resource: str
    key: ObjectKey
    subresource: str = ""
    body: Any = None
    dry_run: bool = False

    @property
    def writes(self) -> bool:
        """Whether it would change something."""
        return self.verb in WRITES and not self.dry_run

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what} {self.key}"


async def _nothing(call: Call) -> None:
    """Lets a call through."""


class ModelApi:
    """A model of the API server with the calls of `pilothouse.kube.Client`, which documents them.

    Attributes:
        server: the objects and their rules; `server.validate` says what is Invalid.
        calls: all requests so far, watches and lists left out.
        before: awaited before a request takes effect: raise to refuse it, sleep to delay it.
        after: awaited when it has taken effect, before the answer: raise to lose the answer.
        logs: what pods have written.
        connected: cleared, it holds back what watches would tell.
        ends_watches: whether a watch ends after the seconds that the client asks for, as on a real server.

    Args:
        field_manager: who owns the fields that it writes, unless a call says so.
        server: the objects; new ones unless given.
    """

    def __init__(self, field_manager: str = "pilothouse", server: ModelServer | None = None) -> None:
        self.server = server or ModelServer()
        self.server.changed.append(self._tell_watches)
        self.calls: list[Call] = []
        self.before: Callable[[Call], Awaitable[None]] = _nothing
        self.after: Callable[[Call], Awaitable[None]] = _nothing
        self.logs: dict[ObjectKey, str] = {}
        self.connected = asyncio.Event()
        self.connected.set()
        self.ends_watches = True
        self._field_manager = field_manager
        self._news = asyncio.Event()

    @property
    def version(self) -> int:
        """The version of the last change."""
        return self.server.version

    @property
    def writes(self) -> list[Call]:
        """The requests that would change something."""
        return [call for call in self.calls if call.writes]

    def another_client(self, field_manager: str = "kube-controller-manager") -> "ModelApi":
        """Return another client of the same server, with calls, hooks and connections of its own.

        Args:
            field_manager: who owns the fields that it writes.
        """
        other = ModelApi(field_manager, self.server)
        other.ends_watches = self.ends_watches
        return other

    # What a controller calls.

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Return an object."""
        call = Call("get", str(resource), key, subresource)
        return _view(resource, await self._request(call, lambda: self.server.get(resource, key)))

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Create an object; `generateName` is followed by a number."""
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
        """Change some fields of an object, by a merge or JSON patch or by server-side apply."""
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
        """Ask for an object's deletion; what it owns goes at the next `collect_garbage`."""

        def delete() -> Json:
            return self.server.delete(
                resource, key, uid=uid, resource_version=resource_version, propagation=propagation
            )

        await self._request(Call("delete", str(resource), key), delete)

    async def request(self, method: str, path: str, *, body: Any = None, **options: Any) -> bytes:
        """Evict a pod, which is gone immediately, bind it to a node, or return its log from `logs`.

        Raises:
            NotFound: there is no such pod, or the path is another one.
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
        raise NotFound(404, "NotFound", f"the model does not serve {method} {path}")

    async def pages(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> AsyncGenerator[Page[T], None]:
        """List a collection, page by page; all pages show it at one moment, until that is forgotten."""
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
        """Yield what is there as ADDED, then END_OF_LIST, then what changes."""
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
        """Yield what changes after a version; first a BOOKMARK, and one each minute that told nothing.

        It ends within a minute, as the client's does; 2 seconds before that comes the last BOOKMARK.
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
        """Yield what changes after a version that is remembered, until a time of the loop."""
        collection, read = self.server.collection(resource), event_reader(resource)
        told, due = seen, math.inf
        loop = asyncio.get_running_loop()
        last_word = ends - LAST_BOOKMARK_SECONDS
        while True:
            news = self._news
            await self.connected.wait()
            for change in collection.since(seen):
                seen = change.version
                if seen_as := _as_seen(change, matches):
                    kind, obj = seen_as
                    told, due = seen, math.inf
                    yield read(msgspec.json.encode({"type": kind, "object": obj}))
            if told < self.version and due == math.inf and loop.time() < last_word:
                due = min(loop.time() + BOOKMARK_SECONDS, last_word)
            wakes = min(due, ends)
            try:
                async with asyncio.timeout_at(None if wakes == math.inf else wakes):
                    await news.wait()
            except TimeoutError:
                if news.is_set():
                    continue  # what happened at the same moment comes first
                if wakes == ends:
                    return
                seen = told = self.version
                due = math.inf
                yield WatchEvent(EventType.BOOKMARK, None, str(told))

    def _end_of_watch(self, lasts: tuple[int, int]) -> float:
        """When a watch ends that begins now, by the loop's clock."""
        if not self.ends_watches:
            return math.inf
        return asyncio.get_running_loop().time() + random.randint(*lasts)  # noqa: S311 - as the client draws

    # What a test does, unseen by the controller.

    def put(self, resource: Resource[T], name: str, namespace: str = "default", **fields: Any) -> ObjectKey:
        """Create an object or set fields of it, as a user would; `metadata=` adds to its metadata.

        The status may be set, too; no rule is checked.
        """
        key = ObjectKey(namespace if resource.namespaced else "", name)
        self.server.put(resource, key, fields, fields.pop("metadata", {}))
        return key

    def read(self, resource: Resource[T], key: ObjectKey) -> Json:
        """Return the object as JSON, not to be changed; KeyError when there is none."""
        return self.server.collection(resource).objects[key]

    def exists(self, resource: Resource[T], key: ObjectKey) -> bool:
        """Whether there is such an object."""
        return key in self.server.collection(resource).objects

    def all(self, resource: Resource[T]) -> list[Json]:
        """Return all objects of a kind, as JSON, not to be changed."""
        return list(self.server.collection(resource).objects.values())

    def remove(self, resource: Resource[T], key: ObjectKey) -> None:
        """Ask for an object's deletion, as a user would."""
        self.server.delete(resource, key)

    def forget(self) -> None:
        """Forget the past, so that a watch that asks for it is told 410."""
        self.server.forget()

    def collect_garbage(self) -> None:
        """Let what owners left behind follow them, as the cluster's garbage collector does by itself."""
        garbage.collect(self.server)

    # Behind both.

    async def _request(self, call: Call, take_effect: Callable[[], Json]) -> Json:
        self.calls.append(call)
        await asyncio.sleep(0)
        await self.before(call)
        result = take_effect()
        await self.after(call)
        return result

    def _tell_watches(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


def _view(resource: Resource[T], obj: Json) -> T:
    """The object as the real client reads it."""
    return read_object(resource, msgspec.json.encode(obj))


def _scoped(matches: Matches, namespace: str) -> Matches:
    if not namespace:
        return matches
    return lambda obj: obj["metadata"].get("namespace") == namespace and matches(obj)


def _as_seen(change: Change, matches: Matches) -> tuple[EventType, Json] | None:
    """What a change is to who sees only what matches; None: nothing."""
    was = change.before is not None and matches(change.before)
    if change.type is not EventType.DELETED and matches(change.object):
        return (EventType.MODIFIED if was else EventType.ADDED), change.object
    if not was or change.before is None:
        return None
    # Whoever sees it go is shown what it was, at the version of its going.
    version = change.object["metadata"]["resourceVersion"]
    last = change.before
    return EventType.DELETED, {**last, "metadata": {**last["metadata"], "resourceVersion": version}}
