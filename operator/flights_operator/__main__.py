"""The operator's process: python3 -m flights_operator."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from flights_operator.airline import Airline
from flights_operator.settings import FlightsSettings
from flights_operator.tickets import ticket_playbook
from flights_operator.types import FLIGHT_TICKET
from pilothouse import Watch, main

NAME = "pilothouse-flights"

# Values for the settings without a default, for commands that do not connect to the airline.
PLACEHOLDERS = {"AIRLINE_URL": "http://airline.example", "AIRLINE_API_KEY_FILE": "/dev/null"}


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Opens the airline's client and yields what the operator watches.

    Raises:
        SettingsError: A variable is missing or has a wrong value.
    """
    settings = FlightsSettings.load(variables)
    async with Airline(settings) as airline:
        playbook = ticket_playbook(airline, settings.resync)
        yield [Watch(FLIGHT_TICKET, playbook, resync=settings.resync)]


if __name__ == "__main__":
    sys.exit(main(NAME, watches, settings=[FlightsSettings], placeholders=PLACEHOLDERS))
