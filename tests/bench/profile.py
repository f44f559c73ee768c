"""`inv bench.profile`: where the CPU time of the shipped operator's cold run goes; writes docs/profile."""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from devcluster.folders import CHECKOUT
from tests.bench import contestants as peers
from tests.bench.contestants import Entry, Place
from tests.bench.measure import Figures
from tests.bench.quiet import quiet_bench
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
    "metrics": r"\(prometheus_client/|telemetry/(metrics|histogram)\.py",
    "logs": r"\(logging/|telemetry/logs\.py",
    "pilothouse.kube": r"\(pilothouse/kube/",
    "pilothouse.informer": r"\(pilothouse/informer/",
    "pilothouse.queue": r"\(pilothouse/queue/",
    "pilothouse.controller": r"\(pilothouse/controller/",
    "pilothouse.playbook": r"\(pilothouse/playbook/",
    "flights_operator": r"\(flights_operator/",
    "imports at the start": r"importlib|dataclasses\.py",
}
OTHER = "other"
#: py-spy cannot tell the wait for events from that for a core.
WAITING = "EpollSelector.select "


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
    "Reconciler._write_status",
    "Reconciler._with_finalizer",
    "Announcer.tell",
    "Reflector",
)


@dataclass
class Profiled:
    """An entry whose process is looked at while it runs; `spies` write when it has ended."""

    entry: Entry
    folder: Path
    spies: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The entry's."""
        return self.entry.name

    def start(self, place: Place) -> Contestant:
        """Starts it, with py-spy beside it: for the stacks, and for the flame graph."""
        contestant = self.entry.start(place)
        spy: list[str | Path] = [
            peers.TOOLS / "bin" / "py-spy",
            "record",
            "--nonblocking",
            "--rate",
            str(HERTZ),
            "--function",
        ]
        for form, name in (("raw", "stacks.txt"), ("flamegraph", "cold.svg")):
            words: list[str | Path] = [
                "--format",
                form,
                "--output",
                self.folder / name,
                "--pid",
                str(contestant.pids[0]),
            ]
            with (self.folder / f"{name}.log").open("wb") as log:
                command = [*spy, "--duration", "600", *words]
                self.spies.append(subprocess.Popen(command, stdout=log, stderr=log))
        return contestant


async def _cold(folder: Path) -> Figures:
    async with quiet_bench() as bench:
        profiled = Profiled(peers.SHIPPED, folder)
        figures = await bench.cold(profiled, TICKETS, thorough=False)
    for spy in profiled.spies:
        await asyncio.to_thread(spy.wait, 60)
    return figures


def run() -> Path:
    """Profiles one cold run and writes docs/profile; returns the page."""
    peers.install_tools()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = asyncio.run(_cold(folder))
        profile = read((folder / "stacks.txt").read_text())
        FOLDER.mkdir(parents=True, exist_ok=True)
        # Its title is the command, with folders of this machine.
        graph = re.sub(
            r">[^<>]*py-spy record [^<]*",
            ">Cold run of the shipped operator",
            (folder / "cold.svg").read_text(),
        )
        (FOLDER / "cold.svg").write_text(graph)
    page = FOLDER / "cold.md"
    page.write_text(told(profile, figures))
    return page


def read(raw: str) -> Profile:
    """The stacks in py-spy's raw format: frames separated by semicolons, then the number of samples.

    The wait for events is left out.
    """
    stacks: Counter[Sequence[str]] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(frames.split(";"))
        if not stack[-1].startswith(WAITING):
            stacks[stack] += int(count)
    return Profile(stacks)


def told(profile: Profile, figures: Figures) -> str:
    """The page."""
    cpu = figures.cold_cpu_seconds or 0.0
    each = cpu / figures.tickets * 1e6

    def table(head: str, rows: Iterable[tuple[str, float]]) -> str:
        lines = [f"| {head} | share | us per ticket |", "|---|---|---|"]
        lines += [f"| {name} | {share:.1%} | {share * each:.0f} |" for name, share in rows if share >= 0.002]
        return "\n".join(lines)

    return f"""\
# Where the time of a cold run goes

The shipped operator books {figures.tickets:,} tickets on a quiet node, seen by py-spy {HERTZ} times a second:
{cpu:.1f} s of CPU, start-up included, {each:.0f} us per ticket (finalizer, booking, status: three
requests). Shares are of {profile.total} samples; the wait for events is left out, because py-spy cannot
tell it from the wait for a core. Written by `./inv bench.profile`. The flame graph: [cold.svg](cold.svg).

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
