"""The HTTP server for probes and metrics: /healthz, /readyz and /metrics on one port.

It uses asyncio streams, because aiohttp's server would cost 2 MiB of memory for three pages.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from ssl import SSLContext
from typing import NamedTuple

from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

# Seconds for a client to send its request and to read the answer. Then the connection is closed.
REQUEST_SECONDS = 10.0
# The limit of a request's head. The requests of the kubelet and of Prometheus are smaller than 1 KiB.
REQUEST_BYTES = 16 * 1024
_BEARER = re.compile(rb"\r\nauthorization: *bearer +([!-~]+) *\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HealthServer:
    """Serves the probes and the metrics on one port.

    * /healthz: 200 as long as the event loop runs. While the loop is blocked there is no answer, which the
      kubelet counts as a failure. The watchdog (process/watchdog.py) logs what blocks it.
    * /readyz: 503 with the reasons from `not_ready`, one per line. If there are no reasons: 200 with "ok", or
      with "ok, but" and the problems from `failing`. Those do not make the pod unready, because taking it out
      of service would not fix them.
    * /metrics: the metrics of the process in the Prometheus text format.

    Args:
        host: The address to listen on; empty for all addresses.
        port: The port; 0 lets the system choose one.
        not_ready: Returns why the process is not ready; empty if it is ready.
        failing: Returns what currently fails in a process that is ready.
        tls: The TLS context to serve with. Without it the server speaks plain HTTP.
        reader: Takes the token of a request for the metrics ("" without one). Returns OK, or the error to
            answer with. Probes never need a token.
    """

    def __init__(
        self,
        host: str,
        port: int,
        not_ready: Callable[[], list[str]],
        *,
        failing: Callable[[], list[str]] = list,
        tls: SSLContext | None = None,
        reader: Callable[[str], Awaitable[HTTPStatus]] | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._not_ready = not_ready
        self._failing = failing
        self._tls = tls
        self._reader = reader
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def start(self) -> None:
        """Starts listening.

        Raises:
            OSError: The address is in use, or does not belong to this machine.
        """
        self._server = await asyncio.start_server(
            self._serve,
            self._host or None,
            self._port,
            limit=REQUEST_BYTES,
            reuse_address=True,
            ssl=self._tls,
            ssl_handshake_timeout=REQUEST_SECONDS if self._tls else None,
        )

    async def stop(self) -> None:
        """Stops listening. Does not wait for answers that are being written."""
        if self._server:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                answer = await self._answer(head)
                writer.write(_encode(answer))
                await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            log.debug("Closed the connection of a probe or a metrics reader: %s", error)
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> Answer:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"Only GET is supported.\n")
        match path:
            case b"/healthz":
                answer = Answer(HTTPStatus.OK, b"ok\n")
            case b"/readyz":
                answer = self._readiness()
            case b"/metrics":
                answer = await self._metrics(head)
            case _:
                answer = Answer(HTTPStatus.NOT_FOUND, b"Not found. Paths: /healthz, /readyz, /metrics\n")
        return answer

    async def _metrics(self, head: bytes) -> Answer:
        if self._reader:
            shown = _BEARER.search(head)
            status = await self._reader(shown[1].decode() if shown else "")
            if status is not HTTPStatus.OK:
                return Answer(status, f"{status.description}\n".encode())
        return Answer(HTTPStatus.OK, metrics.render(), metrics.CONTENT_TYPE)

    def _readiness(self) -> Answer:
        status, sentences = HTTPStatus.SERVICE_UNAVAILABLE, self._not_ready()
        if not sentences:
            status, failing = HTTPStatus.OK, self._failing()
            sentences = ["ok, but", *failing] if failing else ["ok"]
        return Answer(status, ("\n".join(sentences) + "\n").encode())


def _encode(answer: Answer) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + answer.body
