"""Like for like: the least that a controller on the runtime does, to stand beside the peers.

No finalizer, no look-up by UID, no clean-up, no comparison with the airline: one booking and one status write
for each ticket, one change of the booking and one status write for each change of a ticket. What is around
it is the shipped operator's: playbook, airline client, metrics, logs, leader election.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from flights_operator.airline import Airline
from flights_operator.booking import Booking, Trip
from flights_operator.settings import FlightsSettings
from flights_operator.types import FLIGHT_TICKET, FlightTicket, FlightTicketStatus, Phase
from pilothouse.cli import run_operator
from pilothouse.playbook import Play, Playbook, Watch, task


class TicketPlay(Play[FlightTicket, FlightTicketStatus]):
    """One run over one ticket."""

    airline: Airline

    def leave_as_is(self) -> None:
        """Ends the play of a settled ticket: its status stays what it is."""
        self.skip("settled")
        ready = next(each for each in self.object.status.conditions if each.type == "Ready")
        self.ready_reason, self.ready_message = ready.reason, ready.message


@task("the booking is what the spec asks for")
async def book(play: TicketPlay) -> None:
    """Books once, and changes the booking when the spec has changed."""
    if play.settled:
        play.leave_as_is()
        return
    spec, status = play.object.spec, play.object.status
    reference, trip = play.object.metadata.uid, Trip(spec.from_, spec.to, spec.number)
    if status.booking_id:
        known = Booking(status.booking_id, reference, *trip, version=play.object.metadata.generation - 1)
        key = f"{reference}-{play.object.metadata.generation}"
        booking = await play.call(
            f"change booking {known.id}", lambda: play.airline.change(known, trip, key=key)
        )
    else:
        booking = await play.call(f"book {trip}", lambda: play.airline.book(reference, trip))
    if booking:
        play.status = replace(
            play.status,
            phase=Phase.BOOKED,
            booking_id=booking.id,
            booked_seats=booking.seats,
            price=str(booking.price),
        )
        play.ready_reason = "Booked"
        play.ready_message = f"Booking {booking.id} holds {booking.trip}."


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Opens the airline's client and yields what is watched."""
    settings = FlightsSettings.load(variables)
    async with Airline(settings) as airline:

        def play(ticket: FlightTicket, **engine: Any) -> TicketPlay:
            made = TicketPlay(ticket, **engine)
            made.airline = airline
            return made

        yield [Watch(FLIGHT_TICKET, Playbook(play, tasks=[book]), resync=settings.resync)]


if __name__ == "__main__":
    sys.exit(run_operator("pilothouse-flights", watches, variables=os.environ))
