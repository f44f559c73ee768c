"""No call waits forever: the default timeouts of requests and of opening a watch.

Each test ends a call that would last as long as the server is silent; seconds are shortened, not waited for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import Client, ObjectKey, PatchType, Unreachable, pod_log, transport
from pilothouse.kube.deadline import Deadline
from tests.listing import listed
from tests.unit.kube.conftest import ScriptedServer
from tests.unit.kube.views import WIDGETS, body

KEY = ObjectKey("ns", "one")
ONE = body("one", 7)
# Far below the maximum silence of a watch, and far above the shortened timeout.
PATIENCE = 5.0


async def first(events: Any) -> None:
    async for _ in events:
        return


CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "get": lambda client: client.get(WIDGETS, KEY),
    "list": lambda client: listed(client, WIDGETS),
    "create": lambda client: client.create(WIDGETS, ONE, namespace="ns"),
    "patch": lambda client: client.patch(WIDGETS, KEY, {}, type=PatchType.MERGE),
    "delete": lambda client: client.delete(WIDGETS, KEY),
    "request": lambda client: client.request("GET", "/version"),
    "log": lambda client: pod_log(client, KEY),
}
STREAMS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "watch": lambda client: first(client.watch(WIDGETS, resource_version="5")),
    "watch-list": lambda client: first(client.watch_list(WIDGETS)),
}


@pytest.fixture(autouse=True)
def silence(server: ScriptedServer) -> None:
    """The server accepts the connection and never responds."""

    async def hang(request: web.Request) -> web.StreamResponse:
        await server.closing.wait()
        return web.Response()

    server.will(hang)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_request_times_out_after_30_s_by_default(
    call: Callable[[Client], Awaitable[object]],
    server: ScriptedServer,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "Deadline", lambda seconds: Deadline(seconds / 150))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable, match="timed out after 30 s") as caught:
            await call(client)
    assert caught.value.maybe_sent
    server.closing.set()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "DEADLINE", 0.2)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("open_", STREAMS.values(), ids=STREAMS)
async def test_a_watch_that_is_not_accepted_times_out(
    open_: Callable[[Client], Awaitable[object]], server: ScriptedServer, client: Client
) -> None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable, match="timed out after"):
            await open_(client)
    assert len(server.requests) == 1
    server.closing.set()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("open_", STREAMS.values(), ids=STREAMS)
async def test_a_refusal_of_a_watch_without_its_body_times_out(
    open_: Callable[[Client], Awaitable[object]], server: ScriptedServer, client: Client
) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403, headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"{")
        await server.closing.wait()
        return response

    server.will(refuse)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unreachable, match="timed out after"):
            await open_(client)
    server.closing.set()
