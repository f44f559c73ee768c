"""A day of tickets that come, change and go leaves nothing behind in the operator's process."""

import asyncio
import gc
import logging
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sized
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from flights_operator.tickets import ticket_playbook
from pilothouse.controller import Manager, Settings
from pilothouse.kube import ObjectKey, Resource
from pilothouse.playbook import Play, Playbook, Watch, add_watch, task
from pilothouse.testing import ModelApi, VirtualTimeLoop
from tests.faults.airline import ModelAirline
from tests.faults.test_flight_ticket import TICKETS
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay
from tests.unit.tickets import TICKET

MINUTE, HOUR = 60, 3600
#: Every minute a ticket is made; after so many minutes it is changed, and after so many it is deleted.
CHANGED_AFTER, DELETED_AFTER = 7, 15
#: What Python itself may keep of a day: interned names, free lists, caches of `re` and the like.
GROWTH_BYTES = 64 * 1024

_NOT_STATE = (ModuleType, type, BuiltinFunctionType, FrameType, ModelApi, ModelAirline)


@task("somebody is told")
async def tell(play: TicketPlay) -> None:
    """A handler."""
    play.changed("told")


@task("the ConfigMap holds the seats", notify=[tell])
async def hold_seats(play: TicketPlay) -> None:
    """With it, all that is remembered of an object that owns another is there."""
    await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})


class Day:
    """An operator of two kinds, and its users."""

    def __init__(self) -> None:
        self.api = ModelApi()
        self.airline = ModelAirline()
        settings = Settings(health_host="127.0.0.1", health_port=0)
        self.manager = Manager("flights", settings, self.api)
        airline: Any = self.airline
        add_watch(self.manager, Watch(TICKETS, ticket_playbook(airline, 600), resync=600))
        owner: Playbook[TicketPlay] = Playbook(Play, tasks=[hold_seats])
        add_watch(self.manager, Watch(TICKET, owner, name="owner", resync=600, owns=[CONFIG_MAP]))
        self.minute = 0

    async def hours(self, count: int) -> None:
        """Lets hours of churn pass, and then all of it settle."""
        first = self.minute
        for self.minute in range(first, first + 60 * count):
            self.api.put(TICKETS, f"t{self.minute}", spec={"from": "Mumbai", "to": "London", "number": 2})
            self.api.put(TICKET, f"o{self.minute}", spec={"seats": 2})
            if (changed := self.minute - CHANGED_AFTER) >= first:
                self.api.put(TICKETS, f"t{changed}", spec={"from": "Mumbai", "to": "Paris", "number": 3})
                self.api.put(TICKET, f"o{changed}", spec={"seats": 3})
            if (deleted := self.minute - DELETED_AFTER) >= first:
                self.api.remove(TICKETS, ObjectKey("default", f"t{deleted}"))
                self.api.remove(TICKET, ObjectKey("default", f"o{deleted}"))
                self.api.collect_garbage()
            await asyncio.sleep(MINUTE)
        kinds: list[Resource[Any]] = [TICKETS, TICKET, CONFIG_MAP]
        for kind in kinds:
            for each in self.api.all(kind):
                self.api.remove(kind, ObjectKey("default", each["metadata"]["name"]))
        await asyncio.sleep(HOUR)
        self.minute += 1
        assert [self.api.all(kind) for kind in kinds] == [[], [], []]
        assert not self.airline.bookings
        # The memory of the model is its own.
        self.api.forget()
        self.api.calls.clear()
        self.airline.__init__()  # type: ignore[misc]
        for kind in kinds:
            self.api.server.collection(kind).made.clear()


def holdings(*roots: object) -> Counter[str]:
    """How much is in the containers that can be reached, by the kind of container and of its owner."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    todo: list[tuple[str, object]] = [(type(root).__name__, root) for root in roots]
    while todo:
        owner, each = todo.pop()
        if id(each) in seen or isinstance(each, _NOT_STATE):
            continue
        seen.add(id(each))
        name = type(each).__name__
        if isinstance(each, Sized) and not isinstance(each, str | bytes):
            found[f"{name} of {owner}"] += len(each)
        deeper = owner if isinstance(each, dict | list | set | tuple | MethodType) else name
        # Of a function what it was given, not the module around it.
        parts = each.__closure__ or () if isinstance(each, FunctionType) else gc.get_referents(each)
        todo += [(deeper, part) for part in parts]
    return found


def state(day: Day) -> tuple[Counter[str], int, int]:
    """What the process holds, its tasks and its timers."""
    loop = asyncio.get_running_loop()
    gc.collect()
    timers = [each for each in loop._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
    return holdings(day.manager), len(asyncio.all_tasks()), len(timers)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.timeout(300)
async def test_24_hours_of_churn_leave_nothing(
    virtual_time: VirtualTimeLoop, traced: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    day = Day()
    process = asyncio.create_task(day.manager.run(asyncio.Event()))
    await day.hours(2)
    before, used = state(day), tracemalloc.get_traced_memory()[0]
    await day.hours(24)
    after, grown = state(day), tracemalloc.get_traced_memory()[0] - used
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)
    assert after[0] - before[0] == Counter()
    assert after[1:] == before[1:]
    assert grown < GROWTH_BYTES, f"{grown} bytes more after 24 hours"
    assert day.minute > 24 * 60
