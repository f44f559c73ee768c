"""Which requests are retried after which failures: all combinations."""

import asyncio
import socket

import pytest
from aiohttp import web

from pilothouse.kube import ApiError, ServerError, StaticToken, TooManyRequests, Unreachable
from pilothouse.kube.retries import retry_pause
from tests.unit.kube.conftest import drop
from tests.unit.kube.views import status

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def refuse(code: int, retry_after: str | None = None) -> web.Response:
    headers = {"Retry-After": retry_after} if retry_after is not None else {}
    return web.json_response(status(code, "", "no"), status=code, headers=headers)


# For each failure, the verbs that are retried.
FAILURES = {
    "429 with Retry-After": (refuse(429, "0"), VERBS),
    "429": (refuse(429), ("GET",)),
    "500": (refuse(500), ("GET",)),
    "502": (refuse(502), ("GET",)),
    "503": (refuse(503), ("GET",)),
    "503 with Retry-After": (refuse(503, "0"), ("GET",)),
    "504": (refuse(504), ("GET",)),
    "a lost connection": (drop, ("GET",)),
    "401": (refuse(401), VERBS),
    "400": (refuse(400), ()),
    "403": (refuse(403), ()),
    "404": (refuse(404), ()),
    "405": (refuse(405), ()),
    "409": (refuse(409), ()),
    "410": (refuse(410), ()),
    "413": (refuse(413), ()),
    "415": (refuse(415), ()),
    "422": (refuse(422), ()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("failure", FAILURES)
async def test_requests_are_retried_where_that_is_safe(server, connect, verb, failure):
    answer, again = FAILURES[failure]
    client = await connect(token=StaticToken("t"))
    server.will(answer, web.json_response({}))
    if verb in again:
        assert await client.request(verb, "/x", body={}) == b"{}"
        assert len(server.requests) == 2
        assert server.bodies == [b"{}", b"{}"], "with its body"
    else:
        with pytest.raises((ApiError, Unreachable)):
            await client.request(verb, "/x", body={})
        assert len(server.requests) == 1


@pytest.mark.parametrize("error", [TooManyRequests, ServerError])
def test_retry_after_0_does_not_switch_the_back_off_off(
    error: type[ApiError], monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in (1, 2, 3, 4):
        monkeypatch.setattr("pilothouse.kube.retries._FIRST_PAUSE", 0.2)
        pause = retry_pause(error(429, "", "", retry_after=0.0), "GET", attempt, refused=False)
        assert pause is not None
        assert pause >= 0.1 * 2 ** (attempt - 1)


@pytest.mark.parametrize("verb", VERBS)
async def test_any_verb_is_retried_if_it_was_not_sent(server, connect, verb, monkeypatch):
    """The connection is refused, and then the server starts on that port."""
    monkeypatch.setattr("pilothouse.kube.retries._FIRST_PAUSE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = await connect(url=f"http://127.0.0.1:{port}")
    request = asyncio.create_task(client.request(verb, "/x", body={}))
    await asyncio.sleep(0.02)
    assert not request.done()

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        assert await request == b"{}"
    finally:
        await runner.cleanup()


async def test_a_caller_can_set_a_shorter_timeout(server, client):
    """Fences do the same. A cancelled request must not continue, nor affect the next one."""
    arrived = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await server.closing.wait()
        return web.Response()

    server.will(hang)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await client.request("PATCH", "/x", body={})
    assert arrived.is_set()
    server.will(web.json_response({"next": 1}))
    assert await client.request("PATCH", "/x", body={}) == b'{"next": 1}'
    assert len(server.requests) == 2
    server.closing.set()
