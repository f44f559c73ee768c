"""A model of the airline in memory, for the fault matrix, whose runs are too many for a real service.

`test_model_airline` compares it with the real service.
"""

from flights_operator.booking import Booking, Trip
from flights_operator.errors import (
    NoAnswerError,
    ReferenceExistsError,
    RejectedError,
    StaleBookingError,
    ThrottledError,
)
from pilothouse.testing.faults import Errors, Fault


class ModelAirline:
    """A model with the methods and errors of `flights_operator.airline.Airline`.

    Attributes:
        bookings: The bookings, by reference.
        effects: What has been done, oldest first, for example "created" and the reference.
    """

    def __init__(self) -> None:
        self.bookings: dict[str, Booking] = {}
        self.effects: list[str] = []
        self._closed: set[str] = set()
        self._answers: dict[str, Booking] = {}
        self._made = 0

    async def find(self, reference: str) -> Booking | None:
        return self.bookings.get(reference)

    async def book(self, reference: str, trip: Trip) -> Booking:
        if reference in self._closed:
            raise RejectedError("the reference is closed", status=409, code="reference_closed")
        if reference in self.bookings:
            raise ReferenceExistsError("the reference exists", status=409, code="reference_exists")
        self._made += 1
        return self._keep("created", Booking(f"B-{self._made}", reference, *trip, version=1))

    async def change(self, booking: Booking, trip: Trip, *, key: str) -> Booking:
        if key in self._answers:
            return self._answers[key]
        held = self.bookings.get(booking.reference)
        if held is None or held.id != booking.id:
            raise StaleBookingError("it is gone", status=404, code="not_found")
        if held.version != booking.version:
            raise StaleBookingError("it has changed", status=412, code="version_changed")
        self._answers[key] = self._keep(
            "changed", Booking(held.id, held.reference, *trip, version=held.version + 1)
        )
        return self._answers[key]

    async def cancel(self, reference: str) -> Booking | None:
        held = self.bookings.pop(reference, None)
        if held is not None:
            self.effects.append(f"cancelled {reference}")
        if reference not in self._closed:
            self._closed.add(reference)
            self.effects.append(f"closed {reference}")
        return held

    def change_at_the_desk(self, reference: str, seats: int) -> None:
        """Changes a booking as the airline's staff would."""
        held = self.bookings[reference]
        trip = Trip(held.origin, held.destination, seats)
        self._keep("changed", Booking(held.id, reference, *trip, version=held.version + 1))

    def cancel_at_the_desk(self, reference: str) -> None:
        """Cancels a booking as the airline's staff would: the reference can be booked again."""
        del self.bookings[reference]
        self.effects.append(f"cancelled {reference}")

    def _keep(self, what: str, booking: Booking) -> Booking:
        self.bookings[booking.reference] = booking
        self.effects.append(f"{what} {booking.reference}")
        return booking


#: The methods that change nothing.
READS = ("find",)

#: The exceptions with which the real client reports faults.
ERRORS: Errors = {
    Fault.REPLY_LOST: lambda: NoAnswerError("the connection was lost"),
    Fault.CONFLICT: lambda: StaleBookingError("injected", status=412),
    Fault.THROTTLED: lambda: ThrottledError("slow down", retry_after=3),
    Fault.ERROR_BEFORE: lambda: NoAnswerError("500"),
    Fault.ERROR_AFTER: lambda: NoAnswerError("500"),
}
