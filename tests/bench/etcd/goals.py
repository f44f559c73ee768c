"""The table of the benchmark: its rows, what others need for them, and the goals of the operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.bench.etcd.bad_specs import SILENT
from tests.bench.etcd.results import Results, summary

#: The figures of a row in the order of the table, and how each is written.
FORMS: Mapping[str, str] = {"seconds": "{:.1f}", "failed_writes": "{:g}", "longest_gap": "{:.0f}"}
#: The versions of the upgrade. All other rows run the first one.
VERSION, TARGET = "3.5.33", "3.6.14"
#: The number of clusters that are created at the same time.
FLEET = 50
#: The names of what the operator costs: with one cluster of three members, and with many of one.
ONE, MANY = "one", "many"
#: The most memory of the operator's process, in MiB.
MEMORY = {ONE: 65, MANY: 80}


_COUNTS = {ONE: "1_cluster", MANY: f"{FLEET}_clusters"}


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        name: The name of the row.
        title: Its title.
        limits: Figure -> the most that its median may be.
        etcd_io: What etcd-io/etcd-operator needs.
        cozystack: What cozystack/etcd-operator needs.
        manual: What an administrator needs with kubectl and etcdctl.
    """

    name: str
    title: str
    limits: Mapping[str, float]
    etcd_io: str = ""
    cozystack: str = ""
    manual: str = ""

    @property
    def goal(self) -> str:
        """The limits, as the table shows them."""
        return "<= " + " / ".join(f"{most:g}" for most in self.limits.values())


LINES: Sequence[Line] = (
    Line(
        "created",
        "created to the first write through the client Service, s",
        {"seconds": 10},
        "31 to 36",
        "34 to 49",
        "6.6 to 9.0",
    ),
    Line("pod", "pod deleted, data kept, s", {"seconds": 4}, "3.4 to 4.6", "6.6 to 7.6", "3 to 4"),
    Line(
        "leader",
        "leader's pod deleted: failed writes / longest gap, ms",
        {"failed_writes": 0, "longest_gap": 100},
        "0 / 72",
        "0 / 119",
        "0 / 50",
    ),
    Line(
        "volume",
        "member lost with its volume, s",
        {"seconds": 15},
        "never",
        "214",
        "5.7 to 7.3 after MemberRemove",
    ),
    Line("out", "3 to 5, s", {"seconds": 14}, "20 to 28", "30 to 44"),
    Line(
        "in",
        "5 to 3: s / failed writes",
        {"seconds": 4, "failed_writes": 0},
        "4.6 to 5.4",
        "1.8 to 2.2",
    ),
    Line("out-left", "3 to 5 with volumes left from an earlier scale-in, s", {"seconds": 14}, "hangs"),
    Line("two", "two of three deleted, volumes kept, s", {"seconds": 6}, "not trusted", "not tried"),
    Line(
        "upgrade",
        f"{VERSION} to {TARGET}: s / failed writes / longest gap, ms",
        {"seconds": 15, "failed_writes": 0, "longest_gap": 100},
        "45 / 62 of 2,480 / 1,500, only with a resize",
        "134 / 176, only manually",
        "6.4 to 8.9 / 0 / 40",
    ),
)


class Goal(NamedTuple):
    """A goal.

    Attributes:
        name: The row and the figure.
        most: The most that the value may be.
        value: What was measured. None: nothing was.
    """

    name: str
    most: float
    value: float | None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met. None: not measured."""
        return None if self.value is None else self.value <= self.most


def judge(results: Results) -> list[Goal]:
    """Returns all goals with what was measured."""
    return [*_rows(results), *_once(results)]


def of_row(results: Results, line: Line) -> list[Goal]:
    """Returns the goals of a row with the medians that were measured."""
    samples = results.samples.get(line.name, ())
    return [
        Goal(f"{line.name}.{figure}", most, found.median if (found := summary(samples, figure)) else None)
        for figure, most in line.limits.items()
    ]


def of_memory(results: Results) -> list[Goal]:
    """Returns the goals of the operator's memory."""
    found = {name: results.costs.get(name) for name in MEMORY}
    return [
        Goal(f"rss_mib.{_COUNTS[name]}", MEMORY[name], cost.resident if cost else None)
        for name, cost in found.items()
    ]


def of_bad_specs(results: Results) -> Goal:
    """Returns the goal that a user learns of every mistake in a spec."""
    found = [*results.bad_specs.values()]
    return Goal("bad_specs.silent", 0, found.count(SILENT) if found else None)


def _rows(results: Results) -> Iterator[Goal]:
    for line in LINES:
        yield from of_row(results, line)
    yield Goal("lost_writes", 0, results.lost if results.samples else None)
    yield Goal("runs_not_read_back", 0, results.read_back[1] if results.samples else None)


def _once(results: Results) -> Iterator[Goal]:
    yield of_bad_specs(results)
    yield from of_memory(results)
    for name in (ONE, MANY):
        cost = results.costs.get(name)
        yield Goal(f"steady_writes.{_COUNTS[name]}", 0, cost.writes if cost else None)
    fleet = results.fleet
    yield Goal(f"unhealthy_of_{FLEET}_clusters", 0, fleet.clusters - fleet.healthy if fleet else None)
