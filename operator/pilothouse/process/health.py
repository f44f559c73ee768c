"""The probes and metrics of the process, on one port: /healthz, /readyz, /metrics.

Written on asyncio streams: aiohttp's server would cost 2 MiB of memory for three pages.
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

# A client that does not send its request, or does not read the answer, is cut off.
REQUEST_SECONDS = 10.0
# A request is its head alone; kubelet's and Prometheus's are below 1 KiB.
REQUEST_BYTES = 16 * 1024
_BEARER = re.compile(rb"\r\nauthorization: *bearer +([!-~]+) *\r\n", re.IGNORECASE)


class Answer(NamedTuple):
    """An HTTP answer."""

    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class HealthServer:
    """Answers on one port.

    * /healthz: 200 whenever the event loop turns. While it stands still there is no answer, which a kubelet
      takes for a failure; the watchdog (controller/watchdog.py) says in the log where it stands.
    * /readyz: 503 with what `not_ready` says, a sentence per line; 200 when it says nothing: "ok", or
      "ok, but" and what `failing` says. That is only told: to take the pod out of service would mend nothing.
    * /metrics: the process's metrics in the Prometheus text format.

    Args:
        host: The address to listen on; empty for all.
        port: The port; 0 lets the system choose one.
        not_ready: Returns why the process is not ready; nothing when it is.
        failing: Returns what fails at present in a process that is ready.
        tls: Speaks TLS with this; otherwise plain HTTP.
        reader: Says what to answer to somebody who wants to read the metrics with a token: OK, or what is in
            the way. The probes need none.
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
        """The port it listens on."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server else self._port

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: The address is taken, or is none of this machine's.
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
        """Listens no more. Answers being written are not waited for."""
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
            log.debug("a probe was cut off: %s", error)
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> Answer:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method != b"GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
        match path:
            case b"/healthz":
                answer = Answer(HTTPStatus.OK, b"ok\n")
            case b"/readyz":
                answer = self._readiness()
            case b"/metrics":
                answer = await self._metrics(head)
            case _:
                answer = Answer(HTTPStatus.NOT_FOUND, b"here are /healthz, /readyz and /metrics\n")
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
