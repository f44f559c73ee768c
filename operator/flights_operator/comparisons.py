"""Decides when a settled ticket is compared with its booking, and remembers the last comparison."""

import asyncio
from sys import intern

import msgspec

from flights_operator.booking import Booking, Trip


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """The last comparison of a ticket with its booking.

    It keeps only the fields of the booking that are needed to change it, in a flat struct. With many tickets,
    complete bookings would take as much memory as the tickets themselves.

    Attributes:
        at: The time of the comparison, in seconds of the event loop's clock.
        known: A hash of what was known of the ticket at that time.
        origin: The city that the booked trip starts from.
        destination: The city that the booked trip goes to.
        seats: The number of booked seats.
        version: The version of the booking. None if the booking has not been read yet.
    """

    at: float
    known: int
    origin: str = ""
    destination: str = ""
    seats: int = 0
    version: int | None = None

    @property
    def trip(self) -> Trip:
        """The booked route and number of seats."""
        return Trip(self.origin, self.destination, self.seats)


class Comparisons:
    """Spreads the lookups of settled tickets over the resync period.

    A ticket is not compared when this process sees it for the first time. So a restart does not send one
    request per settled ticket at the same time: the resync compares the tickets at an even pace. Between
    resyncs, a settled ticket is compared only if a user requested a reconcile or edited the status.

    Args:
        period: The resync period in seconds. 0 turns the regular comparison off.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._last: dict[str, Comparison] = {}

    def due(self, uid: str, known: int) -> bool:
        """Returns whether to look up the ticket's booking now.

        Args:
            uid: The UID of the ticket.
            known: A hash of the user's last reconcile request and of the booking's fields in the status. If
                it differs from the last comparison, a user changed one of them.
        """
        last = self._last.get(uid)
        if last is None:
            self._last[uid] = Comparison(float("-inf"), known)
            return False
        waited = asyncio.get_running_loop().time() - last.at
        return known != last.known or (self._period > 0 and waited >= self._period / 2)

    def done(self, uid: str, known: int, booking: Booking) -> None:
        """Records that the ticket's booking now matches its spec."""
        now = asyncio.get_running_loop().time()
        # Interning saves memory: bookings and tickets share one string per city.
        cities = intern(booking.origin), intern(booking.destination)
        self._last[uid] = Comparison(now, known, *cities, booking.seats, booking.version)

    def last(self, uid: str, known: int) -> Comparison | None:
        """Returns the last comparison, unless what is known of the ticket has changed since."""
        last = self._last.get(uid)
        return last if last is not None and last.version is not None and last.known == known else None

    def forget(self, uid: str) -> None:
        """Removes what is known of a ticket that is being deleted."""
        self._last.pop(uid, None)
