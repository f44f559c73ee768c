"""The airline's booking API, as far as the operator uses it.

A booking is known by its *reference*, the UID of its ticket, and the airline keeps references unique. So
every call can be repeated after a crash or a lost reply without booking twice:

- `book` a second time raises ReferenceExistsError;
- `change` is meant for one version of the booking (If-Match), and carries an Idempotency-Key;
- `cancel` goes by the reference and closes it, so that a `book` which is still under way comes too late.
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
    "airline_circuit_open", "1 while requests are held back because the last ones failed.", registry=REGISTRY
)

T = TypeVar("T")

_booking: Callable[[bytes], Booking] = msgspec.json.Decoder(Booking).decode
_page: Callable[[bytes], BookingPage] = msgspec.json.Decoder(BookingPage).decode


class Airline:
    """Client of the booking API, an async context manager; one for the whole process.

    Every method raises AirlineErrors: a TransientError when asking later may help, else a RejectedError.

    Args:
        settings: Where the airline is, and how it is to be treated.
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
        """The booking that has this reference."""
        items = decode(await self._call("GET", "bookings", query={"reference": reference}), _page).items
        return next((booking for booking in items if booking.reference == reference), None)

    async def book(self, reference: str, trip: Trip) -> Booking:
        """Books seats.

        Raises:
            ReferenceExistsError: The reference has a booking: of an earlier attempt, or of another operator.
        """
        body = {"reference": reference, "from": trip.origin, "to": trip.destination, "seats": trip.seats}
        return _of(reference, decode(await self._call("POST", "bookings", body=body), _booking))

    async def change(self, booking: Booking, trip: Trip, *, key: str) -> Booking:
        """Changes a booking that is still what it was when it was read.

        Args:
            booking: The booking as it was read.
            trip: What it shall be.
            key: The Idempotency-Key: the same for the same change of the same version.

        Raises:
            StaleBookingError: It is gone, or has changed since.
        """
        body = {"from": trip.origin, "to": trip.destination, "seats": trip.seats}
        headers = {"Idempotency-Key": key, "If-Match": f'"{booking.version}"'}
        answer = await self._call("PATCH", f"bookings/{booking.id}", body=body, headers=headers)
        return _of(booking.reference, decode(answer, _booking))

    async def cancel(self, reference: str) -> Booking | None:
        """Cancels the booking that has this reference, for good.

        Returns:
            What was cancelled; None when there was nothing, or nothing any more.
        """
        answer = await self._call("DELETE", "bookings", query={"reference": reference})
        return decode(answer, _booking) if answer else None

    async def _call(self, method: str, path: str, **content: Any) -> bytes:
        return await self._resilience.call(lambda: self._transport.request(method, path, **content))


def decode(body: bytes, read: Callable[[bytes], T]) -> T:
    """The answer as a typed object; raises NoAnswerError when it is something else."""
    try:
        return read(body)
    except msgspec.DecodeError as error:
        raise NoAnswerError(f"The airline's answer is not what its API describes: {error}") from error


def _of(reference: str, booking: Booking) -> Booking:
    """The booking, if it is one, and the one that was asked for; NoAnswerError else."""
    if not booking.id or booking.reference != reference or booking.seats < 0:
        raise NoAnswerError(
            f"The airline's answer is not the booking that was asked for ({reference}): it tells booking "
            f"{booking.id!r} of {booking.reference!r} with {booking.seats} seats"
        )
    return booking
