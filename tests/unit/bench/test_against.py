"""The comparison of two revisions: ratios to client-go in the same round, judged by the spread."""

from collections.abc import Mapping

import pytest

from tests.bench.against import COMPARED, OURS, PEER, Comparison, compare, table

FIGURES = tuple(COMPARED)


def one_round(value: float, *, peer: float = 1.0, **others: float) -> Mapping[str, Mapping[str, float]]:
    ours = dict.fromkeys(FIGURES, value) | others
    return {PEER: dict.fromkeys(FIGURES, peer), **dict.fromkeys(OURS, ours)}


def found(comparisons: list[Comparison], figure: str) -> Comparison:
    return next(each for each in comparisons if each.figure == figure)


def test_a_slow_round_is_no_change_because_the_peer_is_slow_as_well() -> None:
    comparisons = compare([one_round(2.0), one_round(2.0)], [one_round(4.0, peer=2.0), one_round(2.0)])
    assert found(comparisons, "cold_cpu_seconds").change == 0
    assert not any(each.worse for each in comparisons if each.figure != "start_cpu_seconds")


@pytest.mark.parametrize(("after", "worse"), [([2.1, 2.15], False), ([2.5, 2.6], True), ([1.0, 1.1], False)])
def test_only_a_growth_beyond_the_spread_is_worse(after: list[float], worse: bool) -> None:
    comparisons = compare([one_round(2.0), one_round(2.2)], [one_round(value) for value in after])
    assert found(comparisons, "idle_mib").worse is worse
    assert ("| yes |" in table(comparisons)) is worse


def test_the_start_is_compared_in_seconds_because_the_peer_takes_none() -> None:
    rounds = [one_round(2.0, peer=0.5, start_cpu_seconds=0.2)]
    rounds[0][PEER] = {**rounds[0][PEER], "start_cpu_seconds": 0.0}  # type: ignore[index]
    assert found(compare(rounds, rounds), "start_cpu_seconds").after == [0.2]
