"""The data that the operator exchanges with the airline: trips, bookings, prices."""

from typing import NamedTuple

import msgspec


class Trip(NamedTuple):
    """Seats on a flight."""

    origin: str
    destination: str
    seats: int

    def __str__(self) -> str:
        return f"{self.seats} seat{'s' if self.seats != 1 else ''} from {self.origin} to {self.destination}"


class Price(msgspec.Struct, frozen=True, gc=False):
    """A decimal amount and its ISO 4217 currency."""

    amount: str
    currency: str

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}"


class Booking(msgspec.Struct, frozen=True, gc=False, rename={"origin": "from", "destination": "to"}):
    """A booking at the airline. The airline increments its version with every change."""

    id: str
    reference: str
    origin: str
    destination: str
    seats: int
    version: int
    price: Price | None = None

    @property
    def trip(self) -> Trip:
        """The route and the number of seats of the booking."""
        return Trip(self.origin, self.destination, self.seats)


class BookingPage(msgspec.Struct, frozen=True, gc=False):
    """The response to a lookup by reference."""

    items: list[Booking]
