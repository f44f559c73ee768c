"""A playbook that books tickets at an airline in memory, for tests of the engine."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from msgspec.structs import replace

from pilothouse.playbook import Play, Playbook, TaskFailed, task
from tests.unit.tickets import Ticket, TicketStatus

FINALIZER = "tests.dev/booking"


async def _nothing(what: str) -> None:
    """Lets a call through."""


class Airline:
    """Bookings by reference. `before` and `after` are awaited around every call, and may raise."""

    def __init__(self) -> None:
        self.bookings: dict[str, int] = {}
        self.effects: list[str] = []
        self.before: Callable[[str], Awaitable[None]] = _nothing
        self.after: Callable[[str], Awaitable[None]] = _nothing

    @staticmethod
    def delay(seconds: float) -> Callable[[str], Awaitable[None]]:
        """Returns a hook that delays each call."""

        async def wait(what: str) -> None:
            await asyncio.sleep(seconds)

        return wait

    async def find(self, reference: str) -> int | None:
        await self.before("find")
        found = self.bookings.get(reference)
        await self.after("find")
        return found

    async def book(self, reference: str, seats: int) -> None:
        await self.before("book")
        if reference in self.bookings:
            raise AssertionError(f"{reference} was booked twice")
        self.bookings[reference] = seats
        self.effects.append("book")
        await self.after("book")

    async def change(self, reference: str, seats: int) -> None:
        await self.before("change")
        self.bookings[reference] = seats
        self.effects.append("change")
        await self.after("change")

    async def cancel(self, reference: str) -> None:
        await self.before("cancel")
        if self.bookings.pop(reference, None) is not None:
            self.effects.append("cancel")
        await self.after("cancel")


class TicketPlay(Play[Ticket, TicketStatus]):
    def __init__(self, object: Ticket, *, airline: Airline, **engine: Any) -> None:  # noqa: A002
        super().__init__(object, **engine)
        self.airline = airline
        self.booked: int | None = None

    @property
    def reference(self) -> str:
        return self.object.metadata.uid

    @property
    def seats(self) -> int:
        return self.object.spec.seats

    def failed(self, failure: TaskFailed) -> None:
        self.status = replace(self.status, phase="Failed" if failure.permanent else "Pending")


@task("spec is sound")
async def spec_is_sound(play: TicketPlay) -> None:
    if play.seats > 10:
        raise TaskFailed("TooManySeats", f"{play.seats} seats: ask for 10 at most.", permanent=True)


@task("booking is known")
async def booking_is_known(play: TicketPlay) -> None:
    if play.settled and not play.deleting:
        play.booked = play.seats
        return
    play.booked = await play.airline.find(play.reference)


@task("seats are booked")
async def seats_are_booked(play: TicketPlay) -> None:
    airline, reference, seats = play.airline, play.reference, play.seats
    if play.booked is None:
        await play.call("book seats", lambda: airline.book(reference, seats), diff=f"+ {seats} seats")
    elif play.booked != seats:
        diff = f"seats: {play.booked} -> {seats}"
        await play.call("change the booking", lambda: airline.change(reference, seats), diff=diff)
    play.status = replace(play.status, phase="Booked", booking=f"B-{reference[:4]}")


@task("booking is cancelled")
async def booking_is_cancelled(play: TicketPlay) -> None:
    if play.booked is None:
        play.skip("there is none")
        return
    await play.call("cancel", lambda: play.airline.cancel(play.reference), diff="- booking")


def playbook(airline: Airline) -> Playbook[TicketPlay]:
    return Playbook(
        partial(TicketPlay, airline=airline),
        tasks=[spec_is_sound, booking_is_known, seats_are_booked],
        cleanup=[booking_is_known, booking_is_cancelled],
        finalizer=FINALIZER,
    )
