"""What to do next, decided from what was seen and from nothing else."""

from dataclasses import dataclass

from flights_operator.booking import Booking, Trip
from flights_operator.types import FlightTicketSpec

MIN_SEATS, MAX_SEATS = 1, 10
# Characters that the airline takes for a city (examples/booking_api/openapi.json).
MAX_CITY = 100


@dataclass(frozen=True)
class Book:
    """There is no booking: make one."""

    trip: Trip


@dataclass(frozen=True)
class Change:
    """The booking is another than the one asked for: change it."""

    booking: Booking
    trip: Trip

    @property
    def diff(self) -> str:
        """What becomes different, such as "seats: 2 -> 4"."""
        names = {"origin": "from", "destination": "to", "seats": "seats"}
        old, new = self.booking.trip._asdict(), self.trip._asdict()
        return ", ".join(f"{names[key]}: {old[key]} -> {new[key]}" for key in names if old[key] != new[key])


@dataclass(frozen=True)
class Keep:
    """The booking is what is asked for."""

    booking: Booking


Step = Book | Change | Keep


def decide(wanted: Trip, booking: Booking | None) -> Step:
    """The next step towards a booking that is what the ticket asks for.

    Args:
        wanted: What the ticket asks for.
        booking: What the airline holds for it.
    """
    if booking is None:
        return Book(wanted)
    if booking.trip != wanted:
        return Change(booking, wanted)
    return Keep(booking)


def mistakes(spec: FlightTicketSpec) -> list[str]:
    """What is wrong with a spec: field, value and remedy of each mistake.

    The CRD refuses most of them; a ticket that was stored under an older CRD may have them all the same.
    """
    found = []
    for name, city, example in (("from", spec.from_, "Mumbai"), ("to", spec.to, "London")):
        if not city.strip():
            found.append(f"spec.{name} is {city!r}: name a city, for example {example}")
        elif len(city) > MAX_CITY:
            found.append(f"spec.{name} has {len(city)} characters: name a city in at most {MAX_CITY}")
        elif not city.isprintable():
            found.append(f"spec.{name} is {city!r}: name a city without control characters")
    if spec.from_ == spec.to and not found:
        found.append(f"spec.from and spec.to are both {spec.to!r}: name two different cities")
    if not MIN_SEATS <= spec.number <= MAX_SEATS:
        found.append(f"spec.number is {spec.number}: ask for {MIN_SEATS} to {MAX_SEATS} seats")
    return found
