"""docs/benchmarks.md: what the last runs found. The prose is in benchmarks.md beside this file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from devcluster.folders import CHECKOUT
from tests.bench import contestants

TEMPLATE = Path(__file__).with_name("benchmarks.md")
PAGE = CHECKOUT / "docs" / "benchmarks.md"
NOT_MEASURED = "Not measured in this run."
LIKE = ("client_go", "controller_runtime", "bare_loop", "kopf_tuned", "like_for_like")
CAREFUL = ("client_go_careful", "shipped")
DEFAULTS = ("kopf_defaults", "shipped_defaults")


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
SHORT = (
    *SIZES,
    Row("writes per ticket / failed requests", ("cold_writes_per_ticket", "failed_requests"), "{:.0f}"),
    Row("double bookings", ("duplicate_bookings",), "{:.0f}"),
    Row("sockets at most", ("sockets",), "{:.0f}"),
    Row("idle RSS: with the tickets / with none, MiB", ("idle_mib", "empty_mib"), "{:.0f}"),
)
ROWS = (
    *SHORT,
    Row("create to booked, median / p99 of 50, ms", ("latency_median_ms", "latency_p99_ms")),
    Row("storm, 10,000 changed: all booked, s", ("storm_seconds",)),
    Row("storm: CPU, s", ("storm_cpu_seconds",), "{:.2f}"),
    Row("restart: handled, s", ("restart_seconds",), "{:.2f}"),
    Row("restart: CPU, s", ("restart_cpu_seconds",), "{:.2f}"),
    Row("restart: writes", ("restart_writes",), "{:.0f}"),
    Row("process start to first watch open, s", ("start_seconds",), "{:.2f}"),
)
#: What the comparison tells of whom.
COSTS = (
    Row("CPU for 10,000 objects, s", ("cold_cpu_seconds",), "{:.2f}"),
    Row("peak RSS meanwhile, MiB", ("cold_peak_mib",), "{:.0f}"),
    Row("idle RSS: with the 10,000 / with none, MiB", ("idle_mib", "empty_mib"), "{:.0f}"),
    Row("process start to first watch open, s", ("start_seconds",), "{:.2f}"),
)
BESIDE = ("like_for_like", "controller_runtime", "kopf_tuned")
TITLES = {entry.name: entry.title for entry in (*contestants.ENTRIES, *contestants.DEFAULTS)}
#: Trial -> what was done.
TRIALS = {
    "killed": "API server killed and started again 20 times",
    "cut": "every watch cut each second for a minute",
    "failing": "30 % of the requests to the API server and to the airline fail",
}


def write(runtime: Path, reliability: Path, page: Path = PAGE) -> None:
    """Writes the page from the results that there are.

    Args:
        runtime: Of `inv bench.runtime`.
        reliability: Of `inv bench.reliability`; may be missing.
        page: What is written.
    """
    results = json.loads(runtime.read_text())
    main, trials = results["contestants"], json.loads(reliability.read_text()) if reliability.exists() else {}
    text = Template(TEMPLATE.read_text()).substitute(
        machine=results["machine"],
        date=results["date"],
        rounds=results["rounds"],
        like=_table(ROWS, main, LIKE),
        careful=_table(ROWS, main, CAREFUL),
        defaults=_table(SHORT, main, DEFAULTS),
        growth=_table(SIZES, results.get("growth", {}), TITLES),
        large=_table(SIZES, results.get("large", {}), TITLES),
        settled=_settled(results.get("settled")),
        goals=_goals(results["goals"]),
        reliability=_reliability(trials),
    )
    page.write_text(text)
    compare(results, page.with_name("comparison.md"))


def compare(results: Mapping[str, Any], page: Path) -> None:
    """Writes what each costs into the marked part of the comparison; without such a page or run, nothing."""
    if "contestants" not in results or not page.exists():
        return
    where = f"`./inv bench.runtime`, run of {results['date']}, on {results['machine']}:"
    told = f"{where}\n\n{_table(COSTS, results['contestants'], BESIDE)}"
    marked = r"(?s)(<!-- figures[^\n]*-->\n).*(\n<!-- end of figures -->)"
    text, parts = re.subn(marked, lambda part: f"{part[1]}\n{told}\n{part[2]}", page.read_text())
    if parts != 1:
        raise ValueError(f"{page} has no part between <!-- figures --> and <!-- end of figures -->")
    page.write_text(text)


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


def _lines(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _settled(settled: Mapping[str, float] | None) -> str:
    if settled is None:
        return NOT_MEASURED
    sync, written = settled["sync"], settled["write"]
    return (
        f"The sync of a ticket that is as it should be, through the whole playbook, costs {sync:.0f} us "
        f"of CPU; one status write costs the client {written:.0f} us. That is {sync / written:.2f} of it."
    )


def _goals(goals: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [["goal", "reached", "at most", ""], ["---"] * 4]
    for name, goal in goals.items():
        met = "met" if goal["met"] else "**not met**"
        rows.append([f"`{name}`", f"{goal['value']:.2f}", f"{goal['goal']:g}", met])
    reached = sum(bool(goal["met"]) for goal in goals.values())
    return f"{reached} of {len(goals)} are met.\n\n{_lines(rows)}"


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
            "RSS after a quarter / at the end, MiB",
        ],
        ["---"] * 7,
    ]
    for name, trial in trials.items():
        rows.append(
            [
                TRIALS[name],
                ", ".join(f"{count} x {fault}" for fault, count in sorted(trial["faults"].items())),
                f"{trial['converged_seconds_after']:.0f}",
                str(trial["duplicates"]),
                str(trial["lost"]),
                str(trial["restarts"]),
                f"{trial['resident_mib_early']:.0f} / {trial['resident_mib_end']:.0f}",
            ]
        )
    return _lines(rows)
