"""The fault matrix finds defects that are planted in a correct playbook."""

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
from pilothouse.playbook.metadata_writer import MetadataWriter
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


#: This airline has no versions and no closed references, so it cannot recognize a late request.
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


def test_the_correct_playbook_passes() -> None:
    matrix = explore(TicketLife, faults=FAULTS, pairs=50)
    matrix.require_converged()
    # watch-list, finalizer, find, book, status; find, change, status; find, cancel, finalizer.
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
    """Books one seat, and changes that in a `finally`, which a killed process does not run."""

    @task("the right number of seats is booked")
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

    @task("the booking counts as complete")
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


def test_a_call_without_the_fence_is_found_with_another_process_on_standby() -> None:
    assert faults_that_find(books_past_the_fence) == {Fault.TWO_LEADERS, Fault.TERMINATED}


class HastyUser(TicketLife):
    """The ticket is deleted while the operator works on it."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "t", spec={"seats": 2})
        yield 0.5
        user.remove(TICKET, key)
        yield "deleted"


def test_a_write_before_the_finalizer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    explore(HastyUser, faults=FAULTS).require_converged()
    with_finalizer, write_status = MetadataWriter.store_finalizer, Reconciler._write_status

    async def without(self: Any, obj: Any) -> Any:
        return obj

    async def after_all(self: Any, play: Any, recap: Any) -> Any:
        play.object = await with_finalizer(self._metadata, play.object)
        return await write_status(self, play, recap)

    monkeypatch.setattr(MetadataWriter, "store_finalizer", without)
    monkeypatch.setattr(Reconciler, "_write_status", after_all)
    matrix = explore(HastyUser, faults=FAULTS)
    assert Fault.KILLED_AFTER in {run.injections[0].fault for run in matrix.failures}


async def test_calls_of_a_dead_process_have_no_effect(virtual_time: VirtualTimeLoop) -> None:
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
    """An airline that accepts a second booking with the same reference."""

    async def book(self, reference: str, seats: int) -> None:
        self.bookings[reference] = seats
        self.effects.append("book")


def counts_on_its_cache(airline: Airline) -> Playbook[TicketPlay]:
    """Is reconciled repeatedly, without a finalizer whose write would detect the stale cache."""

    @task("the ticket is reconciled again")
    async def again(play: TicketPlay) -> None:
        play.requeue_after(5)

    return Playbook(
        partial(TicketPlay, airline=airline), tasks=[believes_its_status, seats_are_booked, again]
    )


def test_a_stale_cache_without_own_writes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeverCancelled(TicketLife):
        """The playbook has no cleanup on purpose."""

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
    """Two tickets exist when the operator starts."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        for name in ("one", "two"):
            user.put(TICKET, name, spec={"seats": 2})
        yield "created"


def test_an_incomplete_list_that_is_used_as_complete_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """The processes divide the objects."""

    shards = 2


def test_faults_with_sharding() -> None:
    faults = {Fault.KILLED_AFTER, Fault.TIMEOUT, *WITH_STANDBY}
    explore(Sharded, faults=faults, elected=True).require_converged()


@pytest.mark.parametrize("scenario", [TicketLife, Sharded])
def test_faults_at_the_calls_of_an_election(scenario: type[TicketLife]) -> None:
    matrix = explore(scenario, elected=True, elections=80)
    runs = [run for run in matrix.runs if run.injections[0].election]
    assert len(runs) == 80
    assert [str(run) for run in runs if run.failure] == []


@pytest.mark.parametrize("scenario", [TicketLife, Sharded])
def test_a_lease_released_while_a_change_may_still_take_effect_is_found(
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
    """The airline with blocking methods, for tasks in threads."""

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
    """The tasks call the airline in threads."""

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


@task("the status has the booking")
async def status_has_the_booking(play: TicketPlay) -> None:
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
    """Makes the change in a separate thread, which is started only while the process is the leader."""

    @task("booking is known")
    def look_up(play: TicketPlay) -> None:
        play.booked = airline.find(play.reference)

    return [look_up, books(airline), status_has_the_booking]


def looks_up_on_the_loop(airline: Any) -> list[Task[TicketPlay]]:
    return [booking_is_known, books(airline), status_has_the_booking]


def books_in_a_thread_without_looking(airline: Any) -> list[Task[TicketPlay]]:
    @task("seats are booked")
    def book(play: TicketPlay) -> None:
        if not play.status.booking:
            airline.book(play.reference, play.seats)
        else:
            airline.change(play.reference, play.seats)

    return [book, status_has_the_booking]


def looks_up_and_books_in_one_thread(airline: Any) -> list[Task[TicketPlay]]:
    """The process may be frozen for a minute between the two calls."""

    @task("seats are booked")
    def book(play: TicketPlay) -> None:
        booked = airline.find(play.reference)
        if booked is None:
            airline.book(play.reference, play.seats)
        elif booked != play.seats:
            airline.change(play.reference, play.seats)

    return [book, status_has_the_booking]


@pytest.mark.parametrize("elected", [False, True])
def test_a_correct_playbook_that_blocks_in_threads_passes(elected: bool) -> None:
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


def test_a_task_in_a_thread_without_the_fence_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {Fault.TWO_LEADERS}
    explore(lambda: Threaded(looks_up_on_the_loop), faults=faults, elected=True).require_converged()

    async def unfenced(self: Any, function: Any, *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments)

    monkeypatch.setattr(Fence, "in_thread", unfenced)
    matrix = explore(lambda: Threaded(looks_up_on_the_loop), faults=faults, elected=True)
    # Frozen in the call before the thread, for each of the two changes.
    before = [site.number for site in matrix.sites if site.what == "airline.find"][:2]
    assert [each.at for run in matrix.failures for each in run.injections] == before


@pytest.mark.parametrize("fault", [Fault.KILLED_BEFORE, Fault.KILLED_AFTER])
async def test_calls_of_a_thread_of_a_dead_process_have_no_effect(
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


async def test_the_clock_continues_while_a_thread_waits_for_a_reply(virtual_time: VirtualTimeLoop) -> None:
    airline, began = Airline(), virtual_time.time()
    process = Process(Faults(Injection(1, Fault.TIMEOUT)))
    calls: Any = Outside(BlockingAirline(airline), process, reads=(), errors=ERRORS)
    with pytest.raises(ConnectionError):
        await asyncio.to_thread(calls.book, "a", 1)
    assert virtual_time.time() - began == 30
    await asyncio.to_thread(calls.book, "a", 1)
    assert airline.effects == ["book"]


class ThreadedCrowd(Threaded):
    """Several tickets whose threads run at the same time."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        for name in "abcdef":
            user.put(TICKET, name, spec={"seats": 2})
        yield "created"


def test_calls_of_many_threads_have_the_same_order_in_all_runs() -> None:
    def calls() -> list[str]:
        return [str(site) for site in play(ThreadedCrowd(looks_up_then_books)).sites]

    first = calls()
    assert all(calls() == first for _ in range(10))


def test_the_clock_continues_while_a_thread_waits_in_a_frozen_process() -> None:
    faults = {Fault.TWO_LEADERS}
    explore(lambda: ThreadedCrowd(looks_up_then_books), faults=faults, elected=True).require_converged()
