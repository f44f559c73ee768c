"""`inv bench.against`: what the runtime costs now, beside an earlier revision, in turns on one machine."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from devcluster.folders import CHECKOUT
from devcluster.progress import say
from devcluster.shell import run
from tests.bench.contestants import BUILD

RESULTS = BUILD / "against.json"
TICKETS = 10_000
ROUNDS = 3
PEER = "client_go"
OURS = ("like_for_like", "shipped")
# Seconds. One round of three contestants takes 4 minutes on 2 cores, and the first one makes the image's
# file system.
ROUND_TIMEOUT = 1800.0

# The figure, and its text.
COMPARED = {
    "start_cpu_seconds": "start: CPU, s",
    "empty_mib": "idle without tickets: RSS, MiB",
    "cold_seconds": "cold: all booked, s",
    "cold_cpu_seconds": "cold: CPU, s",
    "cold_peak_mib": "cold: peak RSS, MiB",
    "idle_mib": "idle with the tickets: RSS, MiB",
    "latency_median_ms": "create to booked, median, ms",
    "storm_seconds": "storm: all booked, s",
    "storm_cpu_seconds": "storm: CPU, s",
    "storm_peak_mib": "storm: peak RSS, MiB",
    "restart_seconds": "restart: handled, s",
    "restart_cpu_seconds": "restart: CPU, s",
}
# client-go starts within the resolution of the kernel's CPU clock, so there is no ratio to it.
ABSOLUTE = {"start_cpu_seconds"}

Round = Mapping[str, Mapping[str, float]]


class Comparison(NamedTuple):
    """One figure of one contestant in the rounds of both revisions.

    A figure is given as a multiple of client-go's in the same round, unless it is in `ABSOLUTE`.

    Attributes:
        name: The contestant.
        figure: The name of the figure.
        before: The values of the earlier revision.
        after: The values of this checkout.
    """

    name: str
    figure: str
    before: Sequence[float]
    after: Sequence[float]

    @property
    def spread(self) -> float:
        """The range of the values of one revision, the larger of the two."""
        return max(max(values) - min(values) for values in (self.before, self.after))

    @property
    def change(self) -> float:
        """How much the median has grown."""
        return statistics.median(self.after) - statistics.median(self.before)

    @property
    def worse(self) -> bool:
        """Whether the median has grown by more than the spread."""
        return self.change > self.spread


def measure(revision: str, *, rounds: int = ROUNDS, tickets: int = TICKETS) -> list[Comparison]:
    """Measures a revision and this checkout in turns.

    The revision is checked out below build/bench. The results are also written to build/bench/against.json.

    Args:
        revision: The earlier revision, as git names it.
        rounds: The number of rounds.
        tickets: The number of tickets in each.

    Returns:
        The comparisons, by contestant.
    """
    commit = run(["git", "rev-parse", "--verify", f"{revision}^{{commit}}"], cwd=CHECKOUT, timeout=60).strip()
    earlier = _worktree(commit)
    found: dict[str, list[Round]] = {"before": [], "after": []}
    for number in range(rounds):
        for when, checkout in (("before", earlier), ("after", CHECKOUT)):
            say(f"Round {number + 1} of {rounds}: {when}, in {checkout}")
            found[when].append(_round(checkout, tickets))
            RESULTS.write_text(json.dumps({"commit": commit, "tickets": tickets, **found}, indent=1))
    return compare(found["before"], found["after"])


def compare(before: Sequence[Round], after: Sequence[Round]) -> list[Comparison]:
    """Returns the comparison of each figure of each contestant."""
    return [
        Comparison(name, figure, _values(before, name, figure), _values(after, name, figure))
        for name in OURS
        for figure in COMPARED
    ]


def table(comparisons: Sequence[Comparison]) -> str:
    """Returns the comparisons as a table in Markdown."""
    lines = [
        "| contestant | figure | before | after | change | spread | worse |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in comparisons:
        unit = "" if each.figure in ABSOLUTE else " x client-go"
        numbers = [f"{statistics.median(each.before):.2f}", f"{statistics.median(each.after):.2f}"]
        lines.append(
            f"| {each.name} | {COMPARED[each.figure]}{unit} | {' | '.join(numbers)} | {each.change:+.2f} | "
            f"{each.spread:.2f} | {'yes' if each.worse else 'no'} |"
        )
    return "\n".join(lines)


def _values(rounds: Sequence[Round], name: str, figure: str) -> list[float]:
    if figure in ABSOLUTE:
        return [each[name][figure] for each in rounds]
    return [each[name][figure] / each[PEER][figure] for each in rounds]


def _worktree(commit: str) -> Path:
    folder = BUILD / "against" / commit
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(["git", "worktree", "add", "--detach", folder, commit], cwd=CHECKOUT, timeout=120)
    return folder


def _round(checkout: Path, tickets: int) -> Round:
    file = BUILD / "against-round.json"
    folders = [checkout / "operator", checkout / "examples", checkout]
    # -P: the folder of the file has modules with the names of modules of the standard library.
    words: list[str | Path] = [
        sys.executable,
        "-P",
        Path(__file__).with_name("one_round.py"),
        file,
        str(tickets),
    ]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    run(words, cwd=checkout, env=variables, timeout=ROUND_TIMEOUT)
    found: Round = json.loads(file.read_text())
    return found
