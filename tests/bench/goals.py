"""What the runtime has set itself to reach, and whether a run has reached it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Figures = Mapping[str, Any]
Results = Mapping[str, Any]


class Goal(NamedTuple):
    """One goal.

    Attributes:
        value: What was reached; None where it was not measured.
        goal: The most that it may be.
        met: Whether it is; None where it was not measured.
        rounds: What each round has reached, where there were several: `value` is their median.
    """

    value: float | None
    goal: float
    met: bool | None
    rounds: Sequence[float] = ()


#: What the controller like for like, and the shipped operator, are held to beside a peer that does the same:
#: name -> (figure, the most of the peer's).
RATIOS = {
    "cold_wall_ratio": ("cold_seconds", 1.1),
    "cold_cpu_ratio": ("cold_cpu_seconds", 1.25),
    "storm_wall_ratio": ("storm_seconds", 1.1),
    "storm_cpu_ratio": ("storm_cpu_seconds", 1.25),
    # What the absolute goal (0.6 s) is of the peer's 0.2 s on the machine that it was set on.
    "restart_cpu_ratio": ("restart_cpu_seconds", 3.0),
}
#: By themselves: name -> (figure, the most).
LIMITS = {
    "cold_peak_mib": ("cold_peak_mib", 64.0),
    "storm_peak_mib": ("storm_peak_mib", 64.0),
    "restart_seconds": ("restart_seconds", 1.5),
    "restart_cpu_seconds": ("restart_cpu_seconds", 0.6),
    "restart_writes": ("restart_writes", 0.0),
    "idle_mib_10000": ("idle_mib", 56.0),
    "idle_mib_none": ("empty_mib", 42.0),
    "sockets": ("sockets", 40.0),
    "failed_requests": ("failed_requests", 0.0),
    "latency_median_ms": ("latency_median_ms", 15.0),
    "latency_p99_ms": ("latency_p99_ms", 40.0),
    "start_to_first_watch_seconds": ("start_seconds", 0.6),
}
#: How many tickets the growth is told of.
SIZES = (1_000, 10_000, 100_000)
#: Of the most of them, beside client-go.
LARGE = {
    "large_wall_ratio": ("cold_seconds", 1.1),
    "large_cpu_ratio": ("cold_cpu_seconds", 1.25),
    "large_peak_ratio": ("cold_peak_mib", 0.45),
}
#: On the busy node, by themselves: nobody can tell there when a watch opens.
BUSY = {name: limit for name, limit in LIMITS.items() if name != "start_to_first_watch_seconds"}
PAIRS = {"like_for_like": "client_go", "shipped": "client_go_careful"}
WRITES = {"like_for_like": 1.0, "shipped": 2.0}
#: How many faults a trial strikes at least; 30 % of the failing one's requests are 2,000.
FAULTS = {"killed": 20, "cut": 60, "failing": 1000}
#: The most of its memory early in a trial that a process may hold late in it.
MEMORY_GROWTH = 1.1


def judge(results: Results) -> dict[str, dict[str, Any]]:
    """The goals of the runs on the quiet and on the busy node, by name."""
    quiet = results.get("contestants", {})
    goals = {**_beside(quiet, LIMITS), **_grown(results.get("growth", {}).get("sizes", {}))}
    ours = quiet.get("like_for_like", {})
    goals["like_for_like.cold_cpu_ratio_stretch"] = _beside_peer(
        ours, quiet.get("client_go", {}), "cold_cpu_seconds", 1.1
    )
    goals["like_for_like.cold_cpu_to_controller_runtime"] = _beside_peer(
        ours, quiet.get("controller_runtime", {}), "cold_cpu_seconds", 1.0
    )
    settled = results.get("settled")
    goals["settled_sync_to_status_write"] = _goal(settled and settled["sync"] / settled["write"], 0.25)
    busy = _beside(results.get("busy", {}).get("contestants", {}), BUSY)
    return _told({**goals, **{f"busy.{name}": goal for name, goal in busy.items()}})


def judge_trials(trials: Results) -> dict[str, dict[str, Any]]:
    """The goals of the reliability trials, by name."""
    goals: dict[str, Goal] = {}
    for name, trial in trials.items():
        goals[f"{name}.duplicates"] = _goal(trial["duplicates"], 0.0)
        goals[f"{name}.lost"] = _goal(trial["lost"], 0.0)
        goals[f"{name}.restarts"] = _goal(len(trial["restarts"]), 0.0)
        # A trial in which nothing happened proves nothing.
        goals[f"{name}.faults_missed"] = _goal(max(0, FAULTS[name] - sum(trial["faults"].values())), 0.0)
        goals[f"{name}.memory_growth"] = _goal(memory_growth(trial), MEMORY_GROWTH)
    return _told(goals)


def passed(trial: Figures) -> bool:
    """Whether a trial did no harm, its memory stayed flat, and whatever ended the process is known."""
    growth = memory_growth(trial)
    flat = growth is not None and growth <= MEMORY_GROWTH
    explained = all(restart["last_line"] for restart in trial["restarts"])
    return trial["duplicates"] == trial["lost"] == 0 and flat and explained


def memory_growth(trial: Figures) -> float | None:
    """The memory in the last quarter of a trial as a part of that in the first."""
    first = trial["resident_mib_first"]
    return trial["resident_mib_last"] / first if first else None


def _beside(found: Results, limits: Mapping[str, tuple[str, float]]) -> dict[str, Goal]:
    """What holds on any node: beside the peer that does the same, and by itself."""
    goals: dict[str, Goal] = {}
    for subject, peer in PAIRS.items():
        ours, theirs = found.get(subject, {}), found.get(peer, {})
        for name, (figure, most) in RATIOS.items():
            goals[f"{subject}.{name}"] = _beside_peer(ours, theirs, figure, most)
        for name, (figure, most) in limits.items():
            goals[f"{subject}.{name}"] = _goal(ours.get(figure), most)
        goals[f"{subject}.writes_per_ticket"] = _goal(ours.get("cold_writes_per_ticket"), WRITES[subject])
    return goals


def _grown(sizes: Mapping[str, Results]) -> dict[str, Goal]:
    """What holds of more tickets: beside the peer that does the same, by itself, and beside fewer tickets."""
    goals: dict[str, Goal] = {}
    few, some, many = (sizes.get(str(tickets), {}) for tickets in SIZES)
    for subject, peer in PAIRS.items():
        for name, (figure, limit) in LARGE.items():
            goals[f"{subject}.{name}"] = _goal(
                _ratio(many.get(subject, {}), many.get(peer, {}), figure), limit
            )
        goals[f"{subject}.large_peak_mib_stretch"] = _goal(many.get(subject, {}).get("cold_peak_mib"), 128.0)
        for figure in ("cold_cpu_seconds", "cold_peak_mib"):
            for steps, less, more in (("1000_to_10000", few, some), ("10000_to_100000", some, many)):
                ratio = _ratio(more.get(subject, {}), less.get(subject, {}), figure)
                goals[f"{subject}.growth_{figure}_{steps}"] = _goal(ratio, 10.0)
    return goals


def _told(goals: Mapping[str, Goal]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: value for key, value in goal._asdict().items() if key != "rounds" or value}
        for name, goal in goals.items()
    }


def _goal(value: float | None, most: float, rounds: Sequence[float] = ()) -> Goal:
    return Goal(value, most, None if value is None else value <= most, rounds)


def _beside_peer(ours: Figures, theirs: Figures, figure: str, most: float) -> Goal:
    """A ratio to a peer's figure: the median over the rounds, in each of which both ran one after the other.

    The machine's speed drifts by more than the contestants differ; within a round, less.
    """
    pairs = list(zip(ours.get("rounds", ()), theirs.get("rounds", ()), strict=False))
    if len(pairs) < 2:
        return _goal(_ratio(ours, theirs, figure), most)
    ratios = [ratio for mine, other in pairs if (ratio := _ratio(mine, other, figure)) is not None]
    return _goal(statistics.median(ratios) if ratios else None, most, ratios)


def _ratio(ours: Figures, theirs: Figures, figure: str) -> float | None:
    mine, other = ours.get(figure), theirs.get(figure)
    return mine / other if mine and other else None
