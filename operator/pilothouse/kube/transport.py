"""HTTP requests to the API server: connections, credentials and timeouts. Only this module uses aiohttp."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from io import BytesIO
from ssl import SSLContext
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from pilothouse.kube.config import ClientConfig
from pilothouse.kube.deadline import Deadline, DeadlineExceeded
from pilothouse.kube.errors import (
    ApiError,
    ConfigError,
    Unauthorized,
    Unreachable,
    api_error,
)
from pilothouse.kube.patches import never_resend, shrink_read_buffers
from pilothouse.kube.retries import ATTEMPTS, retry_pause
from pilothouse.kube.sockets import Sockets
from pilothouse.telemetry import metrics

# Seconds. With a healthy server, a request takes milliseconds. etcd's limit for a slow request is 5 to 10 s,
# and the API server's limit for a request that is not a watch is 60 s.
DEADLINE = 30.0
CONNECT_SECONDS = 10.0
# The requested duration of a watch is shorter (`reader`). So a watch that is silent for this long is stuck,
# even if its connection to a proxy is alive. It is detected within a minute.
IDLE_SECONDS = 58.0
# How long an idle connection is kept for the next request.
KEEP_SECONDS = 30.0

shrink_read_buffers()

JSON = "application/json"

# Failures that occur before the request leaves this process or the proxy.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)

# UnicodeError is raised for a host name that cannot be encoded, for example with an empty label.
# In the text of aiohttp's connection errors: " ssl:default" or the repr of a context.
_TLS_SETTINGS = re.compile(r" ssl:(<[^>]*>|\S+)")
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)

# In bytes. aiohttp warns about a larger body of type bytes, because it would be written in one piece
# (aiohttp/payload.py, TOO_LARGE_BYTES_BODY).
_LARGE = 2**20

# Cached, because looking up a series by its labels costs more than an increment. There are few label sets.
_requests = lru_cache(maxsize=256)(metrics.REQUESTS.labels)
_request_seconds = lru_cache(maxsize=256)(metrics.REQUEST_SECONDS.labels)


def _payload(body: bytes | None) -> bytes | BytesIO | None:
    """Returns a body in the type that aiohttp sends without a warning: large bodies are sent in chunks."""
    return BytesIO(body) if body is not None and len(body) > _LARGE else body


class Transport:
    """A pool of connections to one API server. Use it as an async context manager.

    Args:
        config: The API server's address and the credentials.
        user_agent: The name of this program in the server's audit log, `program/version`.
        connections: The maximum number of concurrent requests. Watches have separate connections.
    """

    def __init__(self, config: ClientConfig, *, user_agent: str, connections: int) -> None:
        self._config = config
        self._server = URL(config.server, encoded=True)
        self._base = self._server.raw_path.rstrip("/")
        self._host = self._server.raw_authority
        self._connections = connections
        # Without compression: on a cluster's network, gzip costs both sides more than it saves (client-go's
        # DisableCompression, which controller-runtime sets for the same reason).
        # A list, because a header such as Impersonate-Group can occur several times.
        self._headers = [
            ("User-Agent", user_agent),
            ("Accept", JSON),
            ("Accept-Encoding", "identity"),
            *config.headers,
        ]
        self._sockets = Sockets()
        self._requests: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None
        # One for each timeout that requests use. There are few.
        self._deadlines: dict[float, Deadline] = {}

    async def __aenter__(self) -> Self:
        self._requests = self._session(self._connections)
        # A watch uses its connection for minutes. In a common pool, many watches would block the requests.
        self._watches = self._session(0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for session in (self._requests, self._watches):
            if session is not None:
                await session.close()
        self._requests = self._watches = None
        await self._sockets.close()
        for deadline in self._deadlines.values():
            deadline.close()
        self._deadlines.clear()

    def _session(self, limit: int) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=limit,
            socket_factory=self._sockets.make,
            keepalive_timeout=KEEP_SECONDS,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            proxy=self._config.proxy or None,
        )
        never_resend(session)
        return session

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        deadline: float = DEADLINE,
    ) -> bytes:
        """Sends a request, retries it if `retries` allows it, and returns the response's body.

        Args:
            method: The HTTP method.
            path: The escaped path from the server's root.
            params: The query parameters.
            body: The body of the request.
            content_type: The content type of the body.
            accept: The accepted content types of the response.
            deadline: The timeout in seconds, including retries. It does not include the time in which a
                program or a person provides credentials.

        Raises:
            ConfigError: The credentials cannot be loaded.
            ApiError: The server refused the request. The subclass corresponds to the HTTP status.
            Unreachable: The server did not respond before the timeout.
        """
        headers = {}
        if body is not None:
            headers["Content-Type"] = content_type
        if accept is not JSON:
            headers["Accept"] = accept
        source = self._config.token
        if source is None or not source.may_wait:
            return await self._within(method, path, params, body, headers, deadline)
        await source.token()
        try:
            return await self._within(method, path, params, body, headers, deadline, waits=True)
        except Unauthorized as error:
            metrics.REQUEST_RETRIES.labels(str(error.status), method, self._host).inc()
            await source.token(refused=True)
            return await self._within(method, path, params, body, headers, deadline, waits=True)

    async def _within(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        headers: dict[str, str],
        deadline: float,
        *,
        waits: bool = False,
    ) -> bytes:
        """Sends a request and retries it, within the deadline.

        With `waits`, the caller has waited for the credentials, and does so again when they are refused.
        """
        within = self._deadlines.get(deadline)
        if within is None:
            within = self._deadlines[deadline] = Deadline(deadline)
        try:
            with within:
                return await self._until_answered(method, path, params, body, headers, deadline, waits)
        except DeadlineExceeded as error:
            _requests("<error>", method, self._host).inc()
            raise self._unreachable(TimeoutError(), f"{method} {path}", deadline) from error

    async def _until_answered(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        headers: dict[str, str],
        deadline: float,
        waits: bool,
    ) -> bytes:
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        refused = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(method, path, params, body, headers, refused, loop)
            except (ApiError, Unreachable) as error:
                wait = retry_pause(error, method, attempt, refused=refused or waits)
                if wait is None or attempt == ATTEMPTS or loop.time() + wait >= ends:
                    raise
                refused = isinstance(error, Unauthorized)
                code = str(error.status) if isinstance(error, ApiError) else "<error>"
                metrics.REQUEST_RETRIES.labels(code, method, self._host).inc()
                await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _once(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        headers: dict[str, str],
        refused: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> bytes:
        started = loop.time()
        try:
            await self._authorize(headers, refused)
            async with self._open(self._requests).request(
                method,
                self._url(path, params),
                data=_payload(body),
                headers=headers,
                allow_redirects=False,
                ssl=self._tls(refused),
                server_hostname=self._config.server_hostname,
            ) as response:
                answer = await response.read()
        except _FAILURES as error:
            _requests("<error>", method, self._host).inc()
            raise self._unreachable(error, f"{method} {path}", loop.time() - started) from error
        _requests(str(response.status), method, self._host).inc()
        _request_seconds(method, self._host).observe(loop.time() - started)
        if response.status >= 300:
            raise api_error(
                response.status,
                answer,
                retry_after=response.headers.get("Retry-After", ""),
                path=path,
                sent=body,
            )
        return answer

    @asynccontextmanager
    async def stream(
        self, path: str, *, params: Mapping[str, str], accept: str = JSON, idle: float = IDLE_SECONDS
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opens a streaming response and yields an iterator over its lines.

        Entering the context waits until the server has accepted the request, at most 30 s. The lines end when
        the server ends the stream, or when nothing has been received for `idle` seconds.

        Args:
            path: The path from the server's root.
            params: The query parameters.
            accept: The accepted content types of the response.
            idle: The seconds of silence after which the connection is considered dead.

        Raises:
            ApiError: The server refused the request.
            Unreachable: The server could not be reached, or the connection broke, also during the iteration.
        """
        refused = False
        while True:
            headers = {"Accept": accept}
            # Not within the timeout: it may wait for a program or a person.
            await self._authorize(headers, refused)
            try:
                async with asyncio.timeout(DEADLINE):
                    response = await self._open(self._watches).get(
                        self._url(path, params),
                        headers=headers,
                        allow_redirects=False,
                        ssl=self._tls(refused),
                        server_hostname=self._config.server_hostname,
                        timeout=aiohttp.ClientTimeout(
                            total=None, sock_connect=CONNECT_SECONDS, sock_read=idle
                        ),
                    )
            except _FAILURES as error:
                _requests("<error>", "GET", self._host).inc()
                raise self._unreachable(error, f"GET {path}", DEADLINE) from error
            _requests(str(response.status), "GET", self._host).inc()
            if response.status != 401 or refused:
                break
            response.close()
            refused = True
        try:
            if response.status != 200:
                body = await self._refusal(response, path)
                raise api_error(response.status, body, retry_after=response.headers.get("Retry-After", ""))
            yield self._lines(response, path)
        finally:
            # The connection cannot be reused, because the server may send more. It is aborted, because
            # closing TLS properly would wait for a server that may be dead.
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()
            response.close()

    async def _refusal(self, response: aiohttp.ClientResponse, path: str) -> bytes:
        try:
            async with asyncio.timeout(DEADLINE):
                return await response.read()
        except _FAILURES as error:
            raise self._unreachable(error, f"GET {path}", DEADLINE) from error

    async def _lines(self, response: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
        # The parts of a long line are collected, and joined only once at its end.
        parts: list[bytes] = []
        try:
            async for chunk in response.content.iter_any():
                lines = chunk.split(b"\n")
                if len(lines) == 1:
                    parts.append(chunk)
                    continue
                if parts:
                    parts.append(lines[0])
                    lines[0] = b"".join(parts)
                    parts.clear()
                if tail := lines.pop():
                    parts.append(tail)
                for line in lines:
                    if line:
                        yield line
        except aiohttp.SocketTimeoutError:
            return
        except _FAILURES as error:
            raise self._unreachable(error, f"GET {path}", DEADLINE) from error

    def _open(self, session: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
        if session is None:
            raise RuntimeError("the client is not open; use it inside 'async with'")
        return session

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        # Parsing the URL from a string would take 3 us per request, because each path is new.
        url = self._server.with_path(self._base + path, encoded=True)
        return URL(f"{url}?{urlencode(params)}", encoded=True) if params else url

    async def _authorize(self, headers: dict[str, str], refused: bool) -> None:
        if self._config.token is not None and (token := await self._config.token.token(refused=refused)):
            headers["Authorization"] = f"Bearer {token}"

    def _tls(self, refused: bool) -> SSLContext | bool:
        if self._config.tls is None:
            return True
        try:
            # The pool separates connections by their TLS settings. After a rotation, requests use new ones,
            # and the old ones are closed when they have been idle for a while.
            return self._config.tls.context(refused=refused)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the cluster's TLS files: {error}") from error

    def _unreachable(self, error: Exception, what: str, seconds: float) -> Unreachable:
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
            why = f"timed out after {seconds:.0f} s"
        else:
            why = _TLS_SETTINGS.sub("", str(error)) or type(error).__name__
        maybe_sent = not isinstance(error, _NOT_SENT)
        return Unreachable(
            f"{what}: no response from the API server {self._host}: {why}", maybe_sent=maybe_sent
        )
