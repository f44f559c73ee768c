"""A day of tickets that are created, change, fail and are deleted leaves nothing behind in the process."""

import asyncio
import gc
import logging
import random
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence, Sized
from functools import _lru_cache_wrapper
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

import pytest

from flights_operator.booking import Booking, Trip
from flights_operator.errors import NoAnswerError, RejectedError, ThrottledError
from flights_operator.tickets import ticket_playbook
from pilothouse.controller import events
from pilothouse.controller.events import EVENT
from pilothouse.controller.lease import LEASE, LeaseTiming
from pilothouse.kube import (
    Conflict,
    KubeObject,
    ObjectKey,
    Resource,
    ServerError,
    TooManyRequests,
    Unreachable,
    WatchEvent,
)
from pilothouse.playbook import Plan, Play, Playbook, Watch, add_watch, task
from pilothouse.process import Manager, Settings
from pilothouse.testing import Call, ModelApi, VirtualTimeLoop
from pilothouse.views import JOB
from tests.faults.airline import ModelAirline
from tests.faults.test_flight_ticket import TICKETS
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay
from tests.unit.tickets import TICKET

T = TypeVar("T", bound=KubeObject)

MINUTE, HOUR = 60, 3600
#: Minutes between two new tickets, and the age in minutes at which a ticket is changed and deleted.
MADE_EVERY, CHANGED_AFTER, DELETED_AFTER = 6, 12, 24
#: Hours after which every task has failed at least once, so that everything that may be kept is allocated.
FIRST_HOURS = 4
#: The share of calls to the API server and the airline that fail.
FAILING = 0.08
#: The share of Jobs that fail.
FAILING_JOBS = 0.2
#: Seconds for which the watches are behind once an hour, so that own writes are read from the API server.
BEHIND = 15
#: A long interval between renewals: a day of renewals every 2 s would take longer than everything else.
LEASE_TIMING = LeaseTiming(duration=120, renew_deadline=90, retry_period=15)
#: For how many objects a process caches Events: so few that the cache is full after the first hours.
REMEMBERED_OBJECTS = 16
#: What Python itself may keep after a day: interned names, free lists, the cache of `re`.
GROWTH_BYTES = 64 * 1024

# The timers of the loop are counted separately: it keeps cancelled ones for a while.
_NOT_STATE = (
    ModuleType,
    type,
    BuiltinFunctionType,
    FrameType,
    asyncio.AbstractEventLoop,
    ModelApi,
    ModelAirline,
)


def seats(play: TicketPlay) -> str:
    return str(play.object.spec.seats)


def held(play: TicketPlay) -> bool:
    """Returns whether the ConfigMap already has the seats."""
    config = play.get(CONFIG_MAP, play.object.metadata.name)
    return config is not None and config.data.get("seats") == seats(play)


@task("the change is announced")
async def announce(play: TicketPlay) -> None:
    """A handler."""
    play.changed("announced")


@task("the seats are migrated")
async def migrate(play: TicketPlay) -> None:
    """The step of a plan, which takes a while."""
    await play.run_job({"spec": {"seats": seats(play)}})


@task("the ConfigMap holds the seats", notify=[announce])
async def hold_seats(play: TicketPlay) -> None:
    """Makes the object own another one, so that everything that the process keeps about owners is in use."""
    await play.apply(CONFIG_MAP, {"data": {"seats": seats(play)}})


class FailingAirline(ModelAirline):
    """An airline where some calls fail, before or after they are carried out, and some bookings are refused.

    Attributes:
        failing: The share of calls that fail.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing = FAILING
        self._draw = random.Random(1)

    async def find(self, reference: str) -> Booking | None:
        self._may_fail()
        return await super().find(reference)

    async def book(self, reference: str, trip: Trip) -> Booking:
        self._may_fail()
        if self._draw.random() < self.failing:
            raise RejectedError("no seat is left", status=422, code="sold_out")
        booking = await super().book(reference, trip)
        self._may_fail()
        return booking

    async def change(self, booking: Booking, trip: Trip, *, key: str) -> Booking:
        self._may_fail()
        changed = await super().change(booking, trip, key=key)
        self._may_fail()
        return changed

    async def cancel(self, reference: str) -> Booking | None:
        self._may_fail()
        cancelled = await super().cancel(reference)
        self._may_fail()
        return cancelled

    def _may_fail(self) -> None:
        if self._draw.random() < self.failing:
            raise self._draw.choice([NoAnswerError("500"), ThrottledError("slow down", retry_after=3)])


class FailingApi(ModelApi):
    """An API server where some calls fail, before or after they are carried out. Counts calls and watches.

    Attributes:
        failing: The share of calls that fail.
        had: The number of calls per kind, of failures and of watches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failing = FAILING
        self.had: Counter[str] = Counter()
        self.before, self.after = self._refuse, self._lose_the_answer
        self._draw = random.Random(2)

    async def watch(self, resource: Resource[T], **options: Any) -> AsyncGenerator[WatchEvent[T], None]:
        self.had["watches"] += 1
        async for event in super().watch(resource, **options):
            yield event

    async def _refuse(self, call: Call) -> None:
        self.had[call.resource] += 1
        if self._draw.random() < self.failing:
            self.had["failures"] += 1
            refusals = [
                ServerError(500, "InternalError", "injected"),
                TooManyRequests(429, "TooManyRequests", "slow down", retry_after=3),
            ]
            if call.writes:
                refusals.append(Conflict(409, "Conflict", "the object has been modified"))
            raise self._draw.choice(refusals)

    async def _lose_the_answer(self, call: Call) -> None:
        if self._draw.random() < self.failing / 4:
            self.had["failures"] += 1
            raise Unreachable("connection reset", maybe_sent=True)


class Day:
    """An operator of two kinds that is the leader, and its users."""

    def __init__(self) -> None:
        self.api = FailingApi()
        self.airline = FailingAirline()
        settings = Settings(
            health_host="127.0.0.1",
            health_port=0,
            leader_elect=True,
            lease=LEASE_TIMING,
            pod_namespace="operators",
            pod_name="operator-1",
        )
        self.manager = Manager("flights", settings, self.api)
        airline: Any = self.airline
        add_watch(self.manager, Watch(TICKETS, ticket_playbook(airline, 600), resync=600))
        deploy = Plan("deploy", [migrate], when=lambda play: not held(play))
        owner: Playbook[TicketPlay] = Playbook(Play, tasks=[deploy, hold_seats])
        add_watch(self.manager, Watch(TICKET, owner, name="owner", resync=600, owns=[CONFIG_MAP, JOB]))
        self.minute = 0
        self._draw = random.Random(3)

    async def hours(self, count: int) -> None:
        """Creates, changes and deletes objects for some hours, then waits until everything has settled."""
        first = self.minute
        self.api.failing = self.airline.failing = FAILING
        for self.minute in range(first, first + 60 * count, MADE_EVERY):
            if self.minute % 60 == 0:
                self.api.connected.clear()
                self._forget([EVENT])  # Events live for an hour.
            self._churn(first)
            await asyncio.sleep(BEHIND)
            self.api.connected.set()
            self._end_jobs()
            await asyncio.sleep(MADE_EVERY * MINUTE - BEHIND)
        self.api.failing = self.airline.failing = 0
        kinds: list[Resource[Any]] = [TICKETS, TICKET, JOB, CONFIG_MAP]
        for kind in kinds:
            for each in self.api.all(kind):
                self.api.remove(kind, ObjectKey("default", each["metadata"]["name"]))
        await asyncio.sleep(HOUR)
        self.minute += MADE_EVERY
        assert [self.api.all(kind) for kind in kinds] == [[], [], [], []]
        assert not self.airline.bookings
        # What the models keep does not count.
        self._forget([*kinds, EVENT])
        self.api.forget()
        self.api.calls.clear()
        self.airline.__init__()  # type: ignore[misc]

    def _churn(self, first: int) -> None:
        self.api.put(TICKETS, f"t{self.minute}", spec={"from": "Mumbai", "to": "London", "number": 2})
        self.api.put(TICKET, f"o{self.minute}", spec={"seats": 2})
        if (changed := self.minute - CHANGED_AFTER) >= first:
            self.api.put(TICKETS, f"t{changed}", spec={"from": "Mumbai", "to": "Paris", "number": 3})
            self.api.put(TICKET, f"o{changed}", spec={"seats": 3})
        if (deleted := self.minute - DELETED_AFTER) >= first:
            self.api.remove(TICKETS, ObjectKey("default", f"t{deleted}"))
            self.api.remove(TICKET, ObjectKey("default", f"o{deleted}"))
            self.api.collect_garbage()

    def _end_jobs(self) -> None:
        """Ends Jobs as the Job controller does. A failed Job stays until it is replaced by another one."""
        for job in self.api.all(JOB):
            if "conditions" not in job.get("status", {}):
                ended = "Failed" if self._draw.random() < FAILING_JOBS else "Complete"
                status = {"conditions": [{"type": ended, "status": "True"}]}
                self.api.put(JOB, job["metadata"]["name"], status=status)

    def _forget(self, kinds: Sequence[Resource[Any]]) -> None:
        for kind in kinds:
            collection = self.api.server.collection(kind)
            collection.objects.clear()
            collection.owners.clear()
            collection.made.clear()


def holdings(*roots: object) -> Counter[str]:
    """Counts the items in all reachable containers, by the type of the container and of its owner."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [(type(root).__name__, root) for root in roots]
    while todo:
        owner, each = todo.pop()
        if id(each) in seen or isinstance(each, _NOT_STATE) or bounded(each):
            continue
        seen.add(id(each))
        name = type(each).__name__
        if isinstance(each, Sized) and not isinstance(each, str | bytes):
            found[f"{name} of {owner}"] += len(each)
        deeper = owner if isinstance(each, dict | list | set | tuple | MethodType) else name
        # For a function only its closure, not its module.
        parts = each.__closure__ or () if isinstance(each, FunctionType) else gc.get_referents(each)
        todo += [(deeper, part) for part in parts]
    return found


def bounded(each: object) -> bool:
    """Returns whether an object is an lru_cache with a limit, which may fill up in the course of a day."""
    return isinstance(each, _lru_cache_wrapper) and each.cache_parameters()["maxsize"] is not None


async def state(day: Day) -> tuple[Counter[str], int, int]:
    """Returns the contents of the process's containers, and its maximum of tasks and timers in two minutes.

    Not at one moment: whether a watch is open then or about to be opened again is random.
    """
    held = holdings(day.manager)
    tasks = timers = 0
    for _ in range(120):
        await asyncio.sleep(1)
        tasks = max(tasks, len(asyncio.all_tasks()))
        timers = max(timers, running_timers())
    return held, tasks, timers


def allocated() -> int:
    """Returns the size of all Python objects in bytes, without garbage and the contents of bounded caches."""
    for each in gc.get_objects():
        if bounded(each):
            each.cache_clear()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def running_timers() -> int:
    """Returns the number of timers of the loop that are not cancelled."""
    loop = asyncio.get_running_loop()
    return sum(not each.cancelled() for each in loop._scheduled)  # type: ignore[attr-defined]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.timeout(300)
async def test_24_hours_of_churn_leave_nothing_behind(
    virtual_time: VirtualTimeLoop, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    monkeypatch.setattr(events, "CACHE_LENGTH", REMEMBERED_OBJECTS)
    day = Day()
    process = asyncio.create_task(day.manager.run(asyncio.Event()))
    await day.hours(FIRST_HOURS)
    holdings(day.manager)  # isinstance caches the types that it has seen.
    used = allocated()
    before = await state(day)
    await day.hours(24)
    grown = allocated() - used
    after = await state(day)
    assert not process.done(), "the process was the leader all day"
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)
    assert after[0] - before[0] == Counter()
    assert after[1:] == before[1:]
    assert grown < GROWTH_BYTES, f"{grown} bytes more after 24 hours"
    had = day.api.had
    assert had[str(LEASE)] > 24 * HOUR / LEASE_TIMING.retry_period / 2
    # All kinds are watched.
    assert had["watches"] > 4 * 24 * HOUR / 60
    assert had["failures"] > 500
    assert had[str(EVENT)] > 500
    assert had[str(JOB)] > 500
