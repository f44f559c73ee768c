"""How the benchmark of the etcd operator judges a run, and what its page shows."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devcluster.shell import ClusterError
from etcd_operator.etcd import Endpoint
from tests.bench.etcd import goals, report, rows, run
from tests.bench.etcd.bad_specs import REFUSED, SILENT, WARNED
from tests.bench.etcd.cost import Counts, counts
from tests.bench.etcd.results import Cost, Fleet, Results, Sample, multiple, summary
from tests.bench.etcd.rows import ROWS, Rows
from tests.etcd.history import Begin, End, History
from tests.etcd.proof import Access, Examination

METRICS = """\
# TYPE rest_client_requests_total counter
rest_client_requests_total{code="200",host="api",method="GET"} 12.0
rest_client_requests_total{code="404",host="api",method="GET"} 1.0
rest_client_requests_total{code="200",host="api",method="PATCH"} 5.0
# TYPE rest_client_request_duration_seconds histogram
rest_client_request_duration_seconds_bucket{host="api",le="+Inf",verb="GET"} 4.0
rest_client_request_duration_seconds_count{host="api",verb="GET"} 4.0
rest_client_request_duration_seconds_sum{host="api",verb="GET"} 0.5
rest_client_request_duration_seconds_count{host="api",verb="PATCH"} 5.0
rest_client_request_duration_seconds_count{host="api",verb="POST"} 2.0
# TYPE etcd_client_requests counter
etcd_client_requests_total{code="OK",method="Status"} 30.0
etcd_client_requests_total{code="none",method="MemberList"} 3.0
"""


def sample(number: int, seconds: float, failed: int = 0, gap: float = 50.0) -> Sample:
    return Sample(number, seconds=seconds, failed_writes=failed, longest_gap=gap, bare_pod=5.0, lost=0)


def results(**samples: list[Sample]) -> Results:
    named = {name.replace("_", "-"): each for name, each in samples.items()}
    return Results("2026-11-29", "2 cores", 3, samples=named)


def cost(clusters: int = 1, writes: int = 0, resident: float = 60.0) -> Cost:
    return Cost(
        clusters=clusters,
        members=3,
        seconds=120.0,
        resident=resident,
        peak=70.0,
        cpu_seconds=1.2,
        writes=writes,
        renewals=60,
        reads=0,
        watches=14,
        etcd_calls=48 * clusters,
    )


def verdicts(found: Results) -> dict[str, bool | None]:
    return {each.name: each.met for each in goals.judge(found)}


def line_of(text: str, title: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f"| {title}"))


def test_the_median_of_all_runs_decides() -> None:
    found = results(pod=[sample(1, 3.0), sample(2, 9.0), sample(3, 4.0)])
    assert summary(found.samples["pod"], "seconds") == (4.0, 3.0, 9.0)
    assert verdicts(found)["pod.seconds"] is True
    found.samples["pod"][0] = sample(1, 4.1)
    assert verdicts(found)["pod.seconds"] is False


def test_a_failed_run_counts_as_one_that_never_healed() -> None:
    failed = Sample(2, bare_pod=5.0, error="Timed out after 90 s.")
    found = results(pod=[sample(1, 3.0), failed, sample(3, 3.5)])
    assert summary(found.samples["pod"], "seconds") == (3.5, 3.0, math.inf)
    assert verdicts(found)["pod.seconds"] is True
    found = results(pod=[sample(1, 3.0), failed, failed])
    assert verdicts(found)["pod.seconds"] is False


def test_figures_that_a_run_does_not_have_are_left_out() -> None:
    found = results(leader=[sample(1, 3.0, gap=90.0), Sample(2, seconds=3.0), sample(3, 3.0, gap=110.0)])
    assert summary(found.samples["leader"], "longest_gap") == (100.0, 90.0, 110.0)
    assert summary([Sample(1, seconds=3.0)], "longest_gap") is None
    assert verdicts(results(leader=[Sample(1, seconds=3.0)]))["leader.longest_gap"] is None


def test_a_multiple_is_the_median_of_the_ratios_within_the_runs() -> None:
    slow = Sample(2, seconds=12.0, bare_pod=10.0)
    found = multiple([sample(1, 6.0), slow, Sample(3, seconds=7.0)])
    assert found is not None
    assert found.median == pytest.approx(1.2)
    assert multiple([Sample(1, seconds=7.0)]) is None


def test_what_was_not_measured_has_no_verdict() -> None:
    assert set(verdicts(Results("", "", 0)).values()) == {None}


def test_every_lost_write_of_any_row_misses_the_goal() -> None:
    found = results(pod=[sample(1, 3.0)], volume=[Sample(1, seconds=9.0, lost=2), Sample(2, lost=1)])
    assert found.lost == 3
    assert verdicts(found)["lost_writes"] is False
    judged = verdicts(results(pod=[sample(1, 3.0)]))
    assert (judged["lost_writes"], judged["runs_not_read_back"]) == (True, True)


def test_a_run_that_was_not_read_back_misses_a_goal() -> None:
    judged = verdicts(results(pod=[sample(1, 3.0), Sample(2, error="Timed out after 90 s.")]))
    assert (judged["lost_writes"], judged["runs_not_read_back"]) == (True, False)


class Cluster:
    """A cluster that never heals, with one of two members behind the client Service."""

    async def service(self) -> Endpoint:
        return Endpoint("10.0.0.1", "")

    def endpoints(self) -> dict[str, Endpoint]:
        return {**self.serving(), "b": Endpoint("10.0.0.3", "")}

    def serving(self) -> dict[str, Endpoint]:
        return {"a": Endpoint("10.0.0.2", "")}


class Writer:
    file = Path("history.jsonl")

    def wait_acknowledged(self) -> None:
        """Its writes are acknowledged."""


@contextmanager
def writing(*_: object) -> Iterator[Writer]:
    yield Writer()


async def measured(cluster: Any, folder: Path, healed: Callable[[], Awaitable[float]]) -> Sample:
    async def change() -> None:
        """The test changes nothing."""

    return await Rows(cluster, Access(), folder, 1)._changed("out", change, healed)


async def never() -> float:
    raise ClusterError("Timed out after 90 s. Not reached: 5 members serve.\nMore.")


async def test_the_writes_of_a_failed_row_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def examine(_: object, members: Mapping[str, Endpoint]) -> Examination:
        asked.append({*members})
        return Examination(History.of([Begin(0, 1, 1), End(1)]).figures(), ["a: k1 does not exist"], [])

    monkeypatch.setattr(rows, "writing", writing)
    monkeypatch.setattr(rows, "examine", examine)
    monkeypatch.setattr(History, "load", lambda _: History.of([Begin(0, 1, 1), End(1)]))
    found = await measured(Cluster(), tmp_path, never)
    assert (found.error, found.lost) == ("Timed out after 90 s. Not reached: 5 members serve.", 1)
    assert (found.seconds, found.failed_writes) == (None, None)
    assert asked == [{"a"}], "a member that does not serve cannot answer"

    async def healed() -> float:
        return time.monotonic()

    found = await measured(Cluster(), tmp_path / "healed", healed)
    assert (found.error, found.lost, found.failed_writes) == ("", 1, 0)
    assert asked[1:] == [{"a", "b"}]


async def test_a_failed_row_that_cannot_be_read_back_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(*_: object) -> Examination:
        raise AssertionError("The keys could not be read back:\nUnavailable")

    monkeypatch.setattr(rows, "writing", writing)
    monkeypatch.setattr(rows, "examine", examine)
    found = await measured(Cluster(), tmp_path, never)
    assert found.lost is None
    assert found.error.startswith("Timed out")
    assert found.problems == ("The keys could not be read back:\nUnavailable",)

    class Silent(Cluster):
        def serving(self) -> dict[str, Endpoint]:
            return {}

    found = await measured(Silent(), tmp_path / "silent", never)
    assert (found.lost, found.problems) == (None, ("No member serves, so no write could be read back.",))


def test_the_goals_of_what_is_measured_once() -> None:
    found = results()
    found.costs = {goals.ONE: cost(resident=66.0), goals.MANY: cost(goals.FLEET, writes=1)}
    found.fleet = Fleet(goals.FLEET, goals.FLEET, seconds=90.0, median=60.0, resident=70.0, peak=75.0)
    judged = verdicts(found)
    assert judged["rss_mib.1_cluster"] is False
    assert judged[f"rss_mib.{goals.FLEET}_clusters"] is True
    assert judged["steady_writes.1_cluster"] is True
    assert judged[f"steady_writes.{goals.FLEET}_clusters"] is False
    assert judged[f"unhealthy_of_{goals.FLEET}_clusters"] is True


def test_a_bad_spec_that_is_accepted_silently_misses_the_goal() -> None:
    found = results()
    found.bad_specs = {"a": REFUSED, "b": REFUSED, "c": WARNED}
    assert verdicts(found)["bad_specs.silent"] is True
    assert line_of(report.table(found), "bad specs").endswith("| 3: 2 refused, 1 warned |  | met |")
    found.bad_specs["d"] = SILENT
    assert verdicts(found)["bad_specs.silent"] is False


def test_a_cost_is_given_for_each_cluster_and_minute() -> None:
    many = cost(clusters=50)
    assert many.each_minute(many.etcd_calls) == 24.0


def test_the_counters_of_the_operator_separate_reads_writes_and_watches() -> None:
    assert counts(METRICS) == Counts(writes=7, reads=4, watches=9, etcd_calls=33)


def test_every_row_of_the_table_is_measured() -> None:
    assert {line.name for line in goals.LINES} == ROWS.keys()


def test_the_table_shows_the_figures_of_others_the_goal_and_the_verdict() -> None:
    upgrade = [sample(1, 9.0, failed=0, gap=40.0), sample(2, 10.0, failed=3, gap=41.0)]
    text = report.table(results(upgrade=upgrade, volume=[sample(1, 16.0)]))
    assert line_of(text, "3.5.33 to").endswith(
        "| 6.4 to 8.9 / 0 / 40 | <= 15 / 0 / 100 | 9.5 / 1.5 / 40 | 1.9 | **not met** |"
    )
    assert line_of(text, "member lost").endswith("| <= 15 | 16.0 | 3.2 | **not met** |")
    assert line_of(text, "pod deleted").endswith("| <= 4 | - | - | not measured |")
    assert line_of(text, "RSS").endswith("| <= 65 / 80 | - / - |  | not measured |")


def test_the_details_show_every_run_and_the_failed_ones() -> None:
    failed = Sample(2, bare_pod=5.0, error="Timed out.")
    text = report.rows(results(leader=[sample(1, 3.0), failed, sample(3, 4.0, failed=2, gap=120.0)]))
    line = line_of(text, "leader's pod deleted")
    assert "| 2 of 3 | 4.0 (3.0 to failed) | 3.0, failed, 4.0 | 0.8 (0.6 to failed) |" in line
    assert line.endswith("| 1 (2) | 85 (120) | 0 in 2 of 3 |")


def test_the_page_of_a_whole_run_hides_nothing(tmp_path: Path) -> None:
    failed = Sample(2, error="Timed out after 90 s.\nNot reached: 3 members serve.")
    late = Sample(3, seconds=3.0, problems=("The writer itself stalled.",), lost=0)
    found = results(pod=[sample(1, 3.0), failed, late])
    found.bare_pods = [5.0, 6.0]
    found.costs = {goals.ONE: cost(writes=2)}
    found.fleet = Fleet(goals.FLEET, 49, seconds=90.0, median=60.0, resident=70.0, peak=75.0)
    found.errors = {"fleet": "One cluster was not healthy."}
    page = tmp_path / "page.md"
    report.write(found, page)
    text = page.read_text()
    assert "Run of 2026-11-29 on 2 cores." in text
    assert (
        "Lost writes in the 2 measurements whose writes were read back: 0. Those of 1 were not read back."
    ) in text
    assert "The bare pod was Ready after 5.5 (5.0 to 6.0) s." in text
    assert "- `pod`, run 2: Timed out after 90 s. Not reached: 3 members serve." in text
    assert "- `pod`, run 3: The writer itself stalled." in text
    assert "- `fleet`: One cluster was not healthy." in text
    assert "| writes to Kubernetes | 1.00 |" in text
    assert "and 49 became healthy" in text
    assert f"| `unhealthy_of_{goals.FLEET}_clusters` | 1.0 | 0 | **not met** |" in text
    assert "$" not in text


def test_a_page_without_results_says_so(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    report.write(Results("", "", 0), page)
    text = page.read_text()
    assert text.count(report.NOT_MEASURED) >= 4
    assert "**not met**" not in text
    assert "No run failed" not in text


def test_saved_results_are_loaded_again(tmp_path: Path) -> None:
    found = results(out_left=[sample(1, 12.0), Sample(2, error="Timed out.")])
    found.costs = {goals.ONE: cost()}
    found.bad_specs = {"a": REFUSED}
    found.save(tmp_path / "new" / "etcd.json")
    assert Results.load(tmp_path / "new" / "etcd.json") == found


def test_only_a_complete_run_writes_the_page_in_docs() -> None:
    assert run.Bench(run.LEAST).page == report.PAGE
    assert run.Bench(run.LEAST - 1).page.name == "etcd-trial.md"
    assert run.Bench(run.LEAST, ["pod"]).file.name == "etcd-trial.json"


def test_added_rows_replace_those_of_an_earlier_run_of_the_same_day() -> None:
    earlier = run.Bench(run.LEAST).results
    earlier.samples = {"pod": [sample(1, 3.0)], "volume": [sample(1, 9.0)]}
    earlier.costs = {goals.ONE: cost(), goals.MANY: cost(goals.FLEET)}
    earlier.errors = {"fleet": "It failed."}
    added = run.Bench(1, ["pod", "fleet"], earlier)
    assert (added.page, added.file) == (report.PAGE, run.RESULTS)
    assert added.results.samples.keys() == {"volume"}
    assert added.results.costs.keys() == {goals.ONE}
    assert added.results.errors == {}
    assert added.results.runs == run.LEAST


def test_rows_are_not_added_to_a_run_on_another_machine() -> None:
    with pytest.raises(ClusterError, match="are of 2026-11-29 on 2 cores"):
        run.Bench(1, ["pod"], results())


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(ClusterError) as caught:
        run.Bench(rows=["pods"])
    assert str(caught.value).startswith("There is no row 'pods'. The rows are: created, pod, leader, ")
