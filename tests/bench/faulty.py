"""A reverse proxy that fails as networks and servers do."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


class FaultyProxy:
    """Stands before one server. A context manager.

    Attributes:
        url: Where it listens.
        rate: The part of requests that fail: half of them are answered 500, a quarter are cut before they
            reach the server, a quarter after, so that the reply is lost.
        faults: How many of each have been made.

    Args:
        target: The server's URL.
        server_tls: With what it listens; None: plain HTTP.
        client_tls: With what it asks the server; None: plain HTTP.
        seed: Of the dice.
    """

    def __init__(
        self,
        target: str,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        seed: int = 1,
    ) -> None:
        self.url = ""
        self.rate = 0.0
        self.faults: Counter[str] = Counter()
        self._target = target
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._dice = random.Random(seed)
        self._watches: set[asyncio.Transport] = set()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._client_tls or True)
        self._session = aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        )
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._server_tls, shutdown_timeout=1)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if self._server_tls else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut_watches()
        await self._runner.cleanup()
        await self._session.close()

    @property
    def watched(self) -> bool:
        """Whether a watch is open."""
        return bool(self._watches)

    def cut_watches(self) -> None:
        """Ends every open watch as a lost connection does."""
        while self._watches:
            self.faults["watch cut"] += 1
            self._watches.pop().abort()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        fault = self._dice.random() / self.rate if self.rate else 1.0
        if fault < 0.5:
            self.faults["500"] += 1
            return web.json_response({"kind": "Status", "code": 500, "message": "injected"}, status=500)
        if fault < 0.75:
            return self._cut(request, "cut before")
        try:
            answer = await self._forward(request)
        except (aiohttp.ClientError, OSError):
            return self._cut(request, "server gone")
        if fault < 1.0:
            answer.close()
            return self._cut(request, "reply lost")
        return await self._reply(request, answer)

    async def _forward(self, request: web.BaseRequest) -> aiohttp.ClientResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        url = f"{self._target}{request.path_qs}"
        return await self._session.request(
            request.method, url, data=await request.read(), headers=headers, allow_redirects=False
        )

    async def _reply(self, request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
        if "watch=" not in request.query_string or answer.status != 200:
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
        reply = web.StreamResponse(status=answer.status, headers=headers)
        reply.enable_chunked_encoding()
        transport = request.transport
        if transport is not None:
            self._watches.add(transport)
        try:
            await reply.prepare(request)
            async for chunk in answer.content.iter_any():
                await reply.write(chunk)
        except (aiohttp.ClientError, OSError):
            if transport in self._watches:  # else it was cut here
                self._cut(request, "server gone")
        finally:
            answer.close()
            if transport is not None:
                self._watches.discard(transport)
        return reply

    def _cut(self, request: web.BaseRequest, why: str) -> web.StreamResponse:
        self.faults[why] += 1
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)
