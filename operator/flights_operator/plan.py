"""Decides the next step for a ticket from its spec and its booking, without any I/O."""

from dataclasses import dataclass

from flights_operator.booking import Booking, Trip
from flights_operator.types import FlightTicketSpec

MIN_SEATS, MAX_SEATS = 1, 10
# The longest city name that the airline accepts, in characters (examples/booking_api/openapi.json).
MAX_CITY = 100


@dataclass(frozen=True)
class Book:
    """The ticket has no booking: create one."""

    trip: Trip


@dataclass(frozen=True)
class Change:
    """The booking differs from the spec: change it."""

    booking: Booking
    trip: Trip

    @property
    def diff(self) -> str:
        """The differences, for example "seats: 2 -> 4"."""
        names = {"origin": "from", "destination": "to", "seats": "seats"}
        old, new = self.booking.trip._asdict(), self.trip._asdict()
        return ", ".join(f"{names[key]}: {old[key]} -> {new[key]}" for key in names if old[key] != new[key])


@dataclass(frozen=True)
class Keep:
    """The booking matches the spec: do nothing."""

    booking: Booking


Step = Book | Change | Keep


def decide(wanted: Trip, booking: Booking | None) -> Step:
    """Returns the next step towards a booking that matches the ticket.

    Args:
        wanted: The trip in the ticket's spec.
        booking: The ticket's booking at the airline. None if there is none.
    """
    if booking is None:
        return Book(wanted)
    if booking.trip != wanted:
        return Change(booking, wanted)
    return Keep(booking)


def mistakes(spec: FlightTicketSpec) -> list[str]:
    """Returns the mistakes in a spec, each with the field, its value and how to correct it.

    The CRD rejects most of them, but a ticket that was stored under an older CRD may still have them.
    """
    found = []
    for name, city, example in (("from", spec.from_, "Mumbai"), ("to", spec.to, "London")):
        if not city.strip():
            found.append(f"spec.{name} is {city!r}: set a city, for example {example}")
        elif len(city) > MAX_CITY:
            found.append(f"spec.{name} has {len(city)} characters: use at most {MAX_CITY}")
        elif not city.isprintable():
            found.append(f"spec.{name} is {city!r}: remove the control characters")
    if spec.from_ == spec.to and not found:
        found.append(f"spec.from and spec.to are both {spec.to!r}: set two different cities")
    if not MIN_SEATS <= spec.number <= MAX_SEATS:
        found.append(f"spec.number is {spec.number}: set {MIN_SEATS} to {MAX_SEATS} seats")
    return found
