"""What is done to the tickets, and what is seen of them: the same for every contestant."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Self, TypeVar

import msgspec

from flights_operator.types import FLIGHT_TICKET
from pilothouse.kube import Client, EventType, ObjectKey, ObjectMeta, PatchType, Resource
from tests.bench.node import NAMESPACE

T = TypeVar("T")
IN_FLIGHT = 32


class Status(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """What is looked at of its status."""

    phase: str = ""
    booking_id: str = msgspec.field(default="", name="bookingID")
    observed_generation: int = 0


class Ticket(msgspec.Struct, frozen=True, gc=False):
    """A ticket as the observer sees it."""

    metadata: ObjectMeta
    status: Status = Status()

    @property
    def booked(self) -> bool:
        """Whether the status says that the airline holds what the present spec asks for."""
        status = self.status
        return status.phase == "Booked" and status.observed_generation == self.metadata.generation


_KIND = FLIGHT_TICKET.resource
TICKET: Resource[Ticket] = Resource(_KIND.group, _KIND.version, _KIND.kind, _KIND.plural, Ticket)


class Observer:
    """A watch of all tickets: who is booked, when it was seen, and how often each was written.

    Attributes:
        booked: The tickets that are booked as their present spec asks.
        writes: How often each ticket was written since it was first seen; spec changes by us included.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self.booked: set[str] = set()
        self.writes: Counter[str] = Counter()
        self.bookings: dict[str, str] = {}
        self._seen = asyncio.Event()

    async def __aenter__(self) -> Self:
        version = ""
        async for page in self._client.pages(TICKET):
            for ticket in page.items:
                self._see(ticket)
            version = page.resource_version
        self._task = asyncio.create_task(self._watch(version))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def until(self, fulfilled: Callable[[], bool], check: Callable[[], None], within: float) -> float:
        """Waits until something is so of what has been seen; returns when that was (performance counter).

        Raises:
            TimeoutError: It was not so in time.
        """
        ends = time.monotonic() + within
        while not fulfilled():
            if time.monotonic() > ends:
                raise TimeoutError(f"{len(self.booked)} tickets were booked after {within:.0f} s")
            if self._task.done():
                self._task.result()
                raise RuntimeError("the observer's watch has ended")
            check()
            self._seen.clear()
            try:
                async with asyncio.timeout(1):
                    await self._seen.wait()
            except TimeoutError:
                continue
        return time.perf_counter()

    async def quiet(self, seconds: float) -> None:
        """Waits until no ticket has been written for so many seconds."""
        while True:
            written = self.writes.total()
            await asyncio.sleep(seconds)
            if written == self.writes.total():
                return

    async def _watch(self, version: str) -> None:
        while True:
            async for event in self._client.watch(TICKET, resource_version=version):
                if event.object is None:
                    continue
                version = event.object.metadata.resource_version or version
                if event.type is EventType.MODIFIED:
                    self.writes[event.object.metadata.name] += 1
                    self._see(event.object)
                self._seen.set()

    def _see(self, ticket: Ticket) -> None:
        name = ticket.metadata.name
        if ticket.booked:
            self.booked.add(name)
            self.bookings[name] = ticket.status.booking_id
        else:
            self.booked.discard(name)


def names(tickets: int) -> list[str]:
    """The names of so many tickets."""
    return [f"t-{number:06d}" for number in range(tickets)]


async def create(client: Client, tickets: int) -> None:
    """Creates so many tickets."""
    await at_once(names(tickets), partial(create_one, client))


async def create_one(client: Client, name: str) -> None:
    """Creates a ticket for one seat from Mumbai to London."""
    body = {
        "apiVersion": "flights.com/v1",
        "kind": "FlightTicket",
        "metadata": {"name": name},
        "spec": {"from": "Mumbai", "to": "London", "number": 1},
    }
    await client.create(TICKET, body, namespace=NAMESPACE)


async def change_one(client: Client, name: str, seats: int) -> None:
    """Changes how many seats a ticket asks for."""
    patch = {"spec": {"number": seats}}
    await client.patch(TICKET, ObjectKey(NAMESPACE, name), patch, type=PatchType.MERGE)


async def release(client: Client, tickets: Sequence[ObjectKey]) -> None:
    """Takes the finalizers off tickets whose controller is gone."""

    async def one(key: ObjectKey) -> None:
        await client.patch(TICKET, key, {"metadata": {"finalizers": None}}, type=PatchType.MERGE)

    await at_once(tickets, one)


async def at_once(each: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Does something for each, so many at once that the API server is what takes the time."""
    left = iter(each)

    async def worker() -> None:
        for one in left:
            await work(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(worker())
