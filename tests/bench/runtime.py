"""`inv bench.runtime`: the shipped operator beside what else one could write it with, in one run.

Every contestant does the same work against the same API server, as the same service account, with the same
booking API, which answers at once. CPU time is the process's own, as the kernel counts it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from devcluster import toolchain
from tests.bench import contestants as peers
from tests.bench import goals, image
from tests.bench.busy import busy_bench
from tests.bench.contestants import BUILD, Entry
from tests.bench.machine import hardware
from tests.bench.measure import Bench, Figures, N, medians, told
from tests.bench.quiet import quiet_bench

RESULTS = BUILD / "runtime.json"
TICKETS = 10_000
#: The smallest section has a hundredth of them.
LEAST = 100


class Run:
    """One run on one node; what it finds is the section of that node in the results.

    The quiet node's figures are the results themselves, the busy node's are below "busy", those of growing
    numbers of tickets below "growth": each run leaves the others' as they are.

    Attributes:
        results: What goes to the file.

    Args:
        tickets: How many; in the other sections in proportion.
        rounds: How often each contestant is measured, in turns; its figures are medians.
        file: Takes the results.
    """

    def __init__(self, *, tickets: int = TICKETS, rounds: int = 3, file: Path = RESULTS) -> None:
        self.tickets, self.rounds, self.file = tickets, rounds, file
        self.results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self._section: dict[str, Any] = {
            "date": datetime.now(UTC).date().isoformat(),
            "tickets": tickets,
            "rounds": rounds,
            "contestants": {},
        }

    def quiet(self, *, defaults: bool = True) -> dict[str, Any]:
        """Measures on the quiet node, judges, and writes the results.

        Args:
            defaults: Also everybody without any tuning.
        """
        others: dict[str, Any] = {
            name: self.results[name] for name in ("busy", "growth") if name in self.results
        }
        self.results = self._section
        self.results.update(others)
        sizes = {"ansible": self.tickets // 100}
        if defaults:
            sizes["defaults"] = self.tickets // 10
        return self._run(lambda: self._quiet(sizes, defaults))

    def growth(self, sizes: Sequence[int]) -> dict[str, Any]:
        """Measures cold runs of so many tickets each on the quiet node, judges, and writes the results."""
        self.results["growth"] = self._section
        self._section["sizes"] = {}
        return self._run(lambda: self._growth(sizes))

    def busy(self) -> dict[str, Any]:
        """Measures on the busy node, judges, and writes the results."""
        self.results["busy"] = self._section
        return self._run(self._busy)

    def _run(self, measure: Callable[[], Coroutine[Any, Any, None]]) -> dict[str, Any]:
        peers.install_tools()
        # Known once the image's interpreter is there.
        self._section["machine"] = machine()
        began = time.monotonic()
        asyncio.run(measure())
        self._section["minutes"] = (time.monotonic() - began) / 60
        self.results["goals"] = goals.judge(self.results)
        self._write()
        return self.results

    async def _quiet(self, sizes: Mapping[str, int], defaults: bool) -> None:
        async with quiet_bench() as bench:
            await self._empty(bench, peers.ENTRIES)
            await self._rounds(bench, peers.TUNED)
            for section, size in sizes.items():
                await self._once(bench, self._part(section), peers.SIZES[section], size)
            if defaults:
                await self._once(bench, self._part("contestants"), peers.DEFAULTS, self.tickets)

    async def _growth(self, sizes: Sequence[int]) -> None:
        async with quiet_bench() as bench:
            for tickets in sizes:
                found = self._section["sizes"].setdefault(str(tickets), {})
                await self._once(bench, found, peers.GROWTH, tickets)

    async def _busy(self) -> None:
        async with busy_bench() as bench:
            await self._empty(bench, peers.BUSY)
            await self._rounds(bench, peers.BUSY)

    async def _empty(self, bench: Bench[N], entries: Sequence[Entry]) -> None:
        await bench.node.fill(0)
        for entry in entries:
            _say(f"{entry.title}: start, no ticket")
            self._note(self._part("contestants"), entry, told(await bench.empty(entry)))

    async def _rounds(self, bench: Bench[N], entries: Sequence[Entry]) -> None:
        """Everybody in turns, in every other round backwards: who comes first has no advantage."""
        found: dict[str, list[Figures]] = {}
        for number in range(self.rounds):
            for entry in reversed(entries) if number % 2 else entries:
                if number and entry in peers.ONCE:
                    continue
                _say(f"round {number + 1} of {self.rounds}, {entry.title}: {self.tickets} tickets")
                figures = await bench.cold(entry, self.tickets, thorough=True)
                found.setdefault(entry.name, []).append(figures)
                rounds = {"rounds": [told(each) for each in found[entry.name]]}
                self._note(self._part("contestants"), entry, medians(found[entry.name]) | rounds)
                if number == 0 and entry is peers.SHIPPED:
                    self._section["settled"] = bench.settled()

    async def _once(
        self, bench: Bench[N], part: dict[str, Any], entries: Sequence[Entry], tickets: int
    ) -> None:
        for entry in entries:
            _say(f"{entry.title}: {tickets} tickets")
            self._note(part, entry, told(await bench.cold(entry, tickets, thorough=False)))

    def _part(self, name: str) -> dict[str, Any]:
        """A part of the section, in which each entry has its figures."""
        part: dict[str, Any] = self._section.setdefault(name, {})
        return part

    def _note(self, part: dict[str, Any], entry: Entry, figures: Mapping[str, Any]) -> None:
        part.setdefault(entry.name, {}).update(figures)
        self._write()

    def _write(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(self.results, indent=2) + "\n")


def machine() -> str:
    """What the figures belong to, in a sentence."""
    return (
        f"{hardware()}, "
        f"CPython {image.python_version()} as the image has it, "
        f"kube-apiserver {toolchain.TOOLS['kubernetes'].version}, "
        f"controller-runtime {toolchain.TOOLS['bench'].version}"
    )


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)
