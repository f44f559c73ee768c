"""When a settled ticket is compared with its booking, and what the last comparison has shown."""

import asyncio
from typing import NamedTuple

from flights_operator.booking import Booking, Trip


class Comparison(NamedTuple):
    """The last one of a ticket.

    Of the booking just enough is kept to change it: in a store of many tickets, all of it would cost as much
    again as the tickets do.

    Attributes:
        at: When it was, loop time.
        known: A hash of what was known of the ticket then.
        trip: What the booking held; None: it was not looked at.
        version: The booking's.
    """

    at: float
    known: int
    trip: Trip | None = None
    version: int = 0


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
        self._last[uid] = Comparison(now, known, booking.trip, booking.version)

    def last(self, uid: str, known: int) -> Comparison | None:
        """What the last comparison has shown, if nobody has changed what is known of the ticket since."""
        last = self._last.get(uid)
        return last if last is not None and last.trip is not None and last.known == known else None

    def forget(self, uid: str) -> None:
        """The ticket goes."""
        self._last.pop(uid, None)
