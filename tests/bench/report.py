"""docs/benchmarks.md: what the last runs found. The prose is in benchmarks.md beside this file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from tests.bench import contestants
from tests.bench import goals as judgement

TEMPLATE = Path(__file__).with_name("benchmarks.md")
PAGE = CHECKOUT / "docs" / "benchmarks.md"
NOT_MEASURED = "Not measured in this run."
MET = {True: "met", False: "**not met**", None: "not measured"}
#: How much is shown of what a process logged last.
LINE = 200
LIKE = ("client_go", "controller_runtime", "bare_loop", "kopf_tuned", "like_for_like")
CAREFUL = ("client_go_careful", "shipped")
DEFAULTS = ("kopf_defaults", "shipped_defaults")
ALL_DEFAULTS = ("client_go_defaults", "controller_runtime_defaults", *DEFAULTS)
ANSIBLE = ("ansible", "ansible_defaults", "client_go", "like_for_like", "shipped")
BUSY = (
    "client_go",
    "controller_runtime",
    "kopf_tuned",
    "kopf_defaults",
    "like_for_like",
    "client_go_careful",
    "shipped",
)


class Row(NamedTuple):
    """A line of a table: its title, the figures that slashes join, how each is written."""

    title: str
    figures: Sequence[str]
    form: str = "{:.1f}"


SIZES = (
    Row("cold: all booked, s", ("cold_seconds",)),
    Row("cold: CPU, s", ("cold_cpu_seconds",), "{:.2f}"),
    Row("cold: peak RSS, MiB", ("cold_peak_mib",), "{:.0f}"),
)
COUNTS = (
    Row("writes per ticket / failed requests", ("cold_writes_per_ticket", "failed_requests"), "{:.0f}"),
    Row("double bookings", ("duplicate_bookings",), "{:.0f}"),
    Row("sockets at most", ("sockets",), "{:.0f}"),
)
SHORT = (
    *SIZES,
    *COUNTS,
    Row("idle RSS: with the tickets / with none, MiB", ("idle_mib", "empty_mib"), "{:.0f}"),
)
ROWS = (
    *SHORT,
    Row("idle: CPU, ms per s", ("idle_cpu_ms_per_second",)),
    Row("create to booked, median / p99 of 50, ms", ("latency_median_ms", "latency_p99_ms")),
    Row("storm, 10,000 changed: all booked, s", ("storm_seconds",)),
    Row("storm: CPU, s", ("storm_cpu_seconds",), "{:.2f}"),
    Row("storm: peak RSS, MiB", ("storm_peak_mib",), "{:.0f}"),
    Row("storm: airline requests per ticket", ("storm_airline_requests_per_ticket",), "{:.2f}"),
    Row("restart: handled, s", ("restart_seconds",), "{:.2f}"),
    Row("restart: CPU, s", ("restart_cpu_seconds",), "{:.2f}"),
    Row("restart: writes", ("restart_writes",), "{:.0f}"),
    Row("process start to first watch open, s", ("start_seconds",), "{:.2f}"),
)
FEW = (
    *SIZES,
    Row("CPU per ticket, ms", ("cpu_per_ticket_ms",)),
    Row("writes per ticket", ("cold_writes_per_ticket",)),
)
#: What the comparison tells of whom.
COSTS = (
    Row("CPU for 10,000 objects, s", ("cold_cpu_seconds",), "{:.2f}"),
    Row("peak RSS meanwhile, MiB", ("cold_peak_mib",), "{:.0f}"),
    Row("idle RSS: with the 10,000 / with none, MiB", ("idle_mib", "empty_mib"), "{:.0f}"),
    Row("process start to first watch open, s", ("start_seconds",), "{:.2f}"),
)
BESIDE = ("like_for_like", "controller_runtime", "kopf_tuned")
TITLES = {
    entry.name: entry.title
    for entry in (*contestants.ENTRIES, *contestants.DEFAULTS, *chain(*contestants.SIZES.values()))
}
#: Trial -> what was done.
TRIALS = {
    "killed": "API server killed and started again 20 times",
    "cut": "the watch cut 60 times, each second or as soon as it is open again",
    "failing": "30 % of the requests to the API server and to the airline fail",
}


def write(runtime: Path, reliability: Path, page: Path = PAGE) -> None:
    """Writes the page from the results that there are.

    Args:
        runtime: Of `inv bench.runtime`; may be missing, as may its parts.
        reliability: Of `inv bench.reliability`; may be missing.
        page: What is written.
    """
    results, trials = (_read(file) for file in (runtime, reliability))
    main, busy, growth = results.get("contestants", {}), results.get("busy", {}), results.get("growth", {})
    text = Template(TEMPLATE.read_text()).substitute(
        machine=next((each["machine"] for each in (results, busy, growth) if "machine" in each), None),
        date=_date(results),
        rounds=results.get("rounds", 0),
        like=_table(ROWS, main, LIKE),
        careful=_table(ROWS, main, CAREFUL),
        defaults=_table(SHORT, main, DEFAULTS),
        defaults_of_all=_table((*SIZES, *COUNTS), results.get("defaults", {}), ALL_DEFAULTS),
        growth=_growth(growth.get("sizes", {})),
        growth_date=_date(growth, results),
        ansible_version=toolchain.TOOLS["ansible-operator"].version,
        ansible=_ansible(results.get("ansible", {})),
        settled=_settled(results.get("settled")),
        busy=_table(ROWS, busy.get("contestants", {}), BUSY),
        busy_date=_date(busy, results),
        goals=_goals(results.get("goals", {})),
        reliability=_reliability(trials.get("trials", {})),
        reliability_date=_date(trials),
        reliability_goals=_goals(trials.get("goals", {})),
    )
    page.write_text(text)
    compare(results, page.with_name("comparison.md"))


def compare(results: Mapping[str, Any], page: Path) -> None:
    """Writes what each costs into the marked part of the comparison; without such a page or run, nothing."""
    if "contestants" not in results or not page.exists():
        return
    where = f"`./inv bench.runtime`, run of {results['date']}, on {results['machine']}:"
    told = "\n\n".join(
        [where, _table(COSTS, results["contestants"], BESIDE), *_each(results.get("ansible", {}))]
    )
    marked = r"(?s)(<!-- figures[^\n]*-->\n).*(\n<!-- end of figures -->)"
    text, parts = re.subn(marked, lambda part: f"{part[1]}\n{told}\n{part[2]}", page.read_text())
    if parts != 1:
        raise ValueError(f"{page} has no part between <!-- figures --> and <!-- end of figures -->")
    page.write_text(text)


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _date(results: Mapping[str, Any], others: Mapping[str, Any] | None = None) -> str:
    """When a run was made; and on what, if that is something else than the other run's."""
    if "date" not in results:
        return ""
    elsewhere = others and "machine" in others and others["machine"] != results["machine"]
    return f"Run of {results['date']}{', on ' + results['machine'] if elsewhere else ''}."


def _table(rows: Sequence[Row], found: Mapping[str, Any], names: Sequence[str] | Mapping[str, str]) -> str:
    # One that only took part in a smaller section is not in this one.
    columns = [name for name in names if "cold_seconds" in found.get(name, {})]
    if not columns:
        return NOT_MEASURED
    lines = [["", *(TITLES[name] for name in columns)], ["---"] * (len(columns) + 1)]
    for row in rows:
        cells = [[_cell(found[name].get(figure), row.form) for figure in row.figures] for name in columns]
        lines.append([row.title, *(" / ".join(cell) for cell in cells)])
    return _lines(lines)


def _growth(sizes: Mapping[str, Mapping[str, Any]]) -> str:
    if not sizes:
        return NOT_MEASURED
    return "\n\n".join(
        f"{int(tickets):,} tickets:\n\n{_table(SIZES, found, TITLES)}" for tickets, found in sizes.items()
    )


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _ansible(found: Mapping[str, Mapping[str, Any]]) -> str:
    if "ansible" not in found or "shipped" not in found:
        return NOT_MEASURED
    each = {
        name: {**figures, "cpu_per_ticket_ms": figures["cold_cpu_seconds"] / figures["tickets"] * 1000}
        for name, figures in found.items()
    }
    ours, theirs = each["shipped"], each["ansible"]
    return (
        f"{_table(FEW, each, ANSIBLE)}\n\n{theirs['tickets']:.0f} tickets each. ansible-operator takes "
        f"{theirs['cold_cpu_seconds'] / ours['cold_cpu_seconds']:.0f} times the CPU of the shipped operator."
    )


def _each(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence on what one object costs ansible-operator; none where it was not measured."""
    each = {
        name: figures["cold_cpu_seconds"] / figures["tickets"] * 1000
        for name, figures in found.items()
        if name in ("ansible", "like_for_like")
    }
    if len(each) < 2:
        return []
    many, theirs, ours = found["ansible"]["tickets"], each["ansible"], each["like_for_like"]
    return [
        f"Of {many:.0f} such objects, each costs ansible-operator {theirs:.0f} ms of CPU, and the runtime "
        f"{ours:.1f} ms, start-up included."
    ]


def _settled(settled: Mapping[str, float] | None) -> str:
    if settled is None:
        return NOT_MEASURED
    sync, written = settled["sync"], settled["write"]
    return (
        f"The sync of a ticket that is as it should be, through the whole playbook, costs {sync:.0f} us "
        f"of CPU; one status write costs the client {written:.0f} us. That is {sync / written:.2f} of it."
    )


def _goals(goals: Mapping[str, Mapping[str, Any]]) -> str:
    if not goals:
        return NOT_MEASURED
    rows = [["goal", "reached", "at most", "", "in each round"], ["---"] * 5]
    for name, goal in goals.items():
        rounds = ", ".join(f"{each:.2f}" for each in goal.get("rounds", ()))
        rows.append(
            [f"`{name}`", _cell(goal["value"], "{:.2f}"), f"{goal['goal']:g}", MET[goal["met"]], rounds]
        )
    counts = Counter(goal["met"] for goal in goals.values())
    unknown = f" {counts[None]} were not measured." if counts[None] else ""
    return f"{counts[True]} of {counts[True] + counts[False]} are met.{unknown}\n\n{_lines(rows)}"


def _reliability(trials: Mapping[str, Mapping[str, Any]]) -> str:
    if not trials:
        return NOT_MEASURED
    rows = [
        [
            "",
            "faults",
            "settled after the last change, s",
            "double bookings",
            "lost",
            "restarts of the process",
            "RSS, median of the first / the last quarter, MiB",
            "",
        ],
        ["---"] * 8,
    ]
    for name, trial in trials.items():
        rows.append(
            [
                TRIALS[name],
                ", ".join(f"{count} x {fault}" for fault, count in sorted(trial["faults"].items())),
                f"{trial['converged_seconds_after']:.0f}",
                str(trial["duplicates"]),
                str(trial["lost"]),
                str(len(trial["restarts"])),
                f"{trial['resident_mib_first']:.1f} / {trial['resident_mib_last']:.1f}",
                "passed" if judgement.passed(trial) else "**failed**",
            ]
        )
    ended = [
        f"- {name}: the process ended with {restart['exit_code']}: `{restart['last_line'][:LINE]}`"
        for name, trial in trials.items()
        for restart in trial["restarts"]
    ]
    return "\n".join([_lines(rows), *(["", *ended] if ended else [])])
