"""The matrix finds what it is for: defects planted into a sound playbook."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller import Fence, LeaderElector
from pilothouse.informer import Store
from pilothouse.informer.reflector import Reflector, State
from pilothouse.playbook import Playbook, Reconciler, Watch, task
from pilothouse.testing import (
    Errors,
    Fault,
    Faults,
    Injection,
    Killed,
    ModelApi,
    Outside,
    Process,
    Scenario,
    VirtualTimeLoop,
    explore,
    objects_state,
)
from pilothouse.testing.faults import WITH_STANDBY
from tests.unit.playbook.airline import (
    FINALIZER,
    Airline,
    TicketPlay,
    booking_is_cancelled,
    booking_is_known,
    playbook,
    seats_are_booked,
    spec_is_sound,
)
from tests.unit.tickets import TICKET

MakePlaybook = Callable[[Airline], Playbook[TicketPlay]]
ERRORS: Errors = {
    fault: lambda: ConnectionError("injected")
    for fault in (Fault.REPLY_LOST, Fault.THROTTLED, Fault.ERROR_BEFORE, Fault.ERROR_AFTER)
}


#: This airline takes a late request for a new one: it knows neither versions nor closed references.
FAULTS = set(Fault) - {Fault.LATE}


class TicketLife(Scenario):
    """A ticket is created, changed and deleted."""

    def __init__(self, make_playbook: MakePlaybook = playbook) -> None:
        self.airline = Airline()
        self._make_playbook = make_playbook

    def watches(self, process: Process) -> Sequence[Watch]:
        airline: Any = Outside(self.airline, process, reads=["find"], errors=ERRORS)
        return [Watch(TICKET, self._make_playbook(airline))]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "t", spec={"seats": 2})
        yield "created"
        user.put(TICKET, "t", spec={"seats": 3})
        yield "changed"
        user.remove(TICKET, key)
        yield "deleted"

    def state(self, api: ModelApi) -> object:
        return objects_state(api), self.airline.bookings

    def effects(self) -> Sequence[str]:
        return self.airline.effects


def test_the_sound_playbook_passes() -> None:
    matrix = explore(TicketLife, faults=FAULTS, pairs=50)
    matrix.require_converged()
    # watch-list, finalizer, find, book, status; find, change, status; find, cancel, finalizer
    assert len(matrix.sites) == 11


def test_a_request_that_is_carried_out_late_is_found() -> None:
    matrix = explore(TicketLife, faults={Fault.LATE})
    assert {matrix.sites[run.injections[0].at - 1].what for run in matrix.failures} == {"airline.change"}


def faults_that_find(make_playbook: MakePlaybook) -> set[Fault]:
    matrix = explore(lambda: TicketLife(make_playbook), faults=FAULTS)
    assert matrix.failures
    with pytest.raises(AssertionError, match="runs failed"):
        matrix.require_converged()
    return {injection.fault for run in matrix.failures for injection in run.injections}


@task("booking is known")
async def believes_its_status(play: TicketPlay) -> None:
    play.booked = play.seats if play.status.booking else None


def books_without_looking(airline: Airline) -> Playbook[TicketPlay]:
    return Playbook(
        partial(TicketPlay, airline=airline),
        tasks=[spec_is_sound, believes_its_status, seats_are_booked],
        cleanup=[booking_is_known, booking_is_cancelled],
        finalizer=FINALIZER,
    )


def books_from_memory(airline: Airline) -> Playbook[TicketPlay]:
    booked: dict[str, int] = {}

    @task("booking is remembered")
    async def remember(play: TicketPlay) -> None:
        play.booked = booked.get(play.reference)

    @task("booking is noted")
    async def note(play: TicketPlay) -> None:
        booked[play.reference] = play.seats

    return Playbook(
        partial(TicketPlay, airline=airline),
        tasks=[remember, seats_are_booked, note],
        cleanup=[booking_is_known, booking_is_cancelled],
        finalizer=FINALIZER,
    )


def counts_on_finally(airline: Airline) -> Playbook[TicketPlay]:
    """Books one seat, and the right number of seats in the end: what a killed process never comes to."""

    @task("seats are booked, in the end")
    async def book(play: TicketPlay) -> None:
        if play.booked == play.seats or play.status.booking == "B":
            play.status = replace(play.status, booking="B")
            return
        try:
            if play.booked is None:
                await play.call("book", lambda: airline.book(play.reference, 1))
            play.status = replace(play.status, booking="B")
        finally:
            await play.call("change", lambda: airline.change(play.reference, play.seats))

    @task("booking is believed in")
    async def believe(play: TicketPlay) -> None:
        play.booked = await airline.find(play.reference)
        if play.booked is not None and not play.deleting:
            play.booked = play.seats

    return Playbook(
        partial(TicketPlay, airline=airline),
        tasks=[believe, book],
        cleanup=[booking_is_known, booking_is_cancelled],
        finalizer=FINALIZER,
    )


def books_past_the_fence(airline: Airline) -> Playbook[TicketPlay]:
    @task("seats are booked")
    async def book(play: TicketPlay) -> None:
        if play.booked is None:
            await airline.book(play.reference, play.seats)
        elif play.booked != play.seats:
            await airline.change(play.reference, play.seats)
        play.status = replace(play.status, phase="Booked")

    return Playbook(
        partial(TicketPlay, airline=airline),
        tasks=[booking_is_known, book],
        cleanup=[booking_is_known, booking_is_cancelled],
        finalizer=FINALIZER,
    )


@pytest.mark.parametrize(
    ("planted", "by"),
    [
        (books_without_looking, {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.CONFLICT}),
        (books_from_memory, {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.TWO_LEADERS}),
        (counts_on_finally, {Fault.KILLED_AFTER, Fault.REPLY_LOST}),
    ],
)
def test_a_defect_is_found(planted: MakePlaybook, by: set[Fault]) -> None:
    assert faults_that_find(planted) >= by


def test_a_call_past_the_fence_is_found_where_another_process_stands_by() -> None:
    assert faults_that_find(books_past_the_fence) == {Fault.TWO_LEADERS, Fault.TERMINATED}


class HastyUser(TicketLife):
    """Deletes the ticket while the operator is at it."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "t", spec={"seats": 2})
        yield 0.5
        user.remove(TICKET, key)
        yield "deleted"


def test_a_write_before_the_finalizer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    explore(HastyUser, faults=FAULTS).require_converged()
    with_finalizer, write_status = Reconciler._with_finalizer, Reconciler._write_status

    async def without(self: Any, obj: Any) -> Any:
        return obj

    async def after_all(self: Any, obj: Any, status: Any) -> Any:
        return await write_status(self, await with_finalizer(self, obj), status)

    monkeypatch.setattr(Reconciler, "_with_finalizer", without)
    monkeypatch.setattr(Reconciler, "_write_status", after_all)
    matrix = explore(HastyUser, faults=FAULTS)
    assert Fault.KILLED_AFTER in {run.injections[0].fault for run in matrix.failures}


async def test_nothing_that_a_dead_process_does_has_an_effect(virtual_time: VirtualTimeLoop) -> None:
    airline, faults = Airline(), Faults(Injection(1, Fault.KILLED_BEFORE))
    process = Process(faults)
    calls: Any = Outside(airline, process, reads=(), errors=ERRORS)

    async def play() -> None:
        try:
            await calls.book("a", 1)
        except BaseException:
            await calls.book("b", 1)
        finally:
            await calls.book("c", 1)

    with pytest.raises(Killed):
        await play()
    assert not process.alive
    assert airline.effects == []
    assert [site.what for site in faults.sites] == ["airline.book"]


class ForgivingAirline(Airline):
    """Books whatever it is asked for, again and again."""

    async def book(self, reference: str, seats: int) -> None:
        self.bookings[reference] = seats
        self.effects.append("book")


def counts_on_its_cache(airline: Airline) -> Playbook[TicketPlay]:
    """It is played over and over, without a finalizer whose write would notice that the cache is old."""

    @task("it is looked at again")
    async def again(play: TicketPlay) -> None:
        play.requeue_after(5)

    return Playbook(
        partial(TicketPlay, airline=airline), tasks=[believes_its_status, seats_are_booked, again]
    )


def test_a_cache_that_does_not_know_own_writes_is_found_when_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    def life() -> TicketLife:
        scenario = TicketLife(counts_on_its_cache)
        scenario.airline = ForgivingAirline()
        return scenario

    explore(life, faults={Fault.STALE}).require_converged()
    monkeypatch.setattr(Store, "observe", lambda self, obj: None)
    assert explore(life, faults={Fault.STALE}).failures


class Crowd(TicketLife):
    """There are two tickets when the operator starts."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        for name in ("one", "two"):
            user.put(TICKET, name, spec={"seats": 2})
        yield "created"


def test_a_list_that_is_cut_short_and_taken_for_all_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    explore(Crowd, faults={Fault.WATCH_CUT}).require_converged()
    fail = Reflector._fail

    def believes(self: Any, error: Any) -> None:
        if self.state is State.LISTING:
            self._resource_version = str(2**40)
            self._end_list()
        fail(self, error)

    monkeypatch.setattr(Reflector, "_fail", believes)
    matrix = explore(Crowd, faults={Fault.WATCH_CUT})
    assert {matrix.sites[run.injections[0].at - 1].what for run in matrix.failures} == {
        "watch-list tickets.tests.dev"
    }


def test_kills_cuts_and_timeouts_during_an_election() -> None:
    faults = {Fault.KILLED_BEFORE, Fault.KILLED_AFTER, Fault.WATCH_CUT, Fault.TIMEOUT, *WITH_STANDBY}
    explore(TicketLife, faults=faults, elected=True, pairs=20).require_converged()


class Sharded(TicketLife):
    """The objects are shared out."""

    shards = 2


def test_faults_while_objects_are_shared_out() -> None:
    faults = {Fault.KILLED_AFTER, Fault.TIMEOUT, *WITH_STANDBY}
    explore(Sharded, faults=faults, elected=True).require_converged()


@pytest.mark.parametrize("scenario", [TicketLife, Sharded])
def test_faults_at_the_calls_of_an_election(scenario: type[TicketLife]) -> None:
    matrix = explore(scenario, elected=True, elections=80)
    runs = [run for run in matrix.runs if run.injections[0].election]
    assert len(runs) == 80
    assert [str(run) for run in runs if run.failure] == []


@pytest.mark.parametrize("scenario", [TicketLife, Sharded])
def test_a_lease_given_up_while_a_change_may_still_land_is_found(
    scenario: type[TicketLife], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {Fault.TERMINATED}
    explore(scenario, faults=faults, elected=True).require_converged()
    monkeypatch.setattr(LeaderElector, "_may_land", lambda self: "")
    matrix = explore(scenario, faults=faults, elected=True)
    found = {matrix.sites[run.injections[0].at - 1].what for run in matrix.failures}
    assert {"airline.book", "airline.change", "airline.cancel"} <= found
    assert all("Lease" in run.failure or "done too often" in run.failure for run in matrix.failures)


class Printed(TicketLife):
    """A task that blocks, in a thread, changes something outside."""

    def watches(self, process: Process) -> Sequence[Watch]:
        airline: Any = Outside(self.airline, process, reads=["find"], errors=ERRORS)

        @task("ticket is printed")
        def ticket_is_printed(play: TicketPlay) -> None:
            process.require_leads("printing")

        printing: Playbook[TicketPlay] = Playbook(
            partial(TicketPlay, airline=airline),
            tasks=[spec_is_sound, booking_is_known, ticket_is_printed, seats_are_booked],
            cleanup=[booking_is_known, booking_is_cancelled],
            finalizer=FINALIZER,
        )
        return [Watch(TICKET, printing)]


def test_a_task_in_a_thread_past_the_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {Fault.TWO_LEADERS, Fault.KILLED_BEFORE}
    explore(Printed, faults=faults, elected=True).require_converged()

    async def unfenced(self: Any, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    monkeypatch.setattr(Fence, "in_thread", unfenced)
    matrix = explore(Printed, faults=faults, elected=True)
    found = [each for run in matrix.failures for each in run.injections]
    assert {each.fault for each in found} == {Fault.TWO_LEADERS}
    # Thawed in the call before the thread, at each of the two times that it prints.
    before = [site for site in matrix.sites if site.what == "airline.find"][:2]
    assert [each.at for each in found] == [site.number for site in before]
