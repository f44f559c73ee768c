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
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Watch, add_watch
from pilothouse.testing import ModelApi, VirtualTimeLoop
from tests.faults.airline import ModelAirline
from tests.faults.test_flight_ticket import TICKETS

MINUTE, HOUR = 60, 3600
#: Every minute a ticket is made; after so many minutes it is changed, and after so many it is deleted.
CHANGED_AFTER, DELETED_AFTER = 7, 15
#: What Python itself may keep of a day: interned names, free lists, caches of `re` and the like.
GROWTH_BYTES = 64 * 1024

_NOT_STATE = (ModuleType, type, BuiltinFunctionType, FrameType, ModelApi, ModelAirline)


class Day:
    """An operator and its users."""

    def __init__(self) -> None:
        self.api = ModelApi()
        self.airline = ModelAirline()
        settings = Settings(health_host="127.0.0.1", health_port=0)
        self.manager = Manager("flights", settings, self.api)
        airline: Any = self.airline
        add_watch(self.manager, Watch(TICKETS, ticket_playbook(airline, 600), resync=600))
        self.minute = 0

    async def hours(self, count: int) -> None:
        """Lets hours of churn pass, and then all of it settle."""
        first = self.minute
        for self.minute in range(first, first + 60 * count):
            self.api.put(TICKETS, f"t{self.minute}", spec={"from": "Mumbai", "to": "London", "number": 2})
            if (changed := self.minute - CHANGED_AFTER) >= first:
                self.api.put(TICKETS, f"t{changed}", spec={"from": "Mumbai", "to": "Paris", "number": 3})
            if (deleted := self.minute - DELETED_AFTER) >= first:
                self.api.remove(TICKETS, ObjectKey("default", f"t{deleted}"))
            await asyncio.sleep(MINUTE)
        for ticket in self.api.all(TICKETS):
            self.api.remove(TICKETS, ObjectKey("default", ticket["metadata"]["name"]))
        await asyncio.sleep(HOUR)
        self.minute += 1
        assert not self.api.all(TICKETS)
        assert not self.airline.bookings
        # The memory of the model is its own.
        self.api.forget()
        self.api.calls.clear()
        self.airline.__init__()  # type: ignore[misc]
        self.api.server.collection(TICKETS).made.clear()


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
