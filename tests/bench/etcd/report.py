"""docs/benchmarks-etcd.md: what the last run found. The prose is in page.md beside this file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template

from devcluster.folders import CHECKOUT
from tests.bench.etcd import goals
from tests.bench.etcd.bad_specs import BAD_SPECS, REFUSED, REPORTED, SILENT, WARNED
from tests.bench.etcd.goals import FORMS, LINES, Line
from tests.bench.etcd.results import Cost, Fleet, Results, Sample, Summary, multiple, summary

TEMPLATE = Path(__file__).with_name("page.md")
PAGE = CHECKOUT / "docs" / "benchmarks-etcd.md"
NOT_MEASURED = "Not measured."
_MET: Mapping[bool | None, str] = {True: "met", False: "**not met**", None: "not measured"}
#: The most characters of an error that the page shows.
_SHOWN = 300


def write(results: Results, page: Path = PAGE) -> None:
    """Writes the page.

    Args:
        results: What was measured. Any part may be missing.
        page: The file.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(
        Template(TEMPLATE.read_text()).substitute(
            date=f"Run of {results.date} on {results.machine}." if results.date else NOT_MEASURED,
            version=goals.VERSION,
            bad_specs=len(BAD_SPECS),
            runs=f"{results.runs} runs" if results.runs else "the runs",
            table=table(results),
            lost=_lost(results),
            bare_pod=_bare_pod(results.bare_pods),
            rows=rows(results),
            problems=_failures(results),
            costs=_costs(results.costs),
            fleet=_fleet(results.fleet),
            goals=_goals(results),
        )
    )


def table(results: Results) -> str:
    """Returns the table of goals, with what others need."""
    lines = [
        [
            "three members, at least 50 writes a second",
            "etcd-io main",
            "cozystack 0.5",
            "without an operator",
            "goal",
            "measured, median",
            "x bare pod",
            "",
        ],
        ["---"] * 8,
    ]
    lines += [_line(results, line) for line in LINES]
    lines += [_bad_specs(results), _memory(results)]
    return _markdown(lines)


def _line(results: Results, line: Line) -> list[str]:
    samples = results.samples.get(line.name, ())
    found = [summary(samples, figure) for figure in line.limits]
    cells = [
        _number(each.median if each else None, FORMS[figure])
        for figure, each in zip(line.limits, found, strict=True)
    ]
    met = _all_met([each.met for each in goals.of_row(results, line)])
    ratio = multiple(samples) if "seconds" in line.limits else None
    return [
        line.title,
        line.etcd_io,
        line.cozystack,
        line.manual,
        line.goal,
        " / ".join(cells) if any(found) else "-",
        _number(ratio.median if ratio else None, "{:.1f}"),
        _MET[met],
    ]


def _bad_specs(results: Results) -> list[str]:
    """Returns the row of the specs with mistakes, which are applied once."""
    counts = Counter(results.bad_specs.values())
    said = [f"{counts[each]} {each}" for each in (REFUSED, REPORTED, WARNED, SILENT) if counts[each]]
    return [
        "bad specs",
        "accepted silently",
        "most accepted",
        "",
        "refused or warned, each with a sentence",
        f"{counts.total()}: {', '.join(said)}" if said else "-",
        "",
        _MET[goals.of_bad_specs(results).met],
    ]


def _memory(results: Results) -> list[str]:
    """Returns the row of the operator's memory, which is measured once."""
    judged = goals.of_memory(results)
    return [
        f"RSS of the operator with 1 cluster / with {goals.FLEET}, MiB",
        "58 to 60",
        "61 to 63",
        "",
        "<= " + " / ".join(f"{each.most:g}" for each in judged),
        " / ".join(_number(each.value, "{:.0f}") for each in judged),
        "",
        _MET[_all_met([each.met for each in judged])],
    ]


def _all_met(verdicts: Sequence[bool | None]) -> bool | None:
    if False in verdicts:
        return False
    return None if None in verdicts else True


def rows(results: Results) -> str:
    """Returns a table of all rows with the figures of each run."""
    lines = [
        [
            "",
            "runs",
            "s: median (least to most)",
            "in each run, s",
            "x bare pod: median (least to most)",
            "failed writes: median (most)",
            "longest gap, ms: median (most)",
            "lost writes",
        ],
        ["---"] * 8,
    ]
    lines += [
        [line.title.rpartition(", s")[0] or line.title.partition(":")[0], *_details(samples)]
        for line in LINES
        if (samples := results.samples.get(line.name))
    ]
    return _markdown(lines) if len(lines) > 2 else NOT_MEASURED


def _details(samples: Sequence[Sample]) -> list[str]:
    good = [each for each in samples if not each.error]
    runs = f"{len(good)} of {len(samples)}" if len(good) < len(samples) else str(len(good))
    return [
        runs,
        _range(summary(samples, "seconds"), FORMS["seconds"]),
        ", ".join("failed" if each.error else _number(each.seconds, FORMS["seconds"]) for each in samples),
        _range(multiple(samples), "{:.1f}"),
        _worst(summary(good, "failed_writes"), FORMS["failed_writes"]),
        _worst(summary(good, "longest_gap"), FORMS["longest_gap"]),
        _lost_of(samples),
    ]


def _lost_of(samples: Sequence[Sample]) -> str:
    known = [each.lost for each in samples if each.lost is not None]
    return str(sum(known)) + (f" in {len(known)} of {len(samples)}" if len(known) < len(samples) else "")


def _range(found: Summary | None, form: str) -> str:
    if found is None:
        return "-"
    least, most = _number(found.least, form), _number(found.most, form)
    return f"{_number(found.median, form)} ({least} to {most})"


def _worst(found: Summary | None, form: str) -> str:
    return "-" if found is None else f"{_number(found.median, form)} ({_number(found.most, form)})"


def _bare_pod(seconds: Sequence[float]) -> str:
    if not seconds:
        return f"The bare pod: {NOT_MEASURED.lower()}"
    found = summary([Sample(run, seconds=each) for run, each in enumerate(seconds, 1)], "seconds")
    return f"The bare pod was Ready after {_range(found, '{:.1f}')} s."


def _lost(results: Results) -> str:
    if not results.samples:
        return f"Lost writes: {NOT_MEASURED.lower()}"
    done, others = results.read_back
    text = f"Lost writes in the {done} measurements whose writes were read back: {results.lost}."
    return f"{text} Those of {others} were not read back." if others else text


def _failures(results: Results) -> str:
    problems = "\n".join(_problems(results))
    return problems or ("No run failed." if results.samples else "")


def _problems(results: Results) -> Iterator[str]:
    for name, samples in results.samples.items():
        for each in samples:
            for text in (each.error, *each.problems):
                if text:
                    yield f"- `{name}`, run {each.run}: {_one_line(text)}"
    for name, text in results.errors.items():
        yield f"- `{name}`: {_one_line(text)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_SHOWN]


def _costs(costs: Mapping[str, Cost]) -> str:
    if not costs:
        return NOT_MEASURED
    lines = [["", *(_title(cost) for cost in costs.values())], ["---"] * (len(costs) + 1)]
    for title, values in _cost_rows(list(costs.values())):
        lines.append([title, *values])
    return _markdown(lines)


def _title(cost: Cost) -> str:
    clusters = "1 cluster" if cost.clusters == 1 else f"{cost.clusters} clusters"
    return f"{clusters} of {cost.members} member{'' if cost.members == 1 else 's'}"


def _cost_rows(costs: Sequence[Cost]) -> Iterator[tuple[str, list[str]]]:
    def each_minute(name: str) -> list[str]:
        return [f"{cost.each_minute(getattr(cost, name)):.2f}" for cost in costs]

    def in_all(name: str) -> list[str]:
        return [f"{getattr(cost, name) / cost.seconds * 60:.1f}" for cost in costs]

    yield "window, s", [f"{cost.seconds:.0f}" for cost in costs]
    yield "writes to Kubernetes", each_minute("writes")
    yield "reads from Kubernetes", each_minute("reads")
    yield "calls to members", each_minute("etcd_calls")
    yield "renewals of watches, for all clusters together", in_all("watches")
    yield "renewals of the Lease, for all clusters together", in_all("renewals")
    yield (
        "CPU for all clusters together, ms per s",
        [f"{c.cpu_seconds / c.seconds * 1000:.1f}" for c in costs],
    )
    yield "RSS of the operator / its peak, MiB", [f"{c.resident:.1f} / {c.peak:.1f}" for c in costs]


def _fleet(fleet: Fleet | None) -> str:
    if fleet is None:
        return NOT_MEASURED
    return (
        f"{fleet.clusters} clusters of one member were created at the same time, and {fleet.healthy} became "
        f"healthy: half of them within {fleet.median:.0f} s, the last one after {fleet.seconds:.0f} s. The "
        f"RSS of the operator was then {fleet.resident:.0f} MiB, and its peak {fleet.peak:.0f} MiB."
    )


def _goals(results: Results) -> str:
    judged = goals.judge(results)
    lines = [["goal", "measured", "at most", ""], ["---"] * 4]
    lines += [
        [f"`{each.name}`", _number(each.value, "{:.1f}"), f"{each.most:g}", _MET[each.met]] for each in judged
    ]
    counts = Counter(each.met for each in judged)
    return f"{counts[True]} of {len(judged)} are met, {counts[None]} were not measured.\n\n{_markdown(lines)}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return "failed" if math.isinf(value) else form.format(value)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
