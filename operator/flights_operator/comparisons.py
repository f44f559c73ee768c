"""When a settled ticket is compared with its booking, and what the last comparison has shown."""

import asyncio
from sys import intern

import msgspec

from flights_operator.booking import Booking, Trip


class Comparison(msgspec.Struct, frozen=True, gc=False):
    """The last one of a ticket.

    Of the booking just enough is kept to change it, in a flat struct: in a store of many tickets, all of it
    would cost as much again as the tickets do.

    Attributes:
        at: When it was, loop time.
        known: A hash of what was known of the ticket then.
        origin: Where the booking's trip started.
        destination: Where it went.
        seats: How many seats it held.
        version: The booking's; None: the booking was not looked at.
    """

    at: float
    known: int
    origin: str = ""
    destination: str = ""
    seats: int = 0
    version: int | None = None

    @property
    def trip(self) -> Trip:
        """What the booking held."""
        return Trip(self.origin, self.destination, self.seats)


class Comparisons:
    """Spreads the look-ups of settled tickets: each about once a resync, none at first sight.

    After a restart nothing asks the airline about 1,000 settled tickets at once; the resync, which walks over
    them at an even pace, does. Of what else has a ticket played, only a person's doing reaches the airline: a
    request to compare, or a status changed by hand.

    Args:
        period: The resync period, seconds; 0: never compare.
    """

    def __init__(self, period: float) -> None:
        self._period = period
        self._last: dict[str, Comparison] = {}

    def due(self, uid: str, known: int) -> bool:
        """Whether to look the ticket's booking up now.

        Args:
            uid: The ticket's.
            known: A hash of a person's request and of what the status says of the booking: a change is a
                person's doing.
        """
        last = self._last.get(uid)
        if last is None:
            self._last[uid] = Comparison(float("-inf"), known)
            return False
        waited = asyncio.get_running_loop().time() - last.at
        return known != last.known or (self._period > 0 and waited >= self._period / 2)

    def done(self, uid: str, known: int, booking: Booking) -> None:
        """The ticket's booking has just been seen to be right, or made so."""
        now = asyncio.get_running_loop().time()
        # Bookings of one city share its name, with each other and with the tickets.
        cities = intern(booking.origin), intern(booking.destination)
        self._last[uid] = Comparison(now, known, *cities, booking.seats, booking.version)

    def last(self, uid: str, known: int) -> Comparison | None:
        """What the last comparison has shown, if nobody has changed what is known of the ticket since."""
        last = self._last.get(uid)
        return last if last is not None and last.version is not None and last.known == known else None

    def forget(self, uid: str) -> None:
        """The ticket goes."""
        self._last.pop(uid, None)
