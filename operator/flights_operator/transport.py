"""Sends HTTP requests to the airline and turns its answers into results or errors."""

import asyncio
import errno
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec
from aiohttp import hdrs
from yarl import URL

from flights_operator.errors import (
    AirlineError,
    NoAnswerError,
    ReferenceExistsError,
    RejectedError,
    StaleBookingError,
    ThrottledError,
    UnauthorizedError,
    WrongAddressError,
)
from flights_operator.settings import FlightsSettings
from pilothouse.kube import Deadline, DeadlineExceeded, RotatedFiles, retry_after_seconds
from pilothouse.telemetry import REGISTRY, Counter, Histogram

# A page with one booking takes 400 bytes. A much longer body cannot be from the booking API.
MAX_ANSWER = 64 * 1024
MAX_MESSAGE = 500
# The kubelet updates a mounted Secret about once a minute. A rejected key is read again immediately.
KEY_MAX_AGE = 10.0

REQUESTS = Counter(
    "airline_requests", 'Requests to the airline by status code; "none" means no answer.', ["method", "code"],
    REGISTRY,
)  # fmt: skip
# Prometheus' own default: 5 ms to 10 s.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SECONDS = Histogram(
    "airline_request_seconds", "Seconds until the airline answered.", ["method"], _BUCKETS, REGISTRY
)

# Cached because looking up a metric's child by its labels costs more than counting in it.
_requests = lru_cache(maxsize=256)(REQUESTS.labels)
_seconds = lru_cache(maxsize=256)(SECONDS.labels)


class Answer(NamedTuple):
    """A response: its status, its body, and its Retry-After header (empty if it has none)."""

    status: int
    body: bytes
    retry_after: str


class Problem(msgspec.Struct, frozen=True, gc=False):
    """RFC 9457 problem details. Fields that the answer does not have are empty."""

    title: str = ""
    detail: str = ""
    code: str = ""


class KeyFile:
    """The API key in a file that may be replaced while the operator runs.

    Args:
        path: The file, from a mounted Secret.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = RotatedFiles(
            [path], self._load, clock=asyncio.get_running_loop().time, period=KEY_MAX_AGE
        )
        self._key = ""

    def read(self, *, now: bool = False) -> str:
        """Returns the key, which is at most 10 s older than the file.

        The file is read on the event loop: it is one line, and a mounted Secret is in memory.

        Args:
            now: Whether to check the file even if it was checked within the last 10 s.

        Raises:
            UnauthorizedError: The file has no usable key, and no earlier key is known.
        """
        try:
            self._key = self._file.get(now=now)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UnauthorizedError(
                f"The airline's API key cannot be read from {self.path}: {reason}"
            ) from None
        return self._key

    def _load(self) -> str:
        try:
            key = self.path.read_text().strip()
        except UnicodeDecodeError:
            raise ValueError("it is not text") from None
        if not (key and key.isascii() and key.isprintable()):
            raise ValueError("it is empty, or not one line of ASCII text")
        return key

    def hide(self, text: str) -> str:
        """Returns the text with the key replaced by `***`: some gateways repeat the request's headers."""
        return text.replace(self._key, "***") if self._key else text


class Transport:
    """Sends single requests with the API key and a timeout, and turns status codes into errors.

    Args:
        settings: The airline's address, key file, timeout and number of connections.
    """

    def __init__(self, settings: FlightsSettings) -> None:
        self._url = settings.url
        # Parsed once: parsing the URL of each request would cost 3 us.
        self._base = URL(settings.url)
        self._timeout = settings.timeout
        self._deadline = Deadline(settings.timeout)
        self._key = KeyFile(settings.key_file)
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit_per_host=settings.connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.USER_AGENT: "pilothouse-flights", hdrs.ACCEPT: "application/json"},
        )

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()
        self._deadline.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Sends a request once, and a second time if the key is rejected and its file has a newer one.

        Args:
            method: The HTTP method.
            path: The path below the base URL.
            query: The query parameters.
            body: An object to send as JSON. None sends no body.
            headers: Additional headers.

        Returns:
            The body of a 2xx answer.

        Raises:
            AirlineError: The request failed. The class depends on the status code.
        """
        data = None if body is None else msgspec.json.encode(body)
        key = self._key.read()
        sent = {**(headers or {}), "X-API-Key": key}
        if data is not None:
            sent["Content-Type"] = "application/json"
        answer = await self._send(method, path, query, data, sent)
        if answer.status == 401 and (newer := self._key.read(now=True)) != key:
            answer = await self._send(method, path, query, data, sent | {"X-API-Key": newer})
        if not 200 <= answer.status < 300:
            raise self._error(method, answer)
        return answer.body

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        data: bytes | None,
        headers: Mapping[str, str],
    ) -> Answer:
        loop = asyncio.get_running_loop()
        started, code = loop.time(), "none"
        try:
            with self._deadline:
                async with self._session.request(
                    method,
                    self._address(path, query),
                    data=data,
                    headers=headers,
                    allow_redirects=False,
                ) as response:
                    body = await self._body(response)
            code = str(response.status)
            return Answer(response.status, body, response.headers.get(hdrs.RETRY_AFTER, ""))
        except (TimeoutError, DeadlineExceeded):
            raise NoAnswerError(
                f"The airline at {self._url} did not answer within {self._timeout:g} s"
            ) from None
        except UnicodeError:
            # Name resolution encodes the name first, which fails if a label is empty or too long.
            raise WrongAddressError(
                f"The airline at {self._url} cannot be reached: its host is not a DNS name. Check AIRLINE_URL"
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(f"The airline at {self._url} cannot be reached: {describe(error)}") from None
        finally:
            _requests(method, code).inc()
            _seconds(method).observe(loop.time() - started)

    def _address(self, path: str, query: Mapping[str, str] | None) -> URL:
        address = self._base.joinpath(path)
        return address.with_query(query) if query else address

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        length = response.content_length
        if length is not None and length <= MAX_ANSWER and hdrs.CONTENT_ENCODING not in response.headers:
            return await response.read()
        body = b""
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MAX_ANSWER:
                raise NoAnswerError(f"The airline at {self._url} answered with more than {MAX_ANSWER} bytes")
        return body

    def _error(self, method: str, answer: Answer) -> AirlineError:
        status, problem = answer.status, problem_of(answer.body)
        detail = self._key.hide(problem.detail or problem.title)[:MAX_MESSAGE]
        message = detail or f"HTTP status {status} without a message"
        if status == 401:
            return UnauthorizedError(
                f"The airline does not accept the API key in {self._key.path}: {message}"
            )
        if status == 429:
            wait = retry_after_seconds(answer.retry_after)
            return ThrottledError(f"The airline limits the request rate: {message}", retry_after=wait)
        # 408 is transient: the request did not arrive in time and may be sent again (RFC 9110, 15.5.9).
        if status >= 500 or status == 408:
            return NoAnswerError(
                f"The airline at {self._url} answered {status}: {message}",
                retry_after=retry_after_seconds(answer.retry_after),
            )
        if status == 409 and problem.code == "reference_exists":
            return ReferenceExistsError(message, status=status, code=problem.code)
        if status == 412 or (status == 404 and method == "PATCH"):
            return StaleBookingError(message, status=status, code=problem.code)
        # The booking API answers every lookup with 200, even if it finds nothing.
        if status < 400 or (status in (404, 405) and (method == "GET" or not detail)):
            answered = f"status {status}: {detail}" if detail else f"status {status}"
            return WrongAddressError(
                f"There is no booking API at {self._url} ({answered}). Check AIRLINE_URL"
            )
        return RejectedError(message, status=status, code=problem.code)


def problem_of(body: bytes) -> Problem:
    """Returns the problem details in an answer's body. They are empty if the body has another format."""
    try:
        return msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return Problem()


def describe(error: Exception) -> str:
    """Returns why a connection failed. The same cause always gives the same text."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, OSError) and error.errno:
        return {errno.ECONNREFUSED: "connection refused"}.get(
            error.errno, error.strerror or "connection failed"
        )
    if isinstance(
        error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | aiohttp.ClientPayloadError
    ):
        return "the connection was lost"
    return f"{type(error).__name__}"
