"""`inv bench.runtime`: the shipped operator beside what else one could write it with, in one run.

Every contestant does the same work against the same API server, as the same service account, with the same
booking API, which answers at once. CPU time is the process's own, as the kernel counts it.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from pilothouse.kube import Client
from tests.bench import contestants as peers
from tests.bench import goals, load
from tests.bench.contestants import BUILD, Place
from tests.bench.node import NAMESPACE, QuietNode, install
from tests.bench.usage import Contestant

RESULTS = BUILD / "runtime.json"
TICKETS = 10_000
ONE_BY_ONE = 50
#: The name that sorts behind all others: when it is booked after a restart, all have been looked at.
LAST = "zz-last"
#: Seconds for one step of one contestant.
PATIENCE = 600.0
#: Seconds without a write after which the work counts as done, and memory is read.
QUIET = 1.0
#: Figures of which a repeated run's worst counts.
WORST = {"sockets", "failed_requests", "duplicate_bookings", "cold_peak_mib"}


@dataclass
class Figures:
    """What one contestant took; None where it was not measured. Seconds, MiB, numbers."""

    tickets: int = 0
    cold_seconds: float | None = None
    cold_cpu_seconds: float | None = None
    cold_peak_mib: float | None = None
    cold_writes_per_ticket: float | None = None
    idle_mib: float | None = None
    latency_median_ms: float | None = None
    latency_p99_ms: float | None = None
    storm_seconds: float | None = None
    storm_cpu_seconds: float | None = None
    storm_peak_mib: float | None = None
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


class Bench:
    """Measures one contestant at a time on one quiet node."""

    def __init__(self, node: QuietNode, place: Place) -> None:
        self.node = node
        self.place = place
        self.place.write()

    async def prepare(self, tickets: int) -> None:
        """Makes a state of the server with so many tickets that nobody has booked yet."""
        self.node.restore("empty")
        async with self._client() as client:
            await load.at_once(_names(tickets), partial(load.create_one, client))
        self.node.save(str(tickets))

    async def empty(self, entry: Starts) -> Figures:
        """Start-up and idle memory without a single ticket. The server is the one that runs."""
        figures = Figures()
        with entry.start(self.place) as contestant:
            ends = time.monotonic() + 60
            while not (opened := self.node.watches_since(contestant.started)):
                contestant.check()
                if time.monotonic() > ends:
                    raise TimeoutError(f"{entry.name} has opened no watch of tickets")
                await asyncio.sleep(0.05)
            figures.start_seconds = opened[0] - contestant.started
            await asyncio.sleep(3)
            figures.start_cpu_seconds = contestant.cpu_seconds()
            figures.empty_mib = contestant.memory().resident
        return figures

    async def cold(self, entry: Starts, tickets: int, *, thorough: bool) -> Figures:
        """Has a contestant book what nobody has booked; if asked to be thorough, measures all else, too."""
        figures = Figures(tickets)
        self.node.restore(str(tickets))
        post(f"{self.place.airline}/reset")
        refused = self.node.failed_requests().total()
        async with self._client() as client, load.Observer(client) as observer:
            began = time.perf_counter()
            with entry.start(self.place) as contestant:
                done = await observer.until(
                    lambda: len(observer.booked) == tickets, contestant.check, PATIENCE
                )
                figures.cold_seconds = done - began
                await observer.quiet(QUIET)
                memory = contestant.memory()
                figures.cold_cpu_seconds = contestant.cpu_seconds()
                figures.cold_peak_mib, figures.idle_mib = memory.peak, memory.resident
                figures.cold_writes_per_ticket = sum(observer.writes.values()) / tickets
                if thorough:
                    await asyncio.sleep(3)
                    figures.idle_mib = contestant.memory().resident
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
            figures.failed_requests = failed + self.node.failed_requests().total() - refused
        return figures

    def settled(self) -> dict[str, float]:
        """The CPU of a settled ticket's sync and of a status write, microseconds; one ticket is booked."""
        account = self.place.folder / "account"
        where: list[str | Path] = [
            self.node.url,
            account / "ca.crt",
            account / "token",
            NAMESPACE,
            _names(1)[0],
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.settled", *where],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{CHECKOUT / 'operator'}:{CHECKOUT}"},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

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
        cpu = contestant.cpu_seconds()
        observer.booked.clear()
        began = time.perf_counter()
        await load.at_once(_names(figures.tickets), lambda name: load.change_one(client, name, 2))
        done = await observer.until(
            lambda: len(observer.booked) == figures.tickets, contestant.check, PATIENCE
        )
        figures.storm_seconds = done - began
        await observer.quiet(QUIET)
        figures.storm_cpu_seconds = contestant.cpu_seconds() - cpu
        figures.storm_peak_mib = contestant.memory().peak

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

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        config = self.node.config()
        async with Client(config, user_agent="pilothouse-bench", connections=load.IN_FLIGHT + 2) as client:
            yield client


def get(url: str) -> dict[str, Any]:
    """The answer of the booking API."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: dict[str, Any] = json.loads(answer.read())
        return body


def post(url: str) -> None:
    """Tells the booking API to do something."""
    urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=10).close()


class Run:
    """The whole of it; `results` is what goes to build/bench/runtime.json.

    Args:
        rounds: How often the cold run of each contestant is repeated; its figures are medians.
        large: Also 100,000 tickets.
        defaults: Also kopf and the shipped operator without any tuning.
    """

    def __init__(self, *, rounds: int = 2, large: bool = False, defaults: bool = True) -> None:
        self.rounds, self.large, self.defaults = rounds, large, defaults
        self.results: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(),
            "rounds": rounds,
            "contestants": {},
        }

    def run(self) -> dict[str, Any]:
        """Measures, judges, and writes the results."""
        peers.install_tools()
        began = time.monotonic()
        asyncio.run(self._measure())
        self.results["minutes"] = (time.monotonic() - began) / 60
        self.results["goals"] = goals.judge(self.results)
        RESULTS.write_text(json.dumps(self.results, indent=2) + "\n")
        return self.results

    async def _measure(self) -> None:
        async with running_bench() as bench:
            await self._empty(bench)
            await bench.prepare(TICKETS)
            found: dict[str, list[Figures]] = {entry.name: [] for entry in peers.TUNED}
            for number in range(self.rounds):
                for entry in peers.TUNED if number == 0 else peers.REPEATED:
                    _say(f"{entry.title}: {TICKETS} tickets")
                    found[entry.name].append(await bench.cold(entry, TICKETS, thorough=number == 0))
                    if number == 0 and entry is peers.SHIPPED:
                        self.results["settled"] = bench.settled()
            for name, figures in found.items():
                self._note("contestants", name, medians(figures))
            await self._sizes(bench)
            if self.defaults:
                for entry in peers.DEFAULTS:
                    _say(f"{entry.title}: {TICKETS} tickets")
                    self._note(
                        "contestants", entry.name, _told(await bench.cold(entry, TICKETS, thorough=False))
                    )

    async def _empty(self, bench: Bench) -> None:
        bench.node.restore("empty")
        for entry in peers.ENTRIES:
            _say(f"{entry.title}: start, no ticket")
            self._note("contestants", entry.name, _told(await bench.empty(entry)))

    async def _sizes(self, bench: Bench) -> None:
        sizes = {"growth": 1_000, **({"large": 100_000} if self.large else {})}
        for section, size in sizes.items():
            await bench.prepare(size)
            for entry in peers.GROWN[size]:
                _say(f"{entry.title}: {size} tickets")
                self._note(section, entry.name, _told(await bench.cold(entry, size, thorough=False)))

    def _note(self, section: str, name: str, figures: Mapping[str, float]) -> None:
        self.results.setdefault(section, {}).setdefault(name, {}).update(figures)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(self.results, indent=2) + "\n")


def medians(runs: Sequence[Figures]) -> dict[str, float]:
    """Of each figure the median over those runs that measured it; of connections and failures the most."""
    combined: dict[str, float] = {}
    for name in Figures.__dataclass_fields__:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if values:
            combined[name] = max(values) if name in WORST else statistics.median(values)
    return combined


def machine() -> str:
    """What the figures belong to, in a sentence."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, "
        f"CPython {platform.python_version()}, kube-apiserver {toolchain.TOOLS['kubernetes'].version}, "
        f"controller-runtime {toolchain.TOOLS['bench'].version}"
    )


@asynccontextmanager
async def running_bench(folder: Path = BUILD) -> AsyncIterator[Bench]:
    """A quiet node with the kind, its empty state saved, and the booking API; `folder` takes the files."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_airline() as airline,
        QuietNode(_assets(Path(name)), folder) as node,
    ):
        async with Client(node.config(), user_agent="pilothouse-bench") as client:
            token = await install(client)
        node.save("empty")
        yield Bench(node, Place(node.url, node.ca_file, token, airline, folder / "place"))


@contextmanager
def running_airline() -> Iterator[str]:
    """The booking API; yields its URL."""
    with subprocess.Popen([toolchain.binary("bench-airline")], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _assets(folder: Path) -> Path:
    """The folder, with the programs of the server."""
    for name in ("etcd", "kube-apiserver"):
        (folder / name).symlink_to(toolchain.binary(name))
    return folder


def _names(tickets: int) -> list[str]:
    return [f"t-{number:06d}" for number in range(tickets)]


def _told(figures: Figures) -> dict[str, float]:
    return {name: value for name, value in asdict(figures).items() if value is not None}


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)
