"""Creates many tickets, and counts the operator's writes to them: for tests and benchmarks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from flights_operator.types import FLIGHT_TICKET, FlightTicket, Phase
from pilothouse.kube import Client, ClientConfig, EventType

#: The number of concurrent requests. With fewer, the client would be the bottleneck.
IN_FLIGHT = 32
RESOURCE = FLIGHT_TICKET.resource


async def open_client(kubeconfig: Path) -> Client:
    """Returns a client of the cluster. The caller enters it."""
    config = await asyncio.to_thread(ClientConfig.from_kubeconfig, str(kubeconfig))
    return Client(config, user_agent="pilothouse-load/1", connections=IN_FLIGHT)


async def create_tickets(client: Client, namespace: str, count: int) -> None:
    """Creates the given number of tickets, as fast as the API server accepts them."""
    await _concurrently([create_ticket(client, namespace, f"many-{number}") for number in range(count)])


async def delete_tickets(client: Client, namespace: str, seconds: float = 300) -> None:
    """Deletes every ticket of a namespace, and waits until the operator has removed all finalizers."""
    tickets = await _tickets(client, namespace)
    await _concurrently([client.delete(RESOURCE, ticket.metadata.key) for ticket in tickets])
    deadline = time.monotonic() + seconds
    while left := await _tickets(client, namespace):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} tickets were not gone within {seconds:.0f} s")
        await asyncio.sleep(0.2)


async def create_ticket(client: Client, namespace: str, name: str) -> FlightTicket:
    """Creates a ticket for one seat from Mumbai to London."""
    ticket = {
        "apiVersion": "flights.com/v1",
        "kind": "FlightTicket",
        "metadata": {"name": name},
        "spec": {"from": "Mumbai", "to": "London", "number": 1},
    }
    return await client.create(RESOURCE, ticket, namespace=namespace)


async def wait_booked(client: Client, namespace: str, count: int, seconds: float = 300) -> list[FlightTicket]:
    """Waits until the given number of tickets in a namespace is booked, and returns all of its tickets."""
    deadline = time.monotonic() + seconds
    while True:
        tickets = await _tickets(client, namespace)
        booked = sum(ticket.status.phase is Phase.BOOKED for ticket in tickets)
        if booked >= count:
            return tickets
        if time.monotonic() > deadline:
            raise TimeoutError(f"{booked} of {count} tickets were booked within {seconds:.0f} s")
        await asyncio.sleep(0.2)


async def _tickets(client: Client, namespace: str) -> list[FlightTicket]:
    return [ticket async for page in client.pages(RESOURCE, namespace=namespace) for ticket in page.items]


async def _concurrently(work: Sequence[Coroutine[Any, Any, object]]) -> None:
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(job: Coroutine[Any, Any, object]) -> None:
        async with gate:
            await job

    await asyncio.gather(*(one(job) for job in work))


class Writes:
    """Counts the writes to each ticket of a namespace, without its creation, from a watch."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.of: Counter[str] = Counter()
        self._client = client
        self._namespace = namespace
        self._seen = 0
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Writes:
        page = await anext(aiter(self._client.pages(RESOURCE, namespace=self._namespace)))
        self._task = asyncio.create_task(self._count(page.resource_version))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def settle(self, quiet: float = 3.0) -> None:
        """Waits until nothing has been written for the given number of seconds."""
        seen = -1
        while seen != self._seen:
            seen = self._seen
            await asyncio.sleep(quiet)
            if self._task.done():
                self._task.result()

    async def _count(self, version: str) -> None:
        while True:  # The API server ends a watch after some minutes, and immediately if its reader is slow.
            watch = self._client.watch(RESOURCE, resource_version=version, namespace=self._namespace)
            async for event in watch:
                version = event.resource_version
                if event.object is None:
                    continue
                self._seen += 1
                if event.type is EventType.MODIFIED:
                    self.of[event.object.metadata.name] += 1
