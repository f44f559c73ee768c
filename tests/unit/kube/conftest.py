"""A local HTTP server with scripted responses, for behavior that a real API server rarely shows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from pilothouse.kube import Client, ClientConfig, TokenSource

Answer = web.Response | Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedServer:
    """Sends the scripted responses in order, and repeats the last one. Records the requests."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self._answers: list[Answer] = []
        application = web.Application(client_max_size=4 * 2**20)
        application.router.add_route("*", "/{tail:.*}", self._answer)
        self.server = TestServer(application)
        self.closing = asyncio.Event()

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    def will(self, *answers: Answer) -> None:
        """Answer the next requests so: with a response, or with what a function makes of the request."""
        self._answers = list(answers)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, web.Response):
            # A response object can be sent only once, but the last response is repeated.
            return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
        return await answer(request)

    def stream(self, *chunks: bytes, cut: bool = False, silent: bool = False) -> Answer:
        """Answer with chunks as a watch does, then end, break the connection, or fall silent."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for chunk in chunks:
                await response.write(chunk)
            if silent:
                await self.closing.wait()
            if cut:
                assert request.transport is not None
                request.transport.abort()
            return response

        return answer


def drop(request: web.Request) -> Any:
    """Closes the connection without a response."""

    async def answer() -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return answer()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    async with scripted.server:
        yield scripted
        scripted.closing.set()


@pytest.fixture
async def connect(server: ScriptedServer) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Returns a function that creates clients of the server."""
    clients = []

    async def make(token: TokenSource | None = None, url: str = "") -> Client:
        config = ClientConfig(server=url or server.url, token=token)
        clients.append(await Client(config, user_agent="tests/1").__aenter__())
        return clients[-1]

    yield make
    for client in clients:
        await client.__aexit__(None, None, None)


@pytest.fixture
async def client(connect: Callable[[], Awaitable[Client]]) -> Client:
    return await connect()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries have no delay, because the tests check whether they happen, not when."""
    monkeypatch.setattr("pilothouse.kube.retries._FIRST_PAUSE", 0.001)
