"""HTTP to the API server: connections, credentials, deadlines. The only module that knows aiohttp."""

import asyncio
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

# Seconds. A request through a healthy server takes milliseconds; etcd's own limit for a slow one is 5 to 10
# s, the server's for any request that is not a watch is 60 s.
DEADLINE = 30.0
CONNECT_SECONDS = 10.0
# Watches are asked for a shorter life than this (`reader`): one that is silent for so long is stuck, though
# its connection be alive up to a proxy on the way, and that is noticed within a minute.
IDLE_SECONDS = 58.0
# An idle connection is kept so long for the next request.
KEEP_SECONDS = 30.0

shrink_read_buffers()

JSON = "application/json"

# Failures before the request left this process, or its proxy.
_NOT_SENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)

# UnicodeError: a host name that cannot be encoded, such as one with an empty label.
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)

# Bytes. aiohttp warns about a larger body that is given as bytes, because it would be written in one go
# (aiohttp/payload.py, TOO_LARGE_BYTES_BODY).
_LARGE = 2**20

# Finding a metric's child by its labels costs more than counting in it; there are few label sets.
_requests = lru_cache(maxsize=256)(metrics.REQUESTS.labels)
_request_seconds = lru_cache(maxsize=256)(metrics.REQUEST_SECONDS.labels)


def _payload(body: bytes | None) -> bytes | BytesIO | None:
    """Return a body as aiohttp takes it without a warning: it sends a large one in pieces."""
    return BytesIO(body) if body is not None and len(body) > _LARGE else body


class Transport:
    """A pool of connections to one API server. An async context manager; closed, it holds nothing.

    Args:
        config: the server and the credentials.
        user_agent: names this program in the server's audit log and, up to the slash, as field manager.
        connections: requests in flight at most; watches have connections of their own.
    """

    def __init__(self, config: ClientConfig, *, user_agent: str, connections: int) -> None:
        self._config = config
        self._server = URL(config.server, encoded=True)
        self._base = self._server.raw_path.rstrip("/")
        self._host = self._server.raw_authority
        self._connections = connections
        # Uncompressed: on a cluster's network, gzip costs both sides more than it saves (client-go's
        # DisableCompression, which controller-runtime sets for the same reason).
        # A header may come several times: Impersonate-Group.
        self._headers = [
            ("User-Agent", user_agent),
            ("Accept", JSON),
            ("Accept-Encoding", "identity"),
            *config.headers,
        ]
        self._sockets = Sockets()
        self._requests: aiohttp.ClientSession | None = None
        self._watches: aiohttp.ClientSession | None = None
        # One for each length that requests ask for; there are few.
        self._deadlines: dict[float, Deadline] = {}

    async def __aenter__(self) -> Self:
        self._requests = self._session(self._connections)
        # A watch holds its connection for minutes: in a common pool, many would starve the requests.
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
        """Send a request, again where `retries` allows it, and return the body of the answer.

        Args:
            method: the HTTP verb.
            path: from the server's root, already escaped.
            params: the query.
            body: what to send.
            content_type: of the body.
            accept: the content types that the answer may have.
            deadline: seconds for the whole, retries included.

        Raises:
            ApiError: the server refused; the subclass says how.
            Unreachable: no answer within the deadline.
        """
        headers = {}
        if body is not None:
            headers["Content-Type"] = content_type
        if accept is not JSON:
            headers["Accept"] = accept
        within = self._deadlines.get(deadline)
        if within is None:
            within = self._deadlines[deadline] = Deadline(deadline)
        try:
            with within:
                return await self._until_answered(method, path, params, body, headers, deadline)
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
    ) -> bytes:
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        refused = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._once(method, path, params, body, headers, refused, loop)
            except (ApiError, Unreachable) as error:
                wait = retry_pause(error, method, attempt, refused=refused)
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
        """Open an answer that does not end by itself, and yield its lines.

        Entering waits until the server has accepted (30 s at most). The lines end when the server ends the
        stream, or when nothing has come for `idle` seconds: then the connection is taken for dead.

        Args:
            path: from the server's root.
            params: the query.
            accept: the content types that the answer may have.
            idle: seconds of silence after which the stream is given up.

        Raises:
            ApiError: the server refused.
            Unreachable: it could not be reached, or the connection broke, also while the lines are read.
        """
        refused = False
        while True:
            headers = {"Accept": accept}
            try:
                async with asyncio.timeout(DEADLINE):
                    await self._authorize(headers, refused)
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
            # Not released for another request: the server may have much more to say on it. Nor closed with a
            # TLS farewell, which would wait for a server that may be gone.
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
        # Parts of a line that is longer than one read are joined once, when its end has come.
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
            raise RuntimeError("the client is not open: use it inside 'async with'")
        return session

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        # Not parsed from a string: with a new name in each, that costs 3 us a request.
        url = self._server.with_path(self._base + path, encoded=True)
        return URL(f"{url}?{urlencode(params)}", encoded=True) if params else url

    async def _authorize(self, headers: dict[str, str], refused: bool) -> None:
        if self._config.token is not None and (token := await self._config.token.token(refused=refused)):
            headers["Authorization"] = f"Bearer {token}"

    def _tls(self, refused: bool) -> SSLContext | bool:
        if self._config.tls is None:
            return True
        try:
            # The pool keeps connections of different settings apart: after a rotation, requests use new ones,
            # and the old ones are closed once they have been idle for a while.
            return self._config.tls.context(refused=refused)
        except (OSError, ValueError) as error:
            raise ConfigError(f"the cluster's TLS files cannot be read: {error}") from error

    def _unreachable(self, error: Exception, what: str, seconds: float) -> Unreachable:
        if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
            why = f"no answer within {seconds:.0f} s"
        else:
            why = str(error) or type(error).__name__
        maybe_sent = not isinstance(error, _NOT_SENT)
        return Unreachable(
            f"{what}: the API server {self._host} gave no answer: {why}", maybe_sent=maybe_sent
        )
