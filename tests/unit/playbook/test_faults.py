"""Whatever happens at whichever call, the same end is reached: one booking per ticket, none lost.

The scenario is run once to count its calls, then once for each call and each kind of fault.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse.controller import Manager, Settings
from pilothouse.kube import Conflict, KubeError, ServerError, TooManyRequests, Unreachable
from pilothouse.playbook import Playbook, Watch, add_watch, task
from tests.model_api import Call, ModelApi
from tests.unit.playbook.airline import Airline, TicketPlay, playbook, seats_are_booked, spec_is_sound
from tests.unit.tickets import TICKET
from tests.virtual_time import VirtualTimeLoop


class Killed(BaseException):
    """The process is gone, in the middle of a call."""


class World:
    """An API server, an airline and one operator process after the other; the fault strikes at one call."""

    def __init__(self, fault: Callable[[], BaseException], at: int, *, after: bool) -> None:
        self.api = ModelApi()
        self.airline = Airline()
        self.fault = fault
        self.at = at
        self.after = after
        self.count = 0
        self.struck = False
        self.dead = False
        self.make_playbook = playbook
        self.process: asyncio.Task[None] | None = None
        self.api.before = self.api_before
        self.api.after = self.api_after
        self.airline.before = self.airline_before
        self.airline.after = self.airline_after

    async def api_before(self, call: Call) -> None:
        self.strike_before()

    async def api_after(self, call: Call) -> None:
        self.strike_after()

    async def airline_before(self, what: str) -> None:
        self.strike_before()

    async def airline_after(self, what: str) -> None:
        self.strike_after()

    def strike_before(self) -> None:
        if self.dead:
            raise Killed
        self.count += 1
        if not self.after:
            self.strike()

    def strike_after(self) -> None:
        if self.after:
            self.strike()

    def strike(self) -> None:
        if self.count == self.at and not self.struck:
            self.struck = True
            error = self.fault()
            self.dead = isinstance(error, Killed)
            raise error

    async def start(self) -> None:
        manager = Manager("tickets", Settings(health_host="127.0.0.1", health_port=0), self.api)
        add_watch(manager, Watch(TICKET, self.make_playbook(self.airline), resync=60))
        self.process = asyncio.create_task(manager.run(asyncio.Event()))

    async def settle(self) -> None:
        """Lets things happen for a while; a process that was killed is replaced."""
        await asyncio.sleep(30)
        if self.dead:
            await self.stop()
            self.dead = False
            await self.start()
            await asyncio.sleep(30)

    async def stop(self) -> None:
        assert self.process is not None
        self.process.cancel()
        await asyncio.gather(self.process, return_exceptions=True)

    async def run(self) -> None:
        """A ticket is created, changed and deleted."""
        key = self.api.put(TICKET, "my-ticket", spec={"seats": 2})
        reference = self.api.read(TICKET, key)["metadata"]["uid"]
        await self.start()
        await self.settle()
        assert self.airline.bookings == {reference: 2}
        self.assert_ready(key, 1)
        self.api.put(TICKET, "my-ticket", spec={"seats": 3})
        await self.settle()
        assert self.airline.bookings == {reference: 3}
        self.assert_ready(key, 2)
        self.api.remove(TICKET, key)
        await self.settle()
        assert self.airline.bookings == {}
        assert not self.api.exists(TICKET, key)
        assert self.airline.effects == ["book", "change", "cancel"]
        await self.stop()

    def assert_ready(self, key: Any, generation: int) -> None:
        status = self.api.read(TICKET, key)["status"]
        assert status["observedGeneration"] == generation
        assert status["phase"] == "Booked"
        assert [each["status"] for each in status["conditions"]] == ["True"]


def run(world: World) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(world.run())


def calls_of_the_scenario() -> int:
    world = World(Killed, at=0, after=False)
    run(world)
    return world.count


CALLS = calls_of_the_scenario()

FAULTS: dict[str, tuple[Callable[[], BaseException], bool]] = {
    "killed before": (Killed, False),
    "killed after": (Killed, True),
    "answer lost": (lambda: Unreachable("connection reset", maybe_sent=True), True),
    "not reached": (lambda: Unreachable("connection refused", maybe_sent=False), False),
    "conflict": (lambda: Conflict(409, "Conflict", "modified"), False),
    "429": (lambda: TooManyRequests(429, "", "slow down", retry_after=3), False),
    "500 before": (lambda: ServerError(500), False),
    "500 after": (lambda: ServerError(500), True),
    "defect": (lambda: ValueError("surprise"), True),
}


def test_the_scenario_makes_the_calls_that_it_must() -> None:
    # finalizer, find, book, status; find, change, status; find, cancel, finalizer
    assert CALLS == 10


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("at", range(1, CALLS + 1))
def test_every_fault_at_every_call_leads_to_the_same_end(name: str, at: int) -> None:
    fault, after = FAULTS[name]
    world = World(fault, at, after=after)
    run(world)
    assert world.struck


@task("booking is known")
async def believes_its_status(play: TicketPlay) -> None:
    """The planted defect: no look-up at the airline."""
    play.booked = play.seats if play.status.booking else None


def careless(airline: Airline) -> Playbook[TicketPlay]:
    sound = playbook(airline)
    return Playbook(
        sound.play,
        tasks=[spec_is_sound, believes_its_status, seats_are_booked],
        cleanup=sound.cleanup,
        finalizer=sound.finalizer,
    )


def test_a_playbook_that_books_without_looking_is_found_out() -> None:
    caught = 0
    for at in range(1, CALLS + 1):
        world = World(Killed, at, after=True)
        world.make_playbook = careless
        try:
            run(world)
        except (AssertionError, KubeError):
            caught += 1
    assert caught
