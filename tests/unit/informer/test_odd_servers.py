"""Servers that break Kubernetes' rules: no response ends a reflector or affects another kind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilothouse.informer import InformerFactory
from pilothouse.kube import Client, ClientConfig, ObjectKey, ObjectMeta, Resource
from pilothouse.testing import eventually

pytestmark = pytest.mark.timeout(60)


class Thing(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    size: int = 0

    def __post_init__(self) -> None:
        if self.size == 13:
            raise KeyError("a check of the view's own")


ODD = Resource("odd.example.com", "v1", "Odd", "odds", Thing)
PLAIN = Resource("plain.example.com", "v1", "Plain", "plains", Thing)


def thing(name: str, version: str | None = "5", size: int = 1, **metadata: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", **metadata}
    if version is not None:
        meta["resourceVersion"] = version
    return {"metadata": meta, "size": size}


def page(*items: Any, **metadata: str) -> bytes:
    return json.dumps({"kind": "List", "metadata": metadata, "items": items}).encode()


def event(kind: str, obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class Server:
    """Serves two kinds: ODD as a test scripts it, and PLAIN according to the rules.

    Attributes:
        page: The list of ODD.
        watch: The lines of each watch of ODD. None: 405.
        answers_watch_list: Whether lists of ODD can be streamed. If not, streaming is refused with 422.
    """

    def __init__(self) -> None:
        self.page = page(thing("one"), resourceVersion="7")
        self.watch: list[bytes] | None = []
        self.lists = self.watches = 0
        self.plain = page(thing("calm"), resourceVersion="7")
        self.news: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        is_odd = "odds" in request.path
        if "sendInitialEvents" in request.query:
            if is_odd and self.watch is None:
                return web.json_response({"kind": "Status", "code": 405}, status=405)
            return web.json_response({"kind": "Status", "code": 422, "reason": "Invalid"}, status=422)
        if "watch" not in request.query:
            self.lists += is_odd
            return web.Response(body=self.page if is_odd else self.plain, content_type="application/json")
        if not is_odd:
            return await self._stream(request, [await self.news.get()])
        self.watches += 1
        if self.watch is None:
            return web.json_response({"kind": "Status", "code": 405}, status=405)
        return await self._stream(request, self.watch)

    async def _stream(self, request: web.Request, chunks: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        await asyncio.sleep(0.05)
        return response


class Setup:
    """A process that watches both kinds."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.factory = InformerFactory(client)
        self.odd = self.factory.informer(ODD)
        self.plain = self.factory.informer(PLAIN)

    def names(self) -> dict[str, int]:
        return {obj.metadata.name: obj.size for obj in self.odd.store.values()}

    async def plain_goes_on(self, version: int) -> None:
        """Checks that the other kind's watch still works."""
        self.server.news.put_nowait(event("MODIFIED", thing("calm", str(version), size=version)))

        def seen() -> bool:
            found = self.plain.store.get(ObjectKey("ns", "calm"))
            return found is not None and found.size == version

        await eventually(seen)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.informer.reflector.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("pilothouse.informer.reflector.LONGEST_PAUSE", 0.02)
    monkeypatch.setattr("pilothouse.informer.reflector.POLL_SECONDS", 0.02)
    monkeypatch.setattr("pilothouse.informer.reflector.SHORT_WATCH_SECONDS", 0.0)


@pytest.fixture
async def setup(quick: None) -> AsyncIterator[Setup]:
    server = Server()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.answer)
    async with TestServer(application) as running:
        config = ClientConfig(server=str(running.make_url("")).rstrip("/"))
        async with Client(config, user_agent="tests/1") as client:
            setup = Setup(server, client)
            watching = asyncio.create_task(setup.factory.run())
            yield setup
            assert not watching.done(), "a watch has ended the process"
            watching.cancel()
            server.news.put_nowait(b"")
            await asyncio.wait([watching])


async def test_opaque_versions_work(setup: Setup) -> None:
    """KEP-5504 guarantees ordered integers only for kinds that are stored in etcd."""
    server = setup.server
    server.page = page(thing("one", "eyJhIjoiMSJ9"), thing("two", "zz"), resourceVersion="bGlzdA")
    server.watch = [
        event("MODIFIED", thing("one", "AAA", size=2)),
        event("DELETED", thing("two", "yy")),
        event("ADDED", thing("three", "b")),
        event("BOOKMARK", {"metadata": {"resourceVersion": "opaque"}}),
    ]
    await eventually(lambda: setup.names() == {"one": 2, "three": 1})
    assert not setup.factory.failing
    assert await setup.odd.wait_reached("opaque", within=0) is False, "an opaque version has no order"
    await setup.plain_goes_on(8)


async def test_a_list_without_a_version_is_listed_again_after_each_watch(setup: Setup) -> None:
    server = setup.server
    server.page = page(thing("one", None))
    await eventually(lambda: setup.names() == {"one": 1})
    server.page = page(thing("one", None, size=2), thing("two", None))
    await eventually(lambda: setup.names() == {"one": 2, "two": 1})
    server.watch = [event("ADDED", thing("one", None, size=3)), event("DELETED", thing("two", None))]
    await eventually(lambda: setup.names().get("one") == 3)
    await setup.plain_goes_on(8)
    assert not setup.factory.failing


async def test_a_kind_that_cannot_be_watched_is_polled(setup: Setup, caplog: Any) -> None:
    server = setup.server
    server.watch = None
    await eventually(lambda: setup.odd.synced)
    server.page = page(thing("two"), resourceVersion="9")
    await eventually(lambda: setup.names() == {"two": 1})
    await eventually(lambda: server.watches > 3)
    assert not setup.factory.failing
    said = [each.getMessage() for each in caplog.records if "Cannot watch" in each.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("Cannot watch odds.odd.example.com; listing every")
    await setup.plain_goes_on(8)


BROKEN: dict[str, list[bytes]] = {
    "garbage": [b"\x00\xff\xfe garbage\n"],
    "invalid UTF-8": [event("ADDED", thing("bad")).replace(b"bad", b"b\xffd")],
    "truncated JSON": [event("ADDED", thing("cut"))[:40] + b"\n"],
    "HTML": [b"<html><body>Please log in</body></html>\n"],
    "no object": [b'{"type":"ADDED"}\n'],
    "an invalid object": [b'{"type":"ADDED","object":7}\n'],
    "no metadata": [event("ADDED", {"size": 3})],
    "no name": [event("MODIFIED", {"metadata": {"resourceVersion": "8"}})],
    "an unknown type": [event("REPLACED", thing("one", "8"))],
    "an invalid type": [b'{"type":5,"object":{}}\n'],
    "deep nesting": [b'{"type":"ADDED","object":' + b"[" * 100_000 + b"\n"],
    "a list": [page(thing("one")) + b"\n"],
    "an error without a Status": [b'{"type":"ERROR","object":{"kind":"Pod"}}\n'],
    "nothing at all": [b"null\n"],
}


@pytest.mark.parametrize("chunks", BROKEN.values(), ids=BROKEN)
async def test_a_stream_of_something_else_is_reported_and_listing_continues(
    setup: Setup, chunks: list[bytes], caplog: Any
) -> None:
    server = setup.server
    server.watch = chunks
    await eventually(lambda: setup.factory.failing)
    assert setup.factory.failing[0].startswith("odds.odd.example.com cannot be read: ")
    server.page = page(thing("two"), resourceVersion="9")
    await eventually(lambda: setup.names() == {"two": 1})
    seen = server.watches
    await eventually(lambda: server.watches > seen + 3)
    warnings = [
        each for each in caplog.records if each.levelname == "WARNING" and "odds" in each.getMessage()
    ]
    assert len(warnings) == 1, "the same error is logged once"
    await setup.plain_goes_on(8)
    server.watch = [event("ADDED", thing("three", "11"))]
    await eventually(lambda: not setup.factory.failing)


LISTS: dict[str, bytes] = {
    "HTML": b"<!DOCTYPE html><html>Please log in</html>",
    "empty": b"",
    "no list": b"{}",
    "no items": b'{"kind":"Status","metadata":{},"status":"Success"}',
    "invalid UTF-8": page(thing("one")).replace(b"one", b"o\xffe"),
    "truncated": page(thing("one"))[:50],
    "no name": page({"metadata": {"uid": "u"}}),
    "deep nesting": b"[" * 100_000,
}


@pytest.mark.parametrize("body", LISTS.values(), ids=LISTS)
async def test_a_response_that_is_not_a_list_removes_no_object(setup: Setup, body: bytes) -> None:
    server = setup.server

    def failing() -> list[str]:
        return setup.factory.failing

    await eventually(lambda: setup.names() == {"one": 1})
    server.page, server.watch = body, [b"so that it lists again\n"]
    await eventually(
        lambda: any("the list of odds" in each or "sent an object" in each for each in failing())
    )
    assert setup.names() == {"one": 1}
    await setup.plain_goes_on(8)
    server.page, server.watch = page(thing("two"), resourceVersion="9"), []
    await eventually(lambda: setup.names() == {"two": 1} and not setup.factory.failing)


async def test_an_html_page_is_recognized(setup: Setup) -> None:
    setup.server.watch = [b"<html>\n"]
    await eventually(lambda: setup.factory.failing)
    assert "an HTML page, probably from a proxy or a login page" in setup.factory.failing[0]


async def test_items_may_be_null(setup: Setup) -> None:
    setup.server.page = b'{"kind":"List","metadata":{"resourceVersion":"9"},"items":null}'
    await eventually(lambda: setup.odd.synced)
    assert setup.names() == {}


async def test_a_list_without_an_end_is_reported_and_retried_with_pauses(setup: Setup) -> None:
    server = setup.server
    await eventually(lambda: setup.odd.synced)
    server.page = page(thing("two"), **{"resourceVersion": "9", "continue": "more"})
    server.watch = [b"so that it lists again\n"]
    await eventually(lambda: any("does not end" in each for each in setup.factory.failing))
    await setup.plain_goes_on(8)
    server.page = page(thing("two"), resourceVersion="9")
    server.watch = [event("MODIFIED", thing("two", "10")), event("MODIFIED", thing("two", "11"))]
    await eventually(lambda: setup.names() == {"two": 1} and not setup.factory.failing)


async def test_malformed_metadata_does_not_hide_other_objects(setup: Setup) -> None:
    """The object still exists, so its last known state is kept."""
    await eventually(lambda: setup.names() == {"one": 1})
    odd = thing("one", labels=5, resourceVersion=9)
    setup.server.page, setup.server.watch = page(odd, thing("two"), resourceVersion="9"), [b"again\n"]
    await eventually(lambda: setup.names() == {"one": 1, "two": 1})


@pytest.mark.parametrize("raised", [KeyError("k"), RecursionError(), asyncio.CancelledError(), SystemExit(3)])
async def test_an_exception_in_an_authors_function_does_not_end_the_watch(
    setup: Setup, raised: BaseException
) -> None:
    def fails(*_: object) -> Any:
        raise raised

    setup.odd.add_handler(fails)
    setup.odd.store.add_index("broken", fails)
    setup.server.watch = [event("ADDED", thing("two", "8")), event("ADDED", thing("three", "9", size=13))]
    await eventually(lambda: "two" in setup.names())
    assert "three" not in setup.names(), "the view refused it"
    await setup.plain_goes_on(8)


async def test_a_defect_in_a_sink_is_reported_and_listing_continues(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Unforeseen exceptions do not end the reflector either."""
    await eventually(lambda: setup.odd.synced)
    broken = {"on": True}
    end_list: Callable[..., None] = setup.odd.store.end_list

    def fails(*arguments: Any) -> None:
        if broken["on"]:
            raise ZeroDivisionError("no one expected this")
        end_list(*arguments)

    monkeypatch.setattr(setup.odd.store, "end_list", fails)
    setup.server.watch = [b"so that it lists again\n"]
    await eventually(lambda: any("unexpected ZeroDivisionError" in each for each in setup.factory.failing))
    await setup.plain_goes_on(8)
    assert sum(each.exc_info is not None for each in caplog.records) == 1, "the traceback is logged once"
    broken["on"], setup.server.watch = False, []
    await eventually(lambda: not setup.factory.failing)
