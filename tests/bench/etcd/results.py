"""What a run of the benchmark has found, as it is stored, and the medians that follow from it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One measurement of one row.

    Attributes:
        run: The number of the run, from 1.
        took: Seconds for the row with its preparation and its proof.
        seconds: Seconds from the change until the cluster is healed. None: it did not heal.
        failed_writes: The writes of the writer that had no acknowledged attempt. None: not counted.
        longest_gap: The longest time without an acknowledged write, in milliseconds. None: not counted.
        bare_pod: Seconds that one bare pod with a fresh volume needed to become Ready in the same run.
        lost: The keys of members that contradict an acknowledged write. None: they could not be read back.
        problems: Why the row proves nothing, or what is wrong with the data.
        error: Why there are no figures. Empty: there are.
    """

    run: int
    took: float = 0.0
    seconds: float | None = None
    failed_writes: int | None = None
    longest_gap: float | None = None
    bare_pod: float | None = None
    lost: int | None = None
    problems: tuple[str, ...] = ()
    error: str = ""


class Cost(msgspec.Struct, frozen=True):
    """What the operator costs while nothing changes. The numbers are those of the whole window.

    Attributes:
        clusters: The number of clusters.
        members: The number of members of each.
        seconds: The length of the window.
        resident: VmRSS at the end, in MiB.
        peak: VmHWM at the end, in MiB.
        cpu_seconds: User and system time.
        writes: Writes to Kubernetes without the renewals of the Lease.
        renewals: Renewals of the Lease, which the operator needs for itself.
        reads: Reads from Kubernetes without watches.
        watches: Renewals of watches, whose number does not depend on that of the clusters.
        etcd_calls: Calls to members.
    """

    clusters: int
    members: int
    seconds: float
    resident: float
    peak: float
    cpu_seconds: float
    writes: int
    renewals: int
    reads: int
    watches: int
    etcd_calls: int

    def each_minute(self, count: float) -> float:
        """Returns a number of the window as one per cluster and minute."""
        return count / self.clusters / self.seconds * 60


class Fleet(msgspec.Struct, frozen=True):
    """Many clusters of one member that are created at the same time.

    Attributes:
        clusters: The number of clusters.
        healthy: How many of them became healthy.
        seconds: Seconds from the first creation until the last one was healthy.
        median: Seconds until half of them were healthy.
        resident: The operator's VmRSS when all were healthy, in MiB.
        peak: Its VmHWM, in MiB.
    """

    clusters: int
    healthy: int
    seconds: float
    median: float
    resident: float
    peak: float


class Results(msgspec.Struct):
    """All that one run of the benchmark has found so far.

    Attributes:
        date: The date of the run.
        machine: What it ran on.
        runs: The number of runs that were asked for.
        samples: Row -> its measurements.
        bare_pods: Seconds of the bare pod of each run.
        costs: Name -> what the operator costs while nothing changes.
        fleet: Many clusters. None: not measured.
        bad_specs: What is wrong with a spec -> how a user learns of it; see `bad_specs`.
        errors: What was measured only once -> why it failed.
    """

    date: str
    machine: str
    runs: int
    samples: dict[str, list[Sample]] = {}
    bare_pods: list[float] = []
    costs: dict[str, Cost] = {}
    fleet: Fleet | None = None
    bad_specs: dict[str, str] = {}
    errors: dict[str, str] = {}

    @property
    def lost(self) -> int:
        """The keys of members that contradict an acknowledged write, in all runs of all rows."""
        return sum(each.lost or 0 for samples in self.samples.values() for each in samples)

    @property
    def read_back(self) -> tuple[int, int]:
        """The number of measurements whose writes were read back, and that of the others."""
        lost = [each.lost for samples in self.samples.values() for each in samples]
        return len(lost) - lost.count(None), lost.count(None)

    def save(self, file: Path) -> None:
        """Writes the results to a file."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")

    @staticmethod
    def load(file: Path) -> Results:
        """Returns the results in a file."""
        return msgspec.json.decode(file.read_bytes(), type=Results)


class Summary(NamedTuple):
    """The figures of several runs. A failed run counts as one that never healed, so they may be infinite."""

    median: float
    least: float
    most: float


def summary(samples: Sequence[Sample], figure: str) -> Summary | None:
    """Returns the median and the extremes of a figure of all runs. None: no run has it.

    Args:
        samples: The measurements of a row.
        figure: An attribute of a sample: `seconds`, `failed_writes` or `longest_gap`.
    """
    values = [math.inf if each.error else getattr(each, figure) for each in samples]
    return _summary([each for each in values if each is not None])


def multiple(samples: Sequence[Sample]) -> Summary | None:
    """Returns the seconds of a row as a multiple of those of the bare pod of the same run."""
    pairs = [(math.inf if each.error else each.seconds, each.bare_pod) for each in samples]
    return _summary([mine / bare for mine, bare in pairs if mine is not None and bare])


def _summary(values: Sequence[float]) -> Summary | None:
    return Summary(statistics.median(values), min(values), max(values)) if values else None
