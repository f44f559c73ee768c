"""The HTTP server: routes, the check of the API key, problem details."""

import hashlib
import re
from importlib import resources
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from booking_api.faults import FaultInjector, Faults
from booking_api.keys import ApiKeys
from booking_api.ledger import Answer, Idempotency, Ledger
from booking_api.model import (
    BookingChange,
    BookingPage,
    Capacity,
    NewBooking,
    Problem,
    ProblemError,
    Statistics,
)

OPEN_PATHS = frozenset({"/healthz", "/openapi.json"})
PAGE_DEFAULT, PAGE_MAX = 100, 500

T = TypeVar("T")


class BookingApi:
    """The service with a handler for each route.

    Args:
        ledger: The open store.
        keys: The accepted API keys.
    """

    def __init__(self, ledger: Ledger, keys: ApiKeys) -> None:
        self.ledger = ledger
        self.keys = keys
        self.faults = FaultInjector()
        self.document = resources.files("booking_api").joinpath("openapi.json").read_bytes()

    def application(self) -> web.Application:
        """Returns the aiohttp application with all routes."""
        app = web.Application(middlewares=[problems, self.require_key, self.faults.middleware])
        app.add_routes(
            [
                web.get("/healthz", self.health, allow_head=False),
                web.get("/openapi.json", self.openapi, allow_head=False),
                web.get("/bookings", self.find, allow_head=False),
                web.post("/bookings", self.create),
                web.delete("/bookings", self.close_reference),
                web.get("/bookings/{id}", self.read, allow_head=False),
                web.patch("/bookings/{id}", self.change),
                web.delete("/bookings/{id}", self.cancel),
                web.get("/flights/{from}/{to}", self.flight, allow_head=False),
                web.put("/flights/{from}/{to}", self.set_capacity),
                web.get("/audit", self.audit, allow_head=False),
                web.get("/statistics", self.statistics, allow_head=False),
                web.get("/faults", self.show_faults, allow_head=False),
                web.put("/faults", self.set_faults),
                web.delete("/faults", self.clear_faults),
            ]
        )
        app.on_shutdown.append(self.release)
        return app

    @web.middleware
    async def require_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Rejects a request without an accepted key."""
        if request.path not in OPEN_PATHS and not await self.keys.accepts(presented_key(request)):
            raise ProblemError(
                401, "unauthorized", "The API key is missing or not accepted; send it as X-API-Key."
            )
        return await handler(request)

    async def health(self, request: web.Request) -> web.Response:
        """Answers 200 if the database works."""
        await self.ledger.run(self.ledger.totals)
        return web.Response(text="ok")

    async def openapi(self, request: web.Request) -> web.Response:
        """Returns the API's OpenAPI document."""
        return web.Response(body=self.document, content_type="application/json")

    async def find(self, request: web.Request) -> web.Response:
        """Returns a page of all bookings, or the booking with `reference`."""
        reference = request.query.get("reference")
        if reference is not None:
            booking = await self.ledger.run(self.ledger.by_reference, reference)
            return reply(BookingPage([booking] if booking else []))
        after, limit = page_window(request)
        return reply(await self.ledger.run(self.ledger.page, after=after, limit=limit))

    async def create(self, request: web.Request) -> web.Response:
        """Books seats."""
        new = await decode(request, NewBooking)
        key = await idempotency(request)
        answer = await self.ledger.run(self.ledger.once, key, lambda: self.ledger.create(new))
        return booking_reply(answer)

    async def close_reference(self, request: web.Request) -> web.Response:
        """Cancels by reference, and closes the reference: it cannot be booked again."""
        reference = request.query.get("reference", "")
        if not reference:
            raise ProblemError(
                400, "invalid_request", "The reference is missing. Use DELETE /bookings?reference=..."
            )
        booking = await self.ledger.run(self.ledger.close_reference, reference)
        return booking_reply(Answer(200, booking)) if booking else web.Response(status=204)

    async def read(self, request: web.Request) -> web.Response:
        """Returns one booking."""
        return booking_reply(Answer(200, await self.ledger.run(self.ledger.get, request.match_info["id"])))

    async def change(self, request: web.Request) -> web.Response:
        """Changes seats or route."""
        change = await decode(request, BookingChange)
        key, version, booking_id = await idempotency(request), if_match(request), request.match_info["id"]
        answer = await self.ledger.run(
            self.ledger.once, key, lambda: self.ledger.change(booking_id, change, version=version)
        )
        return booking_reply(answer)

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancels one booking. Its reference can be used again."""
        key, booking_id = await idempotency(request), request.match_info["id"]
        return booking_reply(
            await self.ledger.run(self.ledger.once, key, lambda: self.ledger.cancel(booking_id))
        )

    async def flight(self, request: web.Request) -> web.Response:
        """Returns a route's seats and fare."""
        return reply(await self.ledger.run(self.ledger.flight, *route(request)))

    async def set_capacity(self, request: web.Request) -> web.Response:
        """Sets the seats of a route."""
        body = await decode(request, Capacity)
        return reply(await self.ledger.run(self.ledger.set_capacity, *route(request), body.capacity))

    async def audit(self, request: web.Request) -> web.Response:
        """Returns a page of the audit log."""
        after, limit = page_window(request)
        return reply(await self.ledger.run(self.ledger.audit, after=after, limit=limit))

    async def statistics(self, request: web.Request) -> web.Response:
        """Returns the totals."""
        bookings, seats = await self.ledger.run(self.ledger.totals)
        return reply(Statistics(bookings, seats, dict(self.faults.requests)))

    async def show_faults(self, request: web.Request) -> web.Response:
        """Returns the active faults."""
        return reply(self.faults.report())

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replaces the active faults. Held requests stay held."""
        self.faults.faults = await decode(request, Faults)
        return reply(self.faults.report())

    async def clear_faults(self, request: web.Request) -> web.Response:
        """Turns all faults off and releases the held requests."""
        self.faults.clear()
        return reply(self.faults.report())

    async def release(self, app: web.Application) -> None:
        """Releases the held requests at shutdown."""
        self.faults.clear()


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns errors of the handlers and of aiohttp into RFC 9457 problem details."""
    try:
        return await handler(request)
    except ProblemError as refused:
        headers = {} if refused.retry_after is None else {hdrs.RETRY_AFTER: f"{refused.retry_after:g}"}
        status, code, detail, booking_id = refused.status, refused.code, refused.detail, refused.booking_id
    except web.HTTPClientError as error:
        headers = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
        status, code, booking_id = error.status, error.reason.lower().replace(" ", "_"), ""
        detail = f"{request.method} {request.path}: {error.reason}."
    problem = Problem(code.replace("_", " ").capitalize(), status, code, detail, booking_id)
    return web.Response(
        status=status,
        headers=headers,
        body=msgspec.json.encode(problem),
        content_type="application/problem+json",
    )


def presented_key(request: web.Request) -> str:
    """Returns the key from X-API-Key or from Authorization: Bearer. Empty if there is none."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return request.headers.get("X-API-Key") or (token.strip() if scheme.lower() == "bearer" else "")


async def decode(request: web.Request, type_: type[T]) -> T:
    """Decodes the request's body.

    Raises:
        ProblemError: The body is not valid (400).
    """
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.DecodeError as error:
        raise ProblemError(400, "invalid_request", f"The body is not valid: {error}.") from error


async def idempotency(request: web.Request) -> Idempotency | None:
    """Returns the request's Idempotency-Key and a digest of the request. None if it has no key."""
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return None
    if len(key) > 255:
        raise ProblemError(
            400, "invalid_request", f"The Idempotency-Key has {len(key)} characters. Use at most 255."
        )
    asked = b"\0".join([request.method.encode(), request.path.encode(), await request.read()])
    return Idempotency(key, hashlib.sha256(asked).hexdigest())


def if_match(request: web.Request) -> int | None:
    """Returns the version in If-Match. None means any version."""
    header = request.headers.get(hdrs.IF_MATCH, "*").strip()
    if header == "*":
        return None
    matched = re.fullmatch(r'"(\d{1,18})"', header)
    if not matched:
        raise ProblemError(400, "invalid_request", f"If-Match is {header!r}. Send the booking's ETag.")
    return int(matched[1])


def page_window(request: web.Request) -> tuple[int, int]:
    """Returns `after` and `limit` from the query."""
    window = []
    for name, default in (("after", 0), ("limit", PAGE_DEFAULT)):
        value = request.query.get(name, str(default))
        if not re.fullmatch(r"\d{1,18}", value):
            raise ProblemError(400, "invalid_request", f"{name} is {value!r}. Use a number.")
        window.append(int(value))
    return window[0], min(max(window[1], 1), PAGE_MAX)


def route(request: web.Request) -> tuple[str, str]:
    """Returns the two cities of a flight's path."""
    return request.match_info["from"], request.match_info["to"]


def reply(body: object) -> web.Response:
    """Returns a 200 answer with a JSON body."""
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def booking_reply(answer: Answer) -> web.Response:
    """Returns an answer with a booking and its ETag."""
    return web.Response(
        status=answer.status,
        headers={hdrs.ETAG: f'"{answer.booking.version}"'},
        body=msgspec.json.encode(answer.booking),
        content_type="application/json",
    )
