"""A kind's collection, and a client that lists and watches it with scripted failures."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import msgspec

from pilothouse.kube import (
    Api,
    EventType,
    Expired,
    KubeError,
    Misfit,
    ObjectKey,
    ObjectMeta,
    Page,
    Resource,
    Unreachable,
    WatchEvent,
    WatchListUnsupported,
)


class Thing(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


LOST = Unreachable("GET /things: connection reset", maybe_sent=True)

THINGS = Resource("testing.pilothouse.dev", "v1", "Thing", "things", Thing)


class Collection:
    """Objects, their history, and the failures to come.

    Attributes:
        refusals: The errors that the next lists and watches raise, in order.
        cuts: The errors that end open watches, one each, in order. None ends a watch normally.
        streams: Whether lists can be streamed.
        ends_lists: The number of streamed lists that end before they are complete.
        expires_watches: The number of watches that are accepted and then expire.
        expires_pages: The number of lists that expire after the first page.
        lag: The delay of each page and each event, in seconds.
        misfits: The objects that do not fit the view.
        asked: The requests: ("stream", namespace), ("list", namespace), ("list without pages", namespace) or
            ("watch", namespace, version).
    """

    def __init__(self, *, streams: bool = False) -> None:
        self.streams = streams
        self.version = 10
        self.objects: dict[ObjectKey, Thing] = {}
        self.history: list[tuple[EventType, Thing]] = []
        self.oldest = 0
        self.refusals: list[KubeError] = []
        self.cuts: list[KubeError | None] = []
        self.ends_lists = 0
        self.expires_watches = 0
        self.expires_pages = 0
        self.lag = 0.0
        self.misfits: set[ObjectKey] = set()
        self.asked: list[tuple[str, ...]] = []
        self._news = asyncio.Event()

    @property
    def api(self) -> Api:
        """The collection as a reflector's client. It supports only lists and watches."""
        return cast("Api", self)

    # What the reflector calls.

    async def pages(
        self, resource: Resource[Any], *, namespace: str, limit: int = 500, **_: str
    ) -> AsyncGenerator[Page[Any], None]:
        self.asked.append(("list" if limit else "list without pages", namespace))
        self._refuse()
        objects = [obj for obj in self.objects.values() if namespace in ("", obj.metadata.namespace)]
        version = str(self.version)
        half = len(objects) // 2 if limit else 0
        for number, part in enumerate((objects[:half], objects[half:])):
            await asyncio.sleep(self.lag)
            if number and limit and self.expires_pages:
                self.expires_pages -= 1
                raise Expired(410, "Expired", "the continue token is too old")
            yield Page(
                [obj for obj in part if obj.metadata.key not in self.misfits],
                version,
                tuple(Misfit(obj.metadata, "why") for obj in part if obj.metadata.key in self.misfits),
            )

    async def watch_list(
        self, resource: Resource[Any], *, namespace: str, **_: str
    ) -> AsyncGenerator[WatchEvent[Any], None]:
        if not self.streams:
            raise WatchListUnsupported("no")
        self.asked.append(("stream", namespace))
        self._refuse()
        seen = self.version
        objects = [obj for obj in self.objects.values() if namespace in ("", obj.metadata.namespace)]
        for obj in objects:
            await asyncio.sleep(self.lag)
            if self.cuts and (cut := self.cuts.pop(0)):
                raise cut
            yield self._event(EventType.ADDED, obj)
        if self.ends_lists:
            self.ends_lists -= 1
            return
        # Changes during the list come before its end.
        for event in [each for each in self.history if self._is_news(each[1], namespace, seen)]:
            seen = int(event[1].metadata.resource_version)
            yield self._event(*event)
        yield WatchEvent(EventType.END_OF_LIST, None, str(seen))
        async for change in self._changes(namespace, seen):
            yield change

    async def watch(
        self, resource: Resource[Any], *, resource_version: str, namespace: str, **_: str
    ) -> AsyncGenerator[WatchEvent[Any], None]:
        self.asked.append(("watch", namespace, resource_version))
        self._refuse()
        seen = int(resource_version)
        if seen < self.oldest:
            raise Expired(410, "Expired", "too old resource version")
        yield WatchEvent(EventType.BOOKMARK, None, resource_version)
        async for change in self._changes(namespace, seen):
            yield change

    async def _changes(self, namespace: str, seen: int) -> AsyncGenerator[WatchEvent[Any], None]:
        if self.expires_watches:
            self.expires_watches -= 1
            raise Expired(410, "Expired", "too old resource version")
        while True:
            if self.cuts:
                # Removed when it is sent, so that no other watch gets it.
                cut = self.cuts.pop(0)
                if cut is None:
                    return
                raise cut
            event = next((each for each in self.history if self._is_news(each[1], namespace, seen)), None)
            if event is None:
                await self._news.wait()
                continue
            await asyncio.sleep(self.lag)
            if not self.cuts:
                seen = int(event[1].metadata.resource_version)
                yield self._event(*event)

    def _event(self, kind: EventType, obj: Thing) -> WatchEvent[Any]:
        if obj.metadata.key in self.misfits:
            return WatchEvent(kind, None, obj.metadata.resource_version, Misfit(obj.metadata, "why"))
        return WatchEvent(kind, obj, obj.metadata.resource_version)

    # What happens on the server.

    def cut(self, failure: KubeError | None) -> None:
        """Ends one watch, with an error or normally (None)."""
        self.cuts.append(failure)
        self._wake()

    def lose(self) -> None:
        """Simulates an outage: open watches break, and the next lists and watches fail."""
        self.refusals.append(LOST)
        self.cut(LOST)

    def put(self, name: str, namespace: str = "ns") -> Thing:
        """Creates or changes an object and returns it as stored."""
        key = ObjectKey(namespace, name)
        self.version += 1
        kind = EventType.MODIFIED if key in self.objects else EventType.ADDED
        self.objects[key] = Thing(ObjectMeta(name, namespace, f"uid-{name}", str(self.version)))
        self._tell(kind, self.objects[key])
        return self.objects[key]

    def remove(self, name: str, namespace: str = "ns") -> None:
        """Deletes an object if it exists."""
        obj = self.objects.pop(ObjectKey(namespace, name), None)
        if obj is not None:
            self.version += 1
            last = msgspec.structs.replace(obj.metadata, resource_version=str(self.version))
            self._tell(EventType.DELETED, Thing(last))

    def forget(self) -> None:
        """Drops the history, as compaction does. Open watches continue, new ones expire."""
        self.oldest = self.version

    def restore(self) -> None:
        """Replaces etcd with an empty one, in which versions start again."""
        self.version, self.oldest = 5, 0
        self.objects.clear()
        self.history.clear()

    def _tell(self, kind: EventType, obj: Thing) -> None:
        self.history.append((kind, obj))
        self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @staticmethod
    def _is_news(obj: Thing, namespace: str, seen: int) -> bool:
        metadata = obj.metadata
        return int(metadata.resource_version) > seen and namespace in ("", metadata.namespace)

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)


def shadow(handled: dict[ObjectKey, Thing]) -> Any:
    """Returns a handler that rebuilds the store from its calls, and checks that they are consistent."""

    def handler(old: Thing | None, new: Thing | None, initial: bool) -> None:
        last = new or old
        assert last is not None
        key = last.metadata.key
        if new is None:
            assert key in handled, f"{key} was deleted twice"
            del handled[key]
            return
        assert handled.get(key) == old, f"{key} changed from {old}, and was {handled.get(key)}"
        handled[key] = new

    return handler
