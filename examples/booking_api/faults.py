"""Faults that can be turned on, to test how a client reacts to them."""

import asyncio
import random
from collections import Counter
from typing import Annotated, Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Meta, Struct, field

from booking_api.model import ProblemError

Rate = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Fault(Struct, forbid_unknown_fields=True, kw_only=True):
    """The requests that a fault affects.

    Attributes:
        rate: The fraction of the requests that are affected, 0 to 1.
        count: The number of requests that will still be affected. null means no limit.
        methods: The HTTP methods that are affected. Empty means all.
    """

    rate: Rate = 1.0
    count: Count | Literal[0] | None = None
    methods: list[str] = field(default_factory=list)

    def strikes(self, method: str) -> bool:
        """Returns whether the fault affects this request, and counts it if so."""
        if self.count == 0 or (self.methods and method not in self.methods) or random.random() >= self.rate:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Latency(Fault):
    """The request waits for the given number of seconds before it is processed."""

    seconds: Seconds


class TooMany(Fault):
    """The answer is 429, with the given number of seconds in its Retry-After header."""

    retry_after: Seconds = 1.0


class Hold(Fault):
    """The request waits until DELETE /faults, either before it is processed or before its reply is sent."""

    stage: Literal["before", "after"] = "before"


class Faults(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The body of PUT /faults. Faults that it does not contain are off.

    Attributes:
        latency: The reply is delayed.
        too_many_requests: The answer is 429.
        server_error: The answer is 500.
        drop: The connection is dropped before the request is processed.
        lost_reply: The request is processed, then the connection is dropped.
        hold: The request gets no answer until it is released.
    """

    latency: Latency | None = None
    too_many_requests: TooMany | None = None
    server_error: Fault | None = None
    drop: Fault | None = None
    lost_reply: Fault | None = None
    hold: Hold | None = None


class FaultReport(Struct):
    """The answer of GET /faults: the active faults, and the number of held requests."""

    faults: Faults
    held: int


class FaultInjector:
    """Applies the active faults to the requests under /bookings, and counts these requests by method."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.held = 0
        self._released = asyncio.Event()

    def report(self) -> FaultReport:
        """Returns the active faults and the number of held requests."""
        return FaultReport(self.faults, self.held)

    def clear(self) -> None:
        """Turns all faults off and releases the held requests."""
        self.faults = Faults()
        self._released.set()
        self._released = asyncio.Event()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Applies the active faults to a request."""
        if not request.path.startswith("/bookings"):
            return await handler(request)
        self.requests[request.method] += 1
        await request.read()  # so that the request is processed even if the client disconnects
        on, method = self.faults, request.method
        if on.latency and on.latency.strikes(method):
            await asyncio.sleep(on.latency.seconds)
        if on.drop and on.drop.strikes(method):
            return drop(request)
        if on.too_many_requests and on.too_many_requests.strikes(method):
            wait = on.too_many_requests.retry_after
            raise ProblemError(
                429, "too_many_requests", f"Too many requests; wait {wait:g} s.", retry_after=wait
            )
        if on.server_error and on.server_error.strikes(method):
            raise ProblemError(500, "internal_error", "Something went wrong at the airline. Retry later.")
        return await self._carry_out(request, handler, on)

    async def _carry_out(self, request: web.Request, handler: Handler, on: Faults) -> web.StreamResponse:
        hold = on.hold if on.hold and on.hold.strikes(request.method) else None
        if hold and hold.stage == "before":
            await self._hold()
        lost = bool(on.lost_reply and on.lost_reply.strikes(request.method))
        try:
            response = await handler(request)
        except ProblemError:
            if lost:
                return drop(request)
            raise
        if hold and hold.stage == "after":
            await self._hold()
        return drop(request) if lost else response

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self._released.wait()
        finally:
            self.held -= 1


def drop(request: web.Request) -> web.Response:
    """Resets the connection. The returned response is never sent."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)
