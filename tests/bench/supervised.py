"""The operator as a kubelet runs it: started again whenever it ends. Why it did is kept, and its memory."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.bench.contestants import SHIPPED, Place
from tests.bench.usage import Contestant

#: How often its memory is read in a trial.
SAMPLES = 10


class Restart(NamedTuple):
    """Why the process ended.

    Attributes:
        exit_code: Its own; below zero: the signal that ended it.
        last_line: What it logged last; empty when that was nothing.
    """

    exit_code: int
    last_line: str

    @property
    def explained(self) -> bool:
        """Whether its last words say why it ended."""
        return bool(self.last_line)


class Supervised:
    """The operator, started again whenever it ends. Each process has a log of its own.

    Attributes:
        contestant: The process that runs now.
        restarts: Why the earlier ones have ended.
        samples: The memory that it held, MiB, in turn.

    Args:
        place: Where it works.
        trial: Names its logs.
    """

    def __init__(self, place: Place, trial: str) -> None:
        self.restarts: list[Restart] = []
        self.samples: list[float] = []
        self.contestant: Contestant
        self._place = place
        self._trial = trial

    async def run(self) -> None:
        """Until cancelled."""
        for number in itertools.count():
            with SHIPPED.start(self._place, f"{self._trial}-{number}") as contestant:
                self.contestant = contestant
                code = await asyncio.to_thread(contestant.wait)
            self.restarts.append(Restart(code, last_line(contestant.log.read_text(errors="replace"))))

    def steps(self, count: int) -> Iterator[int]:
        """The numbers of so many steps of a trial; memory is read after each tenth of them."""
        for number in range(count):
            yield number
            if (number + 1) * SAMPLES // count > number * SAMPLES // count:
                self.samples.append(self.contestant.memory().resident)


def last_line(log: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(log.splitlines()) if line.strip()), "")


def growth(samples: list[float]) -> dict[str, Any]:
    """The medians of the first and of the last quarter of what was read of a memory, MiB."""
    quarter = max(1, len(samples) // 4)
    return {
        "resident_mib": samples,
        "resident_mib_first": statistics.median(samples[:quarter]),
        "resident_mib_last": statistics.median(samples[-quarter:]),
    }
