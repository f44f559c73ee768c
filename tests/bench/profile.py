"""`inv bench.profile`: where CPU time goes, in a cold run and in a storm of changes; writes docs/profile."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from devcluster.folders import CHECKOUT
from tests.bench import contestants as peers
from tests.bench import image
from tests.bench.contestants import Entry, Place
from tests.bench.measure import Bench, Figures
from tests.bench.quiet import QuietNode, quiet_bench
from tests.bench.usage import Contestant

FOLDER = CHECKOUT / "docs" / "profile"
TICKETS = 10_000
HERTZ = 200
#: Layer -> the files that belong to it; the first that fits counts.
LAYERS = {
    "sending (the socket's write, in the kernel)": r"SocketTransport\.write ",
    "TLS": r"/sslproto\.py|\(ssl\.py",
    "asyncio": r"\(asyncio/",
    "HTTP (aiohttp, yarl, multidict)": r"\((aiohttp|yarl|multidict|aiohappyeyeballs|http)/",
    "metrics": r"\(prometheus_client/|telemetry/(metrics|series)\.py",
    "logs": r"\(logging/|telemetry/logs\.py",
    "pilothouse.kube": r"\(pilothouse/kube/",
    "pilothouse.informer": r"\(pilothouse/informer/",
    "pilothouse.queue": r"\(pilothouse/queue/",
    "pilothouse.process": r"\(pilothouse/process/",
    "pilothouse.controller": r"\(pilothouse/controller/",
    "pilothouse.playbook": r"\(pilothouse/playbook/",
    "flights_operator": r"\(flights_operator/",
    "imports at the start": r"importlib|dataclasses\.py",
}
OTHER = "other"
#: What py-spy writes.
STACKS, GRAPH = "stacks.txt", "graph.svg"
#: The wait for events, and the watchdog's: for a core nobody waits who has one of his own.
WAITING = ("EpollSelector.select ", "Condition.wait ")


class Profile(NamedTuple):
    """Samples of the main thread's stacks, the outermost frame first."""

    stacks: Counter[Sequence[str]]

    @property
    def total(self) -> int:
        """All samples."""
        return self.stacks.total()

    def layers(self) -> list[tuple[str, float]]:
        """The share of each layer, by the innermost frame: what runs, not what has called it."""
        shares: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            shares[_layer(stack[-1])] += count
        return [(name, count / self.total) for name, count in shares.most_common()]

    def functions(self, most: int) -> list[tuple[str, float]]:
        """The functions in which most of the time is spent, what they call not counted."""
        spent: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            spent[stack[-1]] += count
        return [(name, count / self.total) for name, count in spent.most_common(most)]

    def within(self, patterns: Iterable[str]) -> list[tuple[str, float]]:
        """The share of functions with all that they call."""
        found: Counter[str] = Counter()
        for stack, count in self.stacks.items():
            for pattern in patterns:
                if any(frame.startswith(pattern) for frame in stack):
                    found[pattern] += count
        return [(name, count / self.total) for name, count in found.most_common()]


#: Steps of the way of a ticket, by the function that does it and all that it calls.
STEPS = (
    "Controller._work",
    "Reconciler.sync",
    "Playbook.run",
    "Airline.book",
    "Airline.find",
    "Airline.change",
    "Reconciler._write_status",
    "Reconciler._with_finalizer",
    "Announcer.tell",
    "Reflector",
)


@dataclass
class Spies:
    """py-spy beside a process, for the stacks and for the flame graph: written when the process has ended.

    The process gets a core of its own. py-spy takes one that waits for a core for one that runs; and who
    waits has most often just sent something, which wakes the receiver: sending seemed a fifth of everything.
    """

    folder: Path
    core: int
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def watch(self, contestant: Contestant) -> None:
        """Looks at it from now on."""
        os.sched_setaffinity(contestant.pids[0], [self.core])
        spy: list[str | Path] = [
            image.program(peers.KOPF_LOCK, "py-spy"),
            "record",
            "--rate",
            str(HERTZ),
            "--function",
            "--duration",
            "600",
            "--pid",
            str(contestant.pids[0]),
        ]
        # One stops the process to look at it, so that stacks are whole; a second one could not stop it, too.
        for form, name, *how in (("raw", STACKS), ("flamegraph", GRAPH, "--nonblocking")):
            with (self.folder / f"{name}.log").open("wb") as log:
                command = [*spy, "--format", form, "--output", self.folder / name, *how]
                self.running.append(subprocess.Popen(command, stdout=log, stderr=log))

    def wait(self) -> None:
        """Until everything is written."""
        for spy in self.running:
            spy.wait(60)


@dataclass(frozen=True)
class Watched:
    """An entry whose process is looked at from its start."""

    entry: Entry
    spies: Spies

    @property
    def name(self) -> str:
        """The entry's."""
        return self.entry.name

    def start(self, place: Place) -> Contestant:
        """Starts it, with py-spy beside it."""
        contestant = self.entry.start(place)
        self.spies.watch(contestant)
        return contestant


async def _cold(bench: Bench[QuietNode], spies: Spies) -> Figures:
    return await bench.cold(Watched(peers.SHIPPED, spies), TICKETS, thorough=False)


async def _storm(bench: Bench[QuietNode], spies: Spies) -> Figures:
    return await bench.storm(peers.SHIPPED, TICKETS, spies.watch)


@dataclass(frozen=True)
class Part:
    """What is profiled, on a page of its own.

    Attributes:
        name: Of the page and of the figures.
        title: What it is.
        does: What the operator does, after the number of tickets.
        measure: Measures it; the spies look at nothing else.
    """

    name: str
    title: str
    does: str
    measure: Callable[[Bench[QuietNode], Spies], Awaitable[Figures]]


PARTS = (
    Part("cold", "a cold run", "are booked, start-up included: finalizer, booking, status", _cold),
    Part("storm", "a storm", "are booked already, and all change: change of the booking, status", _storm),
)


def run() -> list[Path]:
    """Profiles each part and writes docs/profile; returns the pages."""
    peers.install_tools()
    FOLDER.mkdir(parents=True, exist_ok=True)
    return asyncio.run(_run())


async def _run() -> list[Path]:
    *others, own = sorted(os.sched_getaffinity(0))
    # What is started from now on stays there.
    os.sched_setaffinity(0, others)
    try:
        async with quiet_bench() as bench:
            return [await _profile(bench, part, own) for part in PARTS]
    finally:
        os.sched_setaffinity(0, [*others, own])


async def _profile(bench: Bench[QuietNode], part: Part, core: int) -> Path:
    with tempfile.TemporaryDirectory() as name:
        spies = Spies(Path(name), core)
        figures = await part.measure(bench, spies)
        await asyncio.to_thread(spies.wait)
        profile = read((spies.folder / STACKS).read_text())
        # Its title is the command, with folders of this machine.
        graph = re.sub(
            r">[^<>]*py-spy record [^<]*",
            f">The shipped operator in {part.title}",
            (spies.folder / GRAPH).read_text(),
        )
    (FOLDER / f"{part.name}.svg").write_text(graph)
    page = FOLDER / f"{part.name}.md"
    page.write_text(told(part, profile, figures))
    return page


def read(raw: str) -> Profile:
    """The stacks in py-spy's raw format: frames separated by semicolons, then the number of samples.

    Who waits is left out.
    """
    stacks: Counter[Sequence[str]] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(frames.split(";"))
        if not stack[-1].startswith(WAITING):
            stacks[stack] += int(count)
    return Profile(stacks)


def told(part: Part, profile: Profile, figures: Figures) -> str:
    """The page."""
    cpu = getattr(figures, f"{part.name}_cpu_seconds")
    each = cpu / figures.tickets * 1e6

    def table(head: str, rows: Iterable[tuple[str, float]]) -> str:
        lines = [f"| {head} | share | us per ticket |", "|---|---|---|"]
        lines += [f"| {name} | {share:.1%} | {share * each:.0f} |" for name, share in rows if share >= 0.002]
        return "\n".join(lines)

    return f"""\
# Where the time of {part.title} goes

{figures.tickets:,} tickets {part.does}.
The shipped operator takes {cpu:.1f} s of CPU for them on a quiet node, {each:.0f} us per ticket; py-spy looks
{HERTZ} times a second. It has a core of its own here: it never waits for one, which py-spy would take for
work. Shares are of {profile.total} samples; the wait for events is left out. Written by
`./inv bench.profile`. The flame graph: [{part.name}.svg]({part.name}.svg).

## By layer

By the innermost frame of Python: what C code does (TLS, JSON, system calls) counts for the function that
called it.

{table("layer", profile.layers())}

## By step

With all that is called; steps overlap.

{table("function", profile.within(STEPS))}

## By function

What it calls not counted.

{table("function", ((f"`{name}`", share) for name, share in profile.functions(25)))}
"""


def _layer(frame: str) -> str:
    return next((layer for layer, files in LAYERS.items() if re.search(files, frame)), OTHER)
