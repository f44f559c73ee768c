"""How the benchmark judges a run, and what it tells of one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import contestants, goals, node, profile, report, supervised
from tests.bench.measure import Figures

PEER = {"cold_seconds": 10.0, "cold_cpu_seconds": 3.0, "cold_peak_mib": 50.0}
OURS = {
    "cold_seconds": 10.5,
    "cold_cpu_seconds": 3.9,
    "cold_peak_mib": 60.0,
    "cold_writes_per_ticket": 1.0,
    "idle_cpu_ms_per_second": 2.34,
    "storm_airline_requests_per_ticket": 2.0,
    "restart_writes": 0,
    "failed_requests": 0,
}
RESULTS = {
    "date": "2026-11-23",
    "machine": "2 cores",
    "rounds": 2,
    "contestants": {"client_go": PEER, "like_for_like": OURS},
    "settled": {"sync": 20.0, "write": 100.0},
}
TRIAL: dict[str, Any] = {
    "faults": {"watch cut": 58, "server gone": 2},
    "converged_seconds_after": 0.0,
    "duplicates": 0,
    "lost": 0,
    "restarts": [],
    **supervised.growth([40.0, 42.0, 43.0, 44.0, 44.0, 44.0, 44.0, 44.0, 44.0, 45.0]),
}


def test_a_goal_is_met_up_to_its_limit_and_what_was_not_measured_is_none() -> None:
    judged = goals.judge(RESULTS)
    assert judged["like_for_like.cold_wall_ratio"] == {"value": 1.05, "goal": 1.1, "met": True}
    assert judged["like_for_like.cold_cpu_ratio"]["met"] is False
    assert judged["like_for_like.restart_writes"] == {"value": 0, "goal": 0.0, "met": True}
    assert judged["like_for_like.writes_per_ticket"]["met"] is True
    assert judged["settled_sync_to_status_write"]["value"] == 0.2
    assert judged["like_for_like.large_cpu_ratio"] == {"value": None, "goal": 1.25, "met": None}
    assert {goal["met"] for name, goal in judged.items() if name.startswith("shipped")} == {None}


def test_a_ratio_of_several_rounds_is_the_median_of_theirs_not_that_of_the_medians(tmp_path: Path) -> None:
    def measured(*cpu: float) -> dict[str, Any]:
        rounds = [{**PEER, "cold_cpu_seconds": each} for each in cpu]
        return {**PEER, "cold_cpu_seconds": sorted(cpu)[1], "rounds": rounds}

    # The machine was half as fast in the second round, for both.
    found = {"client_go": measured(3.0, 6.0, 3.0), "like_for_like": measured(3.3, 7.2, 3.9)}
    judged = goals.judge({**RESULTS, "contestants": found})
    goal = judged["like_for_like.cold_cpu_ratio"]
    assert (goal["value"], goal["met"]) == (pytest.approx(1.2), True)
    assert goal["rounds"] == pytest.approx([1.1, 1.2, 1.3])
    assert "rounds" not in judged["settled_sync_to_status_write"]
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    runtime.write_text(json.dumps({**RESULTS, "contestants": found, "goals": judged}))
    report.write(runtime, tmp_path / "none.json", page)
    told = "| `like_for_like.cold_cpu_ratio` | 1.20 | 1.25 | met | 1.10, 1.20, 1.30 |"
    assert told in page.read_text()


def test_the_page_has_a_column_for_each_who_took_part_and_says_what_was_not_measured(tmp_path: Path) -> None:
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    runtime.write_text(json.dumps({**RESULTS, "goals": goals.judge(RESULTS)}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    assert "|  | client-go, typed | the runtime, like for like |" in text
    assert "| cold: CPU, s | 3.00 | 3.90 |" in text
    assert "| idle: CPU, ms per s | - | 2.3 |" in text
    assert "| storm: airline requests per ticket | - | 2.00 |" in text
    assert "| `like_for_like.cold_cpu_ratio` | 1.30 | 1.25 | **not met** |  |" in text
    assert "| `shipped.cold_cpu_ratio` | - | 1.25 | not measured |  |" in text
    assert f"--growth`. \n\n{report.NOT_MEASURED}" in text
    assert "$" not in text


def test_the_comparison_beside_the_page_gets_the_same_figures_into_its_marked_part(tmp_path: Path) -> None:
    runtime, comparison = tmp_path / "runtime.json", tmp_path / "comparison.md"
    few = {"ansible": {"tickets": 100, "cold_cpu_seconds": 160.0}, "like_for_like": {"tickets": 100, **OURS}}
    runtime.write_text(json.dumps({**RESULTS, "ansible": few, "goals": {}}))
    comparison.write_text("before\n<!-- figures: old -->\nold\n<!-- end of figures -->\nafter\n")
    for _ in range(2):
        report.write(runtime, tmp_path / "none.json", tmp_path / "page.md")
        lines = comparison.read_text().splitlines()
        assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
        assert "`./inv bench.runtime`, run of 2026-11-23, on 2 cores:" in lines
        assert "|  | the runtime, like for like |" in lines
        assert "| CPU for 10,000 objects, s | 3.90 |" in lines
        sentence = "Of 100 such objects, each costs ansible-operator 1600 ms of CPU, and the runtime 39.0 ms,"
        assert f"{sentence} start-up included." in lines
    comparison.write_text("nothing is marked")
    with pytest.raises(ValueError, match="has no part between"):
        report.write(runtime, tmp_path / "none.json", tmp_path / "page.md")


def test_the_busy_node_has_goals_of_its_own_beside_those_of_the_quiet_one() -> None:
    busy = {"client_go_careful": PEER, "shipped": {**OURS, "cold_peak_mib": 100.0, "sockets": 41}}
    judged = goals.judge({**RESULTS, "busy": {"contestants": busy}})
    assert judged["busy.shipped.cold_peak_mib"] == {"value": 100.0, "goal": 64.0, "met": False}
    assert judged["busy.shipped.sockets"]["met"] is False
    assert judged["busy.shipped.cold_wall_ratio"]["value"] == 1.05
    assert judged["like_for_like.cold_wall_ratio"]["value"] == 1.05
    assert judged["busy.shipped.restart_cpu_seconds"]["goal"] == 0.6
    assert "busy.shipped.start_to_first_watch_seconds" not in judged, "nobody can tell when it opens"


def test_growth_is_told_of_three_sizes_of_one_run(tmp_path: Path) -> None:
    def size(factor: float) -> dict[str, Any]:
        return {"client_go": PEER, "like_for_like": {**OURS, "cold_cpu_seconds": 3.6 * factor}}

    sizes = {"1000": size(0.125), "10000": size(1), "100000": size(11)}
    growth = {"date": "2026-11-25", "machine": "4 cores", "sizes": sizes}
    judged = goals.judge({**RESULTS, "growth": growth})
    assert judged["like_for_like.growth_cold_cpu_seconds_1000_to_10000"]["value"] == 8.0
    assert judged["like_for_like.growth_cold_cpu_seconds_10000_to_100000"]["met"] is False
    assert judged["like_for_like.large_cpu_ratio"]["value"] == pytest.approx(13.2)
    assert judged["like_for_like.cold_cpu_ratio"]["value"] == 1.3, "another run's"
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    runtime.write_text(json.dumps({**RESULTS, "growth": growth, "goals": {}}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    assert "`./inv bench.runtime --growth`. Run of 2026-11-25, on 4 cores.\n\n1,000 tickets:\n" in text
    assert "100,000 tickets:\n\n|  | client-go, typed | the runtime, like for like |" in text


def test_either_node_alone_makes_a_page(tmp_path: Path) -> None:
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    busy = {"date": "2026-11-24", "machine": "2 cores", "contestants": {"client_go_careful": PEER}}
    results = {"busy": busy}
    runtime.write_text(json.dumps({**results, "goals": goals.judge(results)}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    assert "belong to one machine: 2 cores." in text
    assert "Run of 2026-11-24.\n\n|  | client-go, as careful |" in text
    assert f"--growth`. \n\n{report.NOT_MEASURED}" in text


def test_few_tickets_are_told_by_the_cpu_for_each(tmp_path: Path) -> None:
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    few = {
        "ansible": {"tickets": 100, "cold_seconds": 90.0, "cold_cpu_seconds": 160.0, "cold_peak_mib": 900.0},
        "shipped": {"tickets": 100, "cold_seconds": 1.0, "cold_cpu_seconds": 0.5, "cold_peak_mib": 42.0},
    }
    runtime.write_text(json.dumps({**RESULTS, "ansible": few, "goals": {}}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    assert "|  | ansible-operator, tuned | the shipped operator |" in text
    assert "| CPU per ticket, ms | 1600.0 | 5.0 |" in text
    assert "100 tickets each. ansible-operator takes 320 times the CPU of the shipped operator." in text


def test_what_comes_untuned_is_told_of_all_with_fewer_tickets_and_of_two_with_all(tmp_path: Path) -> None:
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    few = {entry.name: {**PEER, "tickets": 1000} for entry in contestants.SIZES["defaults"]}
    results = {**RESULTS, "defaults": few, "contestants": {"kopf_defaults": PEER, "shipped_defaults": OURS}}
    runtime.write_text(json.dumps({**results, "goals": {}}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    titles = "kopf, defaults | the shipped operator, defaults |"
    assert f"|  | client-go, defaults | controller-runtime, defaults | {titles}" in text
    assert f"|  | {titles}" in text


def test_a_trial_passes_while_memory_is_flat_and_every_restart_is_explained() -> None:
    assert goals.memory_growth(TRIAL) == 44.5 / 41.0
    assert goals.passed(TRIAL)
    killed = {"exit_code": -9, "last_line": "killed"}
    assert goals.passed({**TRIAL, "restarts": [killed]})
    assert not goals.passed({**TRIAL, "restarts": [{**killed, "last_line": ""}]})
    assert not goals.passed({**TRIAL, "lost": 1})
    assert not goals.passed({**TRIAL, "resident_mib_last": 60.0})
    judged = goals.judge_trials({"killed": {**TRIAL, "restarts": [killed]}})
    assert judged["killed.restarts"] == {"value": 1, "goal": 0.0, "met": False}
    assert judged["killed.memory_growth"]["met"] is True
    assert judged["killed.faults_missed"]["met"] is True
    assert goals.judge_trials({"failing": TRIAL})["failing.faults_missed"]["value"] == 940


def test_the_page_says_why_a_process_ended(tmp_path: Path) -> None:
    reliability, page = tmp_path / "reliability.json", tmp_path / "page.md"
    trials = {"cut": {**TRIAL, "restarts": [{"exit_code": 1, "last_line": "lost the lease"}]}}
    found = {"date": "2026-11-24", "trials": trials, "goals": goals.judge_trials(trials)}
    reliability.write_text(json.dumps(found))
    report.write(tmp_path / "none.json", reliability, page)
    text = page.read_text()
    assert "| 2 x server gone, 58 x watch cut | 0 | 0 | 0 | 1 | 41.0 / 44.5 | passed |" in text
    assert "- cut: the process ended with 1: `lost the lease`" in text
    assert "| `cut.restarts` | 1.00 | 0 | **not met** |" in text


def test_the_last_line_is_the_last_that_says_something() -> None:
    assert supervised.last_line("one\ntwo\n\n  \n") == "two"
    assert supervised.last_line("") == ""


def test_failed_requests_are_those_for_tickets() -> None:
    metrics = (
        'apiserver_request_total{code="409",group="flights.com",verb="PATCH"} 3\n'
        'apiserver_request_total{code="200",group="flights.com",verb="PATCH"} 7\n'
        'apiserver_request_total{code="404",group="apps",verb="GET"} 5\n'
    )
    assert node.failed(metrics) == {"409": 3}


def test_each_profiled_part_has_a_page_with_the_cpu_that_it_took() -> None:
    seen = profile.read("main (flights_operator/__main__.py:1);inc (pilothouse/telemetry/series.py:9) 4\n")
    figures = Figures(tickets=1000, cold_cpu_seconds=2.0, storm_cpu_seconds=3.0)
    pages = {part.name: profile.told(part, seen, figures) for part in profile.PARTS}
    assert "# Where the time of a storm goes" in pages["storm"]
    assert "takes 3.0 s of CPU for them on a quiet node, 3000 us per ticket" in pages["storm"]
    assert "[storm.svg](storm.svg)" in pages["storm"]
    assert "| metrics | 100.0% | 3000 |" in pages["storm"]
    assert "| metrics | 100.0% | 2000 |" in pages["cold"]


def test_a_layer_is_that_of_the_innermost_frame() -> None:
    seen = profile.read(
        "main (flights_operator/__main__.py:1);sync (pilothouse/playbook/reconciler.py:9) 3\n"
        "main (flights_operator/__main__.py:1);write (asyncio/sslproto.py:20) 1\n"
        "main (flights_operator/__main__.py:1);EpollSelector.select (selectors.py:451) 9\n"
    )
    assert seen.layers() == [("pilothouse.playbook", 0.75), ("TLS", 0.25)]
    assert seen.within(["sync"]) == [("sync", 0.75)]
    assert seen.functions(1) == [("sync (pilothouse/playbook/reconciler.py:9)", 0.75)]
