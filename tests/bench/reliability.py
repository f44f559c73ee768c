"""`inv bench.reliability`: the shipped operator while the API server dies, watches are cut, requests fail.

Three trials with 1,000 tickets each. At the end of each, every ticket must be booked once at the airline, as
its spec asks, and its status must name that booking.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from flights_operator.types import FLIGHT_TICKET
from pilothouse.kube import AlreadyExists, Client, KubeError
from tests.bench import runtime
from tests.bench.contestants import BUILD, SHIPPED, Place
from tests.bench.faulty import FaultyProxy
from tests.bench.load import at_once, change_one, create_one
from tests.bench.node import QuietNode
from tests.bench.usage import Contestant

RESULTS = BUILD / "reliability.json"
TICKETS = 1000
KILLS = 20
CUT_SECONDS = 60
FAILING = 0.3
PATIENCE = 600.0
#: Seconds between two attempts at what an API server that is down refuses.
AGAIN = 0.2


class Supervised:
    """The operator, started again whenever it ends, as the kubelet does."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.restarts = 0
        self.contestant: Contestant

    async def run(self) -> None:
        """Until cancelled."""
        for number in itertools.count():
            self.restarts = number
            with SHIPPED.start(self._place) as contestant:
                self.contestant = contestant
                await asyncio.to_thread(contestant.wait)


class Trials:
    """The three of them; `results` is what goes to build/bench/reliability.json."""

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}

    def run(self) -> dict[str, dict[str, Any]]:
        """Runs all, writes the results."""
        asyncio.run(self._run())
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(self.results, indent=2) + "\n")
        return self.results

    async def _run(self) -> None:
        async with runtime.running_bench(BUILD / "reliability") as bench:
            for name, trial in (("killed", self._killed), ("cut", self._cut), ("failing", self._failing)):
                print(f"bench: {name}", flush=True)
                bench.node.restore("empty")
                runtime.post(f"{bench.place.airline}/reset")
                async with Client(
                    bench.node.config(), user_agent="pilothouse-bench", connections=34
                ) as client:
                    self.results[name] = await trial(bench.node, client, bench.place)

    async def _killed(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """The API server is killed 20 times while tickets are created and changed."""
        async with self._supervised(place) as operator:
            memory = 0.0
            for number in range(KILLS):
                work = asyncio.create_task(self._wave(client, number, KILLS))
                await asyncio.sleep(0.3)
                node.stop("kube-apiserver")
                await asyncio.sleep(0.5)
                node.start_api_server()
                await asyncio.to_thread(node.wait_ready)
                await work
                if number == KILLS // 4:
                    memory = operator.contestant.memory().resident
            return await self._verdict(client, place, operator, memory, lambda: {"API server killed": KILLS})

    async def _cut(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """Every watch is cut each second for a minute."""
        async with self._proxy(node) as proxy, self._supervised(replace(place, server=proxy.url)) as operator:
            memory, began, waves = 0.0, time.monotonic(), 30
            for number in range(CUT_SECONDS):
                if number % 2 == 0:
                    await self._wave(client, number // 2, waves)
                await asyncio.sleep(max(0.0, began + number + 1 - time.monotonic()))
                proxy.cut_watches()
                if number == CUT_SECONDS // 4:
                    memory = operator.contestant.memory().resident
            return await self._verdict(client, place, operator, memory, lambda: proxy.faults)

    async def _failing(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """30 % of the requests, to the API server and to the airline, fail: to the end."""
        async with self._proxy(node) as proxy, FaultyProxy(place.airline, seed=2) as airline:
            proxy.rate = airline.rate = FAILING
            there = replace(place, server=proxy.url, airline=airline.url)
            async with self._supervised(there) as operator:
                memory, waves = 0.0, 20
                for number in range(waves):
                    await self._wave(client, number, waves)
                    if number == waves // 4:
                        memory = operator.contestant.memory().resident
                return await self._verdict(
                    client, place, operator, memory, lambda: proxy.faults + airline.faults
                )

    async def _wave(self, client: Client, number: int, waves: int) -> None:
        """Creates one wave of the tickets, and changes those of the wave before."""
        await at_once(_wave(number, waves), _again(partial(create_one, client)))
        if number:
            await at_once(_wave(number - 1, waves), _again(lambda name: change_one(client, name, 2)))

    async def _verdict(
        self,
        client: Client,
        place: Place,
        operator: Supervised,
        memory: float,
        faults: Callable[[], Mapping[str, int]],
    ) -> dict[str, Any]:
        began = time.monotonic()
        while wrong := await self._wrong(client, place):
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"{len(wrong)} tickets did not converge, such as {wrong[0]}")
            await asyncio.sleep(1)
        seconds = time.monotonic() - began
        held = runtime.get(f"{place.airline}/statistics")
        return {
            "tickets": TICKETS,
            "faults": dict(faults()),
            "converged_seconds_after": seconds,
            "duplicates": held["created"] - TICKETS,
            "lost": TICKETS - held["bookings"],
            "restarts": operator.restarts,
            "resident_mib_early": memory,
            "resident_mib_end": operator.contestant.memory().resident,
        }

    async def _wrong(self, client: Client, place: Place) -> list[str]:
        """The tickets whose booking or status is not what the spec asks for."""
        held = {each["reference"]: each for each in runtime.get(f"{place.airline}/bookings")["items"]}
        wrong, count = [], 0
        async for page in client.pages(FLIGHT_TICKET.resource):
            for ticket in page.items:
                count += 1
                booking = held.get(ticket.metadata.uid)
                right = (
                    booking is not None
                    and booking["seats"] == ticket.spec.number == ticket.status.booked_seats
                    and booking["id"] == ticket.status.booking_id
                    and ticket.status.observed_generation == ticket.metadata.generation
                )
                if not right:
                    wrong.append(ticket.metadata.name)
        return wrong if count == TICKETS else [*wrong, f"{count} tickets"]

    @asynccontextmanager
    async def _supervised(self, place: Place) -> AsyncIterator[Supervised]:
        place.write()
        operator = Supervised(place)
        task = asyncio.create_task(operator.run())
        await asyncio.sleep(2)
        try:
            yield operator
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def _proxy(self, node: QuietNode) -> AsyncIterator[FaultyProxy]:
        # With the server's own certificate: to the operator it is the server.
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(node.ca_file, node.ca_file.with_suffix(".key"))
        async with FaultyProxy(
            node.url, server, ssl.create_default_context(cafile=str(node.ca_file))
        ) as proxy:
            yield proxy


def _wave(number: int, waves: int) -> list[str]:
    size = TICKETS / waves
    return [f"t-{index:04d}" for index in range(round(number * size), round((number + 1) * size))]


def _again(request: Callable[[str], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """The request, repeated until it succeeds: the API server may be down."""

    async def repeated(name: str) -> None:
        while True:
            try:
                await request(name)
                return
            except AlreadyExists:
                return
            except KubeError:
                await asyncio.sleep(AGAIN)

    return repeated
