"""The types of the booking API's requests and answers, which openapi.json describes."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

City = Annotated[str, Meta(min_length=1, max_length=100)]
Seats = Annotated[int, Meta(ge=1, le=10)]
Reference = Annotated[str, Meta(min_length=1, max_length=100)]


class Price(Struct, frozen=True):
    """The price of a booking: a decimal amount and an ISO 4217 currency."""

    amount: str
    currency: str


class NewBooking(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /bookings."""

    reference: Reference
    from_: City = msgspec.field(name="from")
    to: City
    seats: Seats


class BookingChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /bookings/{id}. Fields that it does not contain stay unchanged."""

    from_: City | UnsetType = msgspec.field(name="from", default=UNSET)
    to: City | UnsetType = UNSET
    seats: Seats | UnsetType = UNSET


class Booking(Struct, frozen=True):
    """A booking. `version` increases by one with every change. It is the ETag that PATCH compares."""

    id: str
    reference: str
    from_: str = msgspec.field(name="from")
    to: str
    seats: int
    price: Price
    version: int
    created_at: str
    updated_at: str


class BookingPage(Struct, frozen=True):
    """A page of bookings. `next` is the value of `after` for the next page, or null on the last page."""

    items: list[Booking]
    next: str | None = None


class Capacity(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /flights/{from}/{to}."""

    capacity: Annotated[int, Meta(ge=0)]


class Flight(Struct, frozen=True):
    """A route with its seats and its price per seat."""

    from_: str = msgspec.field(name="from")
    to: str
    capacity: int
    booked: int
    fare: Price


class AuditEntry(Struct, frozen=True):
    """A change in the audit log. `action` is created, changed, cancelled, or closed (for a reference)."""

    sequence: int
    at: str
    action: str
    booking_id: str
    reference: str
    from_: str = msgspec.field(name="from")
    to: str
    seats: int


class AuditPage(Struct, frozen=True):
    """A page of the audit log, oldest change first."""

    items: list[AuditEntry]
    next: str | None = None


class Statistics(Struct, frozen=True):
    """The numbers of bookings and seats, and the requests by method since the service started."""

    bookings: int
    seats: int
    requests: dict[str, int]


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details. `code` is for programs, `detail` is for people."""

    title: str
    status: int
    code: str
    detail: str
    booking_id: str = ""


class ProblemError(Exception):
    """A request that the service answers with a problem."""

    def __init__(
        self, status: int, code: str, detail: str, *, booking_id: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.booking_id = booking_id
        self.retry_after = retry_after


def timestamp() -> str:
    """Returns the current time in UTC, as RFC 3339 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fare_cents(origin: str, destination: str) -> int:
    """Returns the price of one seat in cents, between 80 and 1,280 USD. A route always has the same price."""
    digest = hashlib.sha256(f"{origin}\0{destination}".encode()).digest()
    return 8_000 + int.from_bytes(digest[:4]) % 1_200 * 100


def price(origin: str, destination: str, seats: int) -> Price:
    """Returns the price of the given number of seats on a route."""
    cents = fare_cents(origin, destination) * seats
    return Price(amount=f"{cents // 100}.{cents % 100:02d}", currency="USD")
