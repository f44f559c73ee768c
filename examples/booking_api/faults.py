"""Faults that can be switched on, to see what a client makes of them."""

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
    """When a fault strikes.

    Attributes:
        rate: The part of the requests that it hits, 0 to 1.
        count: How many more requests it hits; null: without end.
        methods: The HTTP methods that it hits; empty: all.
    """

    rate: Rate = 1.0
    count: Count | Literal[0] | None = None
    methods: list[str] = field(default_factory=list)

    def strikes(self, method: str) -> bool:
        """Whether it hits this request; counts it if so."""
        if self.count == 0 or (self.methods and method not in self.methods) or random.random() >= self.rate:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Latency(Fault):
    """The request waits for so many seconds before it is worked on."""

    seconds: Seconds


class TooMany(Fault):
    """429, with a Retry-After header of so many seconds."""

    retry_after: Seconds = 1.0


class Hold(Fault):
    """The request waits until DELETE /faults: before it is worked on, or after that and before the reply."""

    stage: Literal["before", "after"] = "before"


class Faults(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The body of PUT /faults. What is left out is off.

    Attributes:
        latency: The reply comes late.
        too_many_requests: 429.
        server_error: 500.
        drop: The connection is dropped before anything is done.
        lost_reply: The request is carried out, then the connection is dropped.
        hold: The request stays unanswered until it is released.
    """

    latency: Latency | None = None
    too_many_requests: TooMany | None = None
    server_error: Fault | None = None
    drop: Fault | None = None
    lost_reply: Fault | None = None
    hold: Hold | None = None


class FaultReport(Struct):
    """What GET /faults shows: what is on, with the counts that are left, and how many requests are held."""

    faults: Faults
    held: int


class FaultInjector:
    """Applies the faults that are on to the requests under /bookings, and counts those requests by method."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.held = 0
        self._released = asyncio.Event()

    def report(self) -> FaultReport:
        """What is on at present."""
        return FaultReport(self.faults, self.held)

    def clear(self) -> None:
        """Switches everything off and releases the requests that are held."""
        self.faults = Faults()
        self._released.set()
        self._released = asyncio.Event()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a request through the faults."""
        if not request.path.startswith("/bookings"):
            return await handler(request)
        self.requests[request.method] += 1
        await request.read()  # what was received is carried out, even when the client is gone by then
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
            raise ProblemError(500, "internal_error", "Something went wrong at the airline; try again.")
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
    """Resets the connection; the response that it returns goes nowhere."""
    if request.transport:
        request.transport.abort()
    return web.Response(status=500)
