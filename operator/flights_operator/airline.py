"""A client of the part of the airline's booking API that the operator uses.

The UID of a ticket is the *reference* of its booking, and the airline keeps references unique. Every call can
therefore be repeated after a crash or a lost reply without booking twice:

- `book` raises ReferenceExistsError if the reference already has a booking.
- `change` applies to one version of the booking (If-Match) and carries an Idempotency-Key.
- `cancel` cancels by reference and closes the reference. The airline then rejects a `book` request that is
  still in flight.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import msgspec
from prometheus_client import Gauge

from flights_operator.booking import Booking, BookingPage, Trip
from flights_operator.errors import NoAnswerError
from flights_operator.resilience import BreakerState, CircuitBreaker, Resilience, RetryPolicy
from flights_operator.settings import FlightsSettings
from flights_operator.transport import Transport
from pilothouse.telemetry import REGISTRY

CIRCUIT = Gauge(
    "airline_circuit_open", "1 while no requests are sent because the last ones failed.", registry=REGISTRY
)

T = TypeVar("T")

_booking: Callable[[bytes], Booking] = msgspec.json.Decoder(Booking).decode
_page: Callable[[bytes], BookingPage] = msgspec.json.Decoder(BookingPage).decode


class Airline:
    """A client of the booking API, as an async context manager. A process uses one client.

    Every method raises an AirlineError: a TransientError if a later retry may succeed, otherwise a
    RejectedError.

    Args:
        settings: The airline's address, and the limits for requests to it.
    """

    def __init__(self, settings: FlightsSettings) -> None:
        self._transport = Transport(settings)
        breaker = CircuitBreaker()
        self._resilience = Resilience(settings.rate, 2 * settings.rate, RetryPolicy(), breaker)
        CIRCUIT.set_function(lambda: breaker.state is not BreakerState.CLOSED)

    async def __aenter__(self) -> "Airline":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def find(self, reference: str) -> Booking | None:
        """Returns the booking with this reference, or None if there is none."""
        items = decode(await self._call("GET", "bookings", query={"reference": reference}), _page).items
        return next((booking for booking in items if booking.reference == reference), None)

    async def book(self, reference: str, trip: Trip) -> Booking:
        """Books seats.

        Raises:
            ReferenceExistsError: The reference already has a booking, made by an earlier attempt or by
                another operator.
        """
        body = {"reference": reference, "from": trip.origin, "to": trip.destination, "seats": trip.seats}
        return _checked(reference, decode(await self._call("POST", "bookings", body=body), _booking))

    async def change(self, booking: Booking, trip: Trip, *, key: str) -> Booking:
        """Changes a booking, provided that it has not changed since it was read.

        Args:
            booking: The booking as it was read.
            trip: The new route and number of seats.
            key: The Idempotency-Key. The same change of the same version must use the same key.

        Raises:
            StaleBookingError: The booking no longer exists, or has changed since it was read.
        """
        body = {"from": trip.origin, "to": trip.destination, "seats": trip.seats}
        headers = {"Idempotency-Key": key, "If-Match": f'"{booking.version}"'}
        answer = await self._call("PATCH", f"bookings/{booking.id}", body=body, headers=headers)
        return _checked(booking.reference, decode(answer, _booking))

    async def cancel(self, reference: str) -> Booking | None:
        """Cancels the booking with this reference, and closes the reference.

        Returns:
            The cancelled booking, or None if there was no booking with this reference.
        """
        answer = await self._call("DELETE", "bookings", query={"reference": reference})
        return decode(answer, _booking) if answer else None

    async def _call(self, method: str, path: str, **content: Any) -> bytes:
        return await self._resilience.call(lambda: self._transport.request(method, path, **content))


def decode(body: bytes, read: Callable[[bytes], T]) -> T:
    """Decodes a response body.

    Raises:
        NoAnswerError: The body does not have the format that the API describes.
    """
    try:
        return read(body)
    except msgspec.DecodeError as error:
        raise NoAnswerError(f"The airline's answer does not match its API description: {error}") from error


def _checked(reference: str, booking: Booking) -> Booking:
    """Returns the booking after checking that it is valid and has the requested reference."""
    if not booking.id or booking.reference != reference or booking.seats < 0:
        raise NoAnswerError(
            f"The airline's answer is not the requested booking with the reference {reference}: it has "
            f"the id {booking.id!r}, the reference {booking.reference!r} and {booking.seats} seats"
        )
    return booking
