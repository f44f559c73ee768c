"""When a settled ticket is compared with its booking."""

import asyncio
from typing import NamedTuple


class Comparison(NamedTuple):
    """The last one of a ticket: when (loop time), and what was known of the ticket then."""

    at: float
    known: str


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

    def due(self, uid: str, known: str) -> bool:
        """Whether to look the ticket's booking up now.

        Args:
            uid: The ticket's.
            known: A person's request and what the status says of the booking: a change is a person's doing.
        """
        last = self._last.get(uid)
        if last is None:
            self._last[uid] = Comparison(float("-inf"), known)
            return False
        waited = asyncio.get_running_loop().time() - last.at
        return known != last.known or (self._period > 0 and waited >= self._period / 2)

    def done(self, uid: str, known: str) -> None:
        """The ticket's booking has just been seen to be right, or made so."""
        self._last[uid] = Comparison(asyncio.get_running_loop().time(), known)

    def forget(self, uid: str) -> None:
        """The ticket goes."""
        self._last.pop(uid, None)
