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
from pilothouse.playbook import Playbook, Reconciler, Task, Watch, task
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
    play,
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
MakeTasks = Callable[[Any], list[Task[TicketPlay]]]
ERRORS: Errors = {
    fault: lambda: ConnectionError("injected")
    for fault in (Fault.REPLY_LOST, Fault.THROTTLED, Fault.ERROR_BEFORE, Fault.ERROR_AFTER)
}


#: This airline takes a late request for a new one: it knows neither versions nor closed references.
FAULTS = [fault for fault in Fault if fault is not Fault.LATE]


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
    with_finalizer, write_status = Reconciler._store_finalizer, Reconciler._write_status

    async def without(self: Any, obj: Any) -> Any:
        return obj

    async def after_all(self: Any, play: Any, recap: Any) -> Any:
        play.object = await with_finalizer(self, play.object)
        return await write_status(self, play, recap)

    monkeypatch.setattr(Reconciler, "_store_finalizer", without)
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
    class NeverCancelled(TicketLife):
        """The playbook has no cleanup, on purpose."""

        def held_outside(self) -> object:
            return ()

    def life() -> TicketLife:
        scenario = NeverCancelled(counts_on_its_cache)
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
    assert all("Lease" in run.failure or "too often" in run.failure for run in matrix.failures)


class BlockingAirline:
    """The airline as a client that blocks has it, for tasks in threads."""

    def __init__(self, airline: Airline) -> None:
        self._airline = airline

    def find(self, reference: str) -> int | None:
        return self._airline.bookings.get(reference)

    def book(self, reference: str, seats: int) -> None:
        if reference in self._airline.bookings:
            raise AssertionError(f"{reference} was booked twice")
        self._airline.bookings[reference] = seats
        self._airline.effects.append("book")

    def change(self, reference: str, seats: int) -> None:
        self._airline.bookings[reference] = seats
        self._airline.effects.append("change")


class Threaded(TicketLife):
    """What the airline is asked, it is asked in threads."""

    def __init__(self, make_tasks: MakeTasks) -> None:
        super().__init__()
        self._make_tasks = make_tasks

    def watches(self, process: Process) -> Sequence[Watch]:
        airline: Any = Outside(self.airline, process, reads=["find"], errors=ERRORS)
        blocking = Outside(BlockingAirline(self.airline), process, reads=["find"], errors=ERRORS)
        threaded: Playbook[TicketPlay] = Playbook(
            partial(TicketPlay, airline=airline),
            tasks=[spec_is_sound, *self._make_tasks(blocking)],
            cleanup=[booking_is_known, booking_is_cancelled],
            finalizer=FINALIZER,
        )
        return [Watch(TICKET, threaded)]


@task("status tells of the booking")
async def status_tells(play: TicketPlay) -> None:
    play.status = replace(play.status, phase="Booked", booking="B")


def books(airline: Any) -> Task[TicketPlay]:
    @task("seats are booked")
    def book(play: TicketPlay) -> None:
        if play.booked is None:
            airline.book(play.reference, play.seats)
        elif play.booked != play.seats:
            airline.change(play.reference, play.seats)

    return book


def looks_up_then_books(airline: Any) -> list[Task[TicketPlay]]:
    """The change in a thread of its own, which is begun only while the process leads."""

    @task("booking is known")
    def look_up(play: TicketPlay) -> None:
        play.booked = airline.find(play.reference)

    return [look_up, books(airline), status_tells]


def looks_up_on_the_loop(airline: Any) -> list[Task[TicketPlay]]:
    return [booking_is_known, books(airline), status_tells]


def books_in_a_thread_without_looking(airline: Any) -> list[Task[TicketPlay]]:
    @task("seats are booked")
    def book(play: TicketPlay) -> None:
        if not play.status.booking:
            airline.book(play.reference, play.seats)
        else:
            airline.change(play.reference, play.seats)

    return [book, status_tells]


def looks_up_and_books_in_one_thread(airline: Any) -> list[Task[TicketPlay]]:
    """Between the two it may have stood still for a minute."""

    @task("seats are booked")
    def book(play: TicketPlay) -> None:
        booked = airline.find(play.reference)
        if booked is None:
            airline.book(play.reference, play.seats)
        elif booked != play.seats:
            airline.change(play.reference, play.seats)

    return [book, status_tells]


@pytest.mark.parametrize("elected", [False, True])
def test_a_sound_playbook_that_blocks_in_threads_passes(elected: bool) -> None:
    matrix = explore(lambda: Threaded(looks_up_then_books), faults=FAULTS, elected=elected, pairs=50)
    matrix.require_converged()
    blocking = [site.what.partition(".")[2] for site in matrix.sites if "blocking" in site.what]
    assert blocking == ["find", "book", "find", "change"]


@pytest.mark.parametrize(
    ("planted", "by"),
    [
        (books_in_a_thread_without_looking, {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.ERROR_AFTER}),
        (looks_up_and_books_in_one_thread, {Fault.TWO_LEADERS}),
    ],
)
def test_a_defect_in_a_thread_is_found(planted: MakeTasks, by: set[Fault]) -> None:
    matrix = explore(lambda: Threaded(planted), faults=FAULTS)
    assert {injection.fault for run in matrix.failures for injection in run.injections} >= by


def test_a_task_in_a_thread_past_the_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {Fault.TWO_LEADERS}
    explore(lambda: Threaded(looks_up_on_the_loop), faults=faults, elected=True).require_converged()

    async def unfenced(self: Any, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    monkeypatch.setattr(Fence, "in_thread", unfenced)
    matrix = explore(lambda: Threaded(looks_up_on_the_loop), faults=faults, elected=True)
    # Thawed in the call before the thread, at each of the two times that it changes something.
    before = [site.number for site in matrix.sites if site.what == "airline.find"][:2]
    assert [each.at for run in matrix.failures for each in run.injections] == before


@pytest.mark.parametrize("fault", [Fault.KILLED_BEFORE, Fault.KILLED_AFTER])
async def test_nothing_that_a_thread_of_a_dead_process_calls_has_an_effect(
    virtual_time: VirtualTimeLoop, fault: Fault
) -> None:
    airline, faults = Airline(), Faults(Injection(1, fault))
    process = Process(faults)
    calls: Any = Outside(BlockingAirline(airline), process, reads=(), errors=ERRORS)

    def play() -> None:
        try:
            calls.book("a", 1)
        except BaseException:
            calls.book("b", 1)
        finally:
            calls.book("c", 1)

    with pytest.raises(Killed):
        await asyncio.to_thread(play)
    assert not process.alive
    assert list(airline.bookings) == (["a"] if fault is Fault.KILLED_AFTER else [])
    assert [site.what for site in faults.sites] == ["blockingairline.book"]


async def test_the_clock_goes_on_while_a_thread_waits_for_an_answer(virtual_time: VirtualTimeLoop) -> None:
    airline, began = Airline(), virtual_time.time()
    process = Process(Faults(Injection(1, Fault.TIMEOUT)))
    calls: Any = Outside(BlockingAirline(airline), process, reads=(), errors=ERRORS)
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(calls.book, "a", 1)
    assert virtual_time.time() - began == 30
    await asyncio.to_thread(calls.book, "a", 1)
    assert airline.effects == ["book"]


class ThreadedCrowd(Threaded):
    """Tickets whose threads are at work at the same time."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        for name in "abcdef":
            user.put(TICKET, name, spec={"seats": 2})
        yield "created"


def test_calls_of_many_threads_come_in_the_same_order_each_time() -> None:
    def calls() -> list[str]:
        return [str(site) for site in play(ThreadedCrowd(looks_up_then_books)).sites]

    first = calls()
    assert all(calls() == first for _ in range(10))


def test_the_clock_goes_on_where_a_thread_waits_in_a_process_that_stands_still() -> None:
    faults = {Fault.TWO_LEADERS}
    explore(lambda: ThreadedCrowd(looks_up_then_books), faults=faults, elected=True).require_converged()
