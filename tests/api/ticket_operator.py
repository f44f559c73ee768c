"""An operator's program, for tests that start it as a process."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pilothouse.cli import run_operator
from pilothouse.playbook import Watch
from pilothouse.process import Environment
from tests.unit.playbook.airline import Airline, playbook
from tests.unit.tickets import TICKET


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """The airline is in the process: its bookings end with it."""
    airline = Airline()
    delay = Environment(variables).seconds("AIRLINE_DELAY", 0)
    airline.before = airline.delay(delay)
    yield [Watch(TICKET, playbook(airline))]


if __name__ == "__main__":
    sys.exit(run_operator("tickets", watches))
