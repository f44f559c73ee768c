"""What the booking API takes and returns: the types behind openapi.json."""

import hashlib
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

City = Annotated[str, Meta(min_length=1, max_length=100)]
Seats = Annotated[int, Meta(ge=1, le=10)]
Reference = Annotated[str, Meta(min_length=1, max_length=100)]


class Price(Struct, frozen=True):
    """What a booking costs: a decimal amount and an ISO 4217 currency."""

    amount: str
    currency: str


class NewBooking(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /bookings."""

    reference: Reference
    from_: City = msgspec.field(name="from")
    to: City
    seats: Seats


class BookingChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PATCH /bookings/{id}: what is left out stays as it is."""

    from_: City | UnsetType = msgspec.field(name="from", default=UNSET)
    to: City | UnsetType = UNSET
    seats: Seats | UnsetType = UNSET


class Booking(Struct, frozen=True):
    """One booking. `version` grows by one with every change and is the ETag that PATCH compares."""

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
    """One page of bookings; `next` is the `after` of the page that follows, null on the last one."""

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
    """One mutation that happened: `action` is created, changed, cancelled or closed (its reference)."""

    sequence: int
    at: str
    action: str
    booking_id: str
    reference: str
    from_: str = msgspec.field(name="from")
    to: str
    seats: int


class AuditPage(Struct, frozen=True):
    """Mutations in the order in which they happened."""

    items: list[AuditEntry]
    next: str | None = None


class Statistics(Struct, frozen=True):
    """What the service has done since it started, and what it holds."""

    bookings: int
    seats: int
    requests: dict[str, int]


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details; `code` is for machines, `detail` for people."""

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
    """The present time in UTC, RFC 3339 with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fare_cents(origin: str, destination: str) -> int:
    """The price of one seat in cents: between 80 and 1,280 USD, always the same for the same route."""
    digest = hashlib.sha256(f"{origin}\0{destination}".encode()).digest()
    return 8_000 + int.from_bytes(digest[:4]) % 1_200 * 100


def price(origin: str, destination: str, seats: int) -> Price:
    """The price of so many seats on a route."""
    cents = fare_cents(origin, destination) * seats
    return Price(amount=f"{cents // 100}.{cents % 100:02d}", currency="USD")
