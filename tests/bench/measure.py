"""Measures one contestant: the same steps for each, on any node."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from pilothouse.kube import Client
from tests.bench import image, load
from tests.bench.airline import get, post
from tests.bench.contestants import OUR_PATH, Place
from tests.bench.node import NAMESPACE, Node
from tests.bench.usage import Contestant

ONE_BY_ONE = 50
#: The name that sorts behind all others: when it is booked after a restart, all have been looked at.
LAST = "zz-last"
#: Seconds for one step of one contestant: at least, and for a ticket.
PATIENCE, PATIENCE_EACH = 600.0, 0.06
#: Seconds without a write after which the work counts as done, and memory is read.
QUIET = 1.0
#: Seconds for which the CPU of an idle contestant is counted.
IDLE = 10.0
#: Seconds after which everybody has opened its watch, where the node cannot tell when it does.
STARTED = 5.0
#: Figures of which a repeated run's worst counts.
WORST = {"sockets", "failed_requests", "duplicate_bookings", "cold_peak_mib"}


@dataclass
class Figures:
    """What one contestant took; None where it was not measured. Seconds, MiB, numbers, or as named."""

    tickets: int = 0
    cold_seconds: float | None = None
    cold_cpu_seconds: float | None = None
    cold_peak_mib: float | None = None
    cold_writes_per_ticket: float | None = None
    idle_mib: float | None = None
    idle_cpu_ms_per_second: float | None = None
    latency_median_ms: float | None = None
    latency_p99_ms: float | None = None
    storm_seconds: float | None = None
    storm_cpu_seconds: float | None = None
    storm_peak_mib: float | None = None
    storm_airline_requests_per_ticket: float | None = None
    restart_seconds: float | None = None
    restart_cpu_seconds: float | None = None
    restart_writes: int | None = None
    sockets: int | None = None
    failed_requests: int | None = None
    duplicate_bookings: int | None = None
    empty_mib: float | None = None
    start_seconds: float | None = None
    start_cpu_seconds: float | None = None


class Starts(Protocol):
    """What can be measured."""

    @property
    def name(self) -> str:
        """Its name, for errors."""

    def start(self, place: Place) -> Contestant:
        """Starts it."""


N = TypeVar("N", bound=Node)


class Bench(Generic[N]):
    """Measures one contestant at a time on one node."""

    def __init__(self, node: N, place: Place) -> None:
        self.node = node
        self.place = place
        self.place.write()

    async def empty(self, entry: Starts) -> Figures:
        """Start-up and idle memory without a single ticket. The node is the one that there is."""
        figures = Figures()
        with entry.start(self.place) as contestant:
            opened = await self._first_watch(entry, contestant)
            if opened is not None:
                figures.start_seconds = opened - contestant.started
            await asyncio.sleep(3)
            figures.start_cpu_seconds = contestant.cpu_seconds()
            figures.empty_mib = contestant.memory().resident
        return figures

    async def _first_watch(self, entry: Starts, contestant: Contestant) -> float | None:
        """When it opened its first watch of tickets; None where the node cannot tell, after a while."""
        ends = time.monotonic() + 60
        while not (opened := self.node.watches_since(contestant.started)):
            contestant.check()
            if opened is None:
                await asyncio.sleep(STARTED)
                return None
            if time.monotonic() > ends:
                raise TimeoutError(f"{entry.name} has opened no watch of tickets")
            await asyncio.sleep(0.05)
        return opened[0]

    async def cold(self, entry: Starts, tickets: int, *, thorough: bool) -> Figures:
        """Has a contestant book what nobody has booked; if asked to be thorough, measures all else, too."""
        figures = Figures(tickets)
        await self._fill(tickets)
        refused = self.node.failed_requests()
        async with self._client() as client, load.Observer(client) as observer:
            began = time.perf_counter()
            with entry.start(self.place) as contestant:
                done = await self._all_booked(observer, contestant, tickets)
                figures.cold_seconds = done - began
                await observer.quiet(QUIET)
                await _alone(contestant)
                memory = contestant.memory()
                figures.cold_cpu_seconds = contestant.cpu_seconds()
                figures.cold_peak_mib, figures.idle_mib = memory.peak, memory.resident
                figures.cold_writes_per_ticket = sum(observer.writes.values()) / tickets
                if thorough:
                    await self._idle(observer, contestant, figures)
                    await self._latency(client, observer, contestant, figures)
                    await self._storm(client, observer, contestant, figures)
                figures.sockets = contestant.sockets
            if thorough:
                await self._restart(entry, client, observer, figures)
            statistics_ = get(f"{self.place.airline}/statistics")
            figures.duplicate_bookings = statistics_["created"] - len(observer.bookings)
            failed = sum(
                count for code, count in statistics_["requests"].items() if code.split()[1][0] in "45"
            )
            figures.failed_requests = failed + self.node.failed_requests() - refused
        return figures

    async def storm(self, entry: Starts, tickets: int, begins: Callable[[Contestant], None]) -> Figures:
        """Measures a contestant while tickets that it has booked change, all of them.

        Args:
            entry: Who it is.
            tickets: How many.
            begins: Called with the contestant when it has booked them, before the first changes.
        """
        figures = Figures(tickets)
        await self._fill(tickets)
        async with self._client() as client, load.Observer(client) as observer:
            with entry.start(self.place) as contestant:
                await self._all_booked(observer, contestant, tickets)
                await observer.quiet(QUIET)
                begins(contestant)
                await self._storm(client, observer, contestant, figures)
        return figures

    def settled(self) -> dict[str, float]:
        """The CPU of a settled ticket's sync and of a status write, microseconds; one ticket is booked."""
        where = [self.node.url, f"{image.ACCOUNT}/ca.crt", f"{image.ACCOUNT}/token", NAMESPACE]
        done = subprocess.run(
            image.inside(
                self.place.account, [image.PYTHON, "-m", "tests.bench.settled", *where, load.names(1)[0]]
            ),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": OUR_PATH},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    async def _fill(self, tickets: int) -> None:
        """Comes to the state with so many tickets that nobody has booked, at the airline neither."""
        await self.node.fill(tickets)
        post(f"{self.place.airline}/reset")

    async def _idle(self, observer: load.Observer, contestant: Contestant, figures: Figures) -> None:
        """Memory and CPU while nothing happens but what it does by itself."""
        await asyncio.sleep(3)
        figures.idle_mib = contestant.memory().resident
        await observer.quiet(QUIET)
        cpu, began = contestant.on_cpu_seconds(), time.perf_counter()
        await asyncio.sleep(IDLE)
        used = contestant.on_cpu_seconds() - cpu
        figures.idle_cpu_ms_per_second = used * 1000 / (time.perf_counter() - began)

    async def _latency(
        self, client: Client, observer: load.Observer, contestant: Contestant, figures: Figures
    ) -> None:
        seconds = []
        for number in range(ONE_BY_ONE):
            name = f"u-{number:03d}"
            began = time.perf_counter()
            await load.create_one(client, name)
            done = await observer.until(partial(observer.booked.__contains__, name), contestant.check, 60)
            seconds.append(done - began)
        figures.latency_median_ms = statistics.median(seconds) * 1000
        figures.latency_p99_ms = statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1000

    async def _storm(
        self, client: Client, observer: load.Observer, contestant: Contestant, figures: Figures
    ) -> None:
        await observer.quiet(QUIET)
        cpu, asked = contestant.cpu_seconds(), self._airline_requests()
        observer.booked.clear()
        began = time.perf_counter()
        await load.at_once(load.names(figures.tickets), lambda name: load.change_one(client, name, 2))
        done = await self._all_booked(observer, contestant, figures.tickets)
        figures.storm_seconds = done - began
        await observer.quiet(QUIET)
        figures.storm_cpu_seconds = contestant.cpu_seconds() - cpu
        figures.storm_peak_mib = contestant.memory().peak
        figures.storm_airline_requests_per_ticket = (self._airline_requests() - asked) / figures.tickets

    async def _restart(
        self, entry: Starts, client: Client, observer: load.Observer, figures: Figures
    ) -> None:
        await observer.quiet(QUIET)
        await load.create_one(client, LAST)
        before = sum(observer.writes.values())
        began = time.perf_counter()
        with entry.start(self.place) as contestant:
            done = await observer.until(lambda: LAST in observer.booked, contestant.check, 120)
            figures.restart_seconds = done - began
            await observer.quiet(QUIET)
            await asyncio.sleep(2)
            figures.restart_cpu_seconds = contestant.cpu_seconds()
            own = observer.writes[LAST]
        figures.restart_writes = sum(observer.writes.values()) - before - own

    async def _all_booked(self, observer: load.Observer, contestant: Contestant, tickets: int) -> float:
        patience = max(PATIENCE, PATIENCE_EACH * tickets)
        return await observer.until(lambda: len(observer.booked) == tickets, contestant.check, patience)

    def _airline_requests(self) -> int:
        """How many requests the booking API has answered since it was reset."""
        requests: dict[str, int] = get(f"{self.place.airline}/statistics")["requests"]
        return sum(requests.values())

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        config = self.node.config()
        async with Client(config, user_agent="pilothouse-bench", connections=load.IN_FLIGHT + 2) as client:
            yield client


async def _alone(contestant: Contestant) -> None:
    """Waits until the processes that it has started have ended: their CPU counts, too."""
    ends = time.monotonic() + 60
    while len(contestant.pids) > 1:
        if time.monotonic() > ends:
            raise TimeoutError("what the contestant has started does not end")
        await asyncio.sleep(0.05)


def medians(runs: Sequence[Figures]) -> dict[str, float]:
    """Of each figure the median over those runs that measured it; of connections and failures the most."""
    combined: dict[str, float] = {}
    for name in Figures.__dataclass_fields__:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if values:
            combined[name] = max(values) if name in WORST else statistics.median(values)
    return combined


def told(figures: Figures) -> dict[str, float]:
    """Those that were measured."""
    return {name: value for name, value in asdict(figures).items() if value is not None}
