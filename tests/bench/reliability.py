"""`inv bench.reliability`: the shipped operator while the API server dies, watches are cut, requests fail.

Three trials with 1,000 tickets each. At the end of each, every ticket must be booked once at the airline, as
its spec asks, and its status must name that booking.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flights_operator.types import FLIGHT_TICKET
from pilothouse.kube import AlreadyExists, Client, KubeError
from pilothouse.testing import eventually
from tests.bench import goals
from tests.bench.airline import get, post
from tests.bench.contestants import BUILD, Place
from tests.bench.faulty import FaultyProxy
from tests.bench.load import at_once, change_one, create_one
from tests.bench.quiet import QuietNode, quiet_bench
from tests.bench.supervised import Supervised, growth

RESULTS = BUILD / "reliability.json"
TICKETS = 1000
KILLS = 20
CUTS = 60
FAILING = 0.3
#: While requests fail.
WAVES = 20
PATIENCE = 600.0
#: Seconds between two attempts at what an API server that is down refuses.
AGAIN = 0.2


class Wave:
    """One wave of the tickets: they are created, then those of the wave before are changed.

    Attributes:
        refused: How many of its requests have failed; they are repeated.

    Args:
        client: Whose requests they are.
        number: Of the wave, from 0.
        waves: How many there are.
    """

    def __init__(self, client: Client, number: int, waves: int) -> None:
        self.refused = 0
        self._client = client
        self._new = _part(number, waves)
        self._old = _part(number - 1, waves) if number else []

    async def run(self) -> None:
        """Until all have succeeded."""
        await at_once(self._new, partial(self._repeat, partial(create_one, self._client)))
        await at_once(self._old, partial(self._repeat, lambda name: change_one(self._client, name, 2)))

    async def _repeat(self, request: Callable[[str], Awaitable[None]], name: str) -> None:
        while True:
            try:
                await request(name)
                return
            except AlreadyExists:
                return
            except KubeError:
                self.refused += 1
                await asyncio.sleep(AGAIN)


class Trials:
    """The three of them; `results` is what goes to build/bench/reliability.json."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {"date": datetime.now(UTC).date().isoformat(), "trials": {}}

    def run(self) -> dict[str, Any]:
        """Runs all, writes the results."""
        asyncio.run(self._run())
        return self.results

    async def _run(self) -> None:
        async with quiet_bench(BUILD / "reliability") as bench:
            for name, trial in (("killed", self._killed), ("cut", self._cut), ("failing", self._failing)):
                print(f"bench: {name}", flush=True)
                await bench.node.fill(0)
                post(f"{bench.place.airline}/reset")
                async with Client(
                    bench.node.config(), user_agent="pilothouse-bench", connections=34
                ) as client:
                    self.results["trials"][name] = await trial(bench.node, client, bench.place)
                self.results["goals"] = goals.judge_trials(self.results["trials"])
                RESULTS.write_text(json.dumps(self.results, indent=2) + "\n")

    async def _killed(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """The API server is killed 20 times while tickets are created and changed."""
        async with self._supervised(node, place, "killed") as operator:
            for number in operator.steps(KILLS):
                wave = Wave(client, number, KILLS)
                # Each time a little later in the wave.
                booked = round(TICKETS / KILLS * (number + (number + 1) / (KILLS + 1)))
                await self._kill_amid(wave, node, place, booked)
            return await self._verdict(client, place, operator, lambda: {"API server killed": KILLS})

    async def _kill_amid(self, wave: Wave, node: QuietNode, place: Place, booked: int) -> None:
        """Runs a wave; kills the API server when so many tickets are booked, the earlier waves' among them.

        It is started again once one of the wave's requests was refused.
        """
        work = asyncio.create_task(wave.run())
        await eventually(
            lambda: get(f"{place.airline}/statistics")["created"] >= booked, within=PATIENCE, every=0.01
        )
        node.stop("kube-apiserver")
        await eventually(lambda: wave.refused or work.done(), within=PATIENCE, every=0.01)
        node.start_api_server()
        await asyncio.to_thread(node.wait_ready)
        await work

    async def _cut(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """The watch is cut each second for a minute; where it is not open again by then, as soon as it is."""
        async with (
            self._proxy(node) as proxy,
            self._supervised(node, replace(place, server=proxy.url), "cut") as operator,
        ):
            began, waves = time.monotonic(), CUTS // 2
            for number in operator.steps(CUTS):
                if number % 2 == 0:
                    await Wave(client, number // 2, waves).run()
                await asyncio.sleep(max(0.0, began + number + 1 - time.monotonic()))
                await eventually(lambda: proxy.watched, within=PATIENCE, every=0.01)
                proxy.cut_watches()
            return await self._verdict(client, place, operator, lambda: proxy.faults)

    async def _failing(self, node: QuietNode, client: Client, place: Place) -> dict[str, Any]:
        """30 % of the requests, to the API server and to the airline, fail: to the end."""
        async with self._proxy(node) as proxy, FaultyProxy(place.airline, seed=2) as airline:
            proxy.rate = airline.rate = FAILING
            there = replace(place, server=proxy.url, airline=airline.url)
            async with self._supervised(node, there, "failing") as operator:
                for number in operator.steps(WAVES):
                    await Wave(client, number, WAVES).run()
                return await self._verdict(client, place, operator, lambda: proxy.faults + airline.faults)

    async def _verdict(
        self,
        client: Client,
        place: Place,
        operator: Supervised,
        faults: Callable[[], Mapping[str, int]],
    ) -> dict[str, Any]:
        began = time.monotonic()
        while wrong := await self._wrong(client, place):
            if time.monotonic() - began > PATIENCE:
                raise TimeoutError(f"{len(wrong)} tickets did not converge, such as {wrong[0]}")
            await asyncio.sleep(1)
        seconds = time.monotonic() - began
        held = get(f"{place.airline}/statistics")
        return {
            "tickets": TICKETS,
            "faults": dict(faults()),
            "converged_seconds_after": seconds,
            "duplicates": held["created"] - TICKETS,
            "lost": TICKETS - held["bookings"],
            "restarts": [each._asdict() for each in operator.restarts],
            **growth(operator.samples),
        }

    async def _wrong(self, client: Client, place: Place) -> list[str]:
        """The tickets whose booking or status is not what the spec asks for."""
        held = {each["reference"]: each for each in get(f"{place.airline}/bookings")["items"]}
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
    async def _supervised(self, node: QuietNode, place: Place, trial: str) -> AsyncIterator[Supervised]:
        place.write()
        operator = Supervised(place, trial)
        began = time.time()
        task = asyncio.create_task(operator.run())
        try:
            await eventually(lambda: node.watches_since(began), within=PATIENCE, every=0.01)
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


def _part(number: int, waves: int) -> list[str]:
    size = TICKETS / waves
    return [f"t-{index:04d}" for index in range(round(number * size), round((number + 1) * size))]
