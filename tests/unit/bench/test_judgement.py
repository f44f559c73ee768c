"""How the benchmark judges a run, and what it tells of one."""

import json
from pathlib import Path

import pytest

from tests.bench import goals, profile, report

PEER = {"cold_seconds": 10.0, "cold_cpu_seconds": 3.0, "cold_peak_mib": 50.0}
OURS = {
    "cold_seconds": 10.5,
    "cold_cpu_seconds": 3.9,
    "cold_peak_mib": 60.0,
    "cold_writes_per_ticket": 1.0,
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


def test_a_goal_is_met_up_to_its_limit_and_what_was_not_measured_is_none() -> None:
    judged = goals.judge(RESULTS)
    assert judged["like_for_like.cold_wall_ratio"] == {"value": 1.05, "goal": 1.1, "met": True}
    assert judged["like_for_like.cold_cpu_ratio"]["met"] is False
    assert judged["like_for_like.restart_writes"] == {"value": 0, "goal": 0.0, "met": True}
    assert judged["like_for_like.writes_per_ticket"]["met"] is True
    assert judged["settled_sync_to_status_write"]["value"] == 0.2
    assert not [name for name in judged if name.startswith("shipped")]
    assert "like_for_like.large_cpu_ratio" not in judged


def test_the_page_has_a_column_for_each_who_took_part_and_says_what_was_not_measured(tmp_path: Path) -> None:
    runtime, page = tmp_path / "runtime.json", tmp_path / "page.md"
    runtime.write_text(json.dumps({**RESULTS, "goals": goals.judge(RESULTS)}))
    report.write(runtime, tmp_path / "none.json", page)
    text = page.read_text()
    assert "|  | client-go, typed | the runtime, like for like |" in text
    assert "| cold: CPU, s | 3.00 | 3.90 |" in text
    assert "| `like_for_like.cold_cpu_ratio` | 1.30 | 1.25 | **not met** |" in text
    assert f"## 100,000 tickets, cold\n\n{report.NOT_MEASURED}" in text
    assert "$" not in text


def test_the_comparison_beside_the_page_gets_the_same_figures_into_its_marked_part(tmp_path: Path) -> None:
    runtime, comparison = tmp_path / "runtime.json", tmp_path / "comparison.md"
    runtime.write_text(json.dumps({**RESULTS, "goals": {}}))
    comparison.write_text("before\n<!-- figures: old -->\nold\n<!-- end of figures -->\nafter\n")
    for _ in range(2):
        report.write(runtime, tmp_path / "none.json", tmp_path / "page.md")
        lines = comparison.read_text().splitlines()
        assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
        assert "`./inv bench.runtime`, run of 2026-11-23, on 2 cores:" in lines
        assert "|  | the runtime, like for like |" in lines
        assert "| CPU for 10,000 objects, s | 3.90 |" in lines
    comparison.write_text("nothing is marked")
    with pytest.raises(ValueError, match="has no part between"):
        report.write(runtime, tmp_path / "none.json", tmp_path / "page.md")


def test_a_layer_is_that_of_the_innermost_frame() -> None:
    seen = profile.read(
        "main (flights_operator/__main__.py:1);sync (pilothouse/playbook/reconciler.py:9) 3\n"
        "main (flights_operator/__main__.py:1);write (asyncio/sslproto.py:20) 1\n"
        "main (flights_operator/__main__.py:1);EpollSelector.select (selectors.py:451) 9\n"
    )
    assert seen.layers() == [("pilothouse.playbook", 0.75), ("TLS", 0.25)]
    assert seen.within(["sync"]) == [("sync", 0.75)]
    assert seen.functions(1) == [("sync (pilothouse/playbook/reconciler.py:9)", 0.75)]
