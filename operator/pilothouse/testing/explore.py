"""Every fault at every call: does a playbook come to the same end, and do nothing twice?"""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pilothouse.testing.faults import WITH_STANDBY, Fault, Injection, Site
from pilothouse.testing.naming import suggestion
from pilothouse.testing.scenario import Run, Scenario
from pilothouse.testing.world import play

#: How many failed runs a report shows.
SHOWN = 3
#: How many events the caches are behind, for Fault.STALE.
BEHIND = (1, 2, 3)


@dataclass
class FaultMatrix:
    """What came of running a scenario with every fault at every call.

    Attributes:
        sites: the calls of the run without faults.
        runs: the runs with faults.
        seconds: how long all of them took.
    """

    sites: list[Site]
    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Run]:
        """The runs that came to another end."""
        return [run for run in self.runs if run.failure]

    @property
    def runs_a_minute(self) -> float:
        """How fast they were."""
        return 60 * len(self.runs) / self.seconds if self.seconds else 0.0

    def require_converged(self) -> None:
        """Raise AssertionError, with the first runs that failed, unless every run converged."""
        if failures := self.failures:
            shown = "\n\n".join(str(run) for run in failures[:SHOWN])
            raise AssertionError(
                f"{len(failures)} of {len(self.runs)} runs failed. The first {min(SHOWN, len(failures))}:\n\n"
                f"{shown}\n\n{self}"
            )

    def __str__(self) -> str:
        kinds = Counter(injection.fault for run in self.runs for injection in run.injections)
        told = ", ".join(f"{fault} {count}" for fault, count in kinds.items())
        return (
            f"{len(self.sites)} calls, {len(self.runs)} runs ({told}), {len(self.failures)} failed, "
            f"{self.runs_a_minute:.0f} runs a minute"
        )


def explore(
    scenario: Callable[[], Scenario],
    *,
    faults: Collection[Fault] = tuple(Fault),
    elected: bool = False,
    pairs: int = 0,
    elections: int = 0,
    seed: int = 0,
) -> FaultMatrix:
    """Run a scenario once to count its calls, then once for each call and each fault that can befall it.

    Every run is on a new model of the API server, under virtual time, and the same each time.

    The run without faults comes first. It must not raise an error that nobody foresaw, must come to rest
    after each step, and must leave nothing behind once all objects of the watched kinds are deleted; see
    `Scenario`.

    Args:
        scenario: makes a scenario for a run.
        faults: which faults.
        elected: whether the processes elect a leader, or share the scenario's shards out, in every run; they
            do in those with Fault.TWO_LEADERS or Fault.TERMINATED in any case.
        pairs: how many more runs suffer two faults, drawn at random.
        elections: how many more runs suffer a fault at one of the election's own calls, drawn at random; with
            `elected` only.
        seed: of what is drawn at random, the operator's own jitter included.

    Raises:
        AssertionError: the run without faults fails; the message says why.
        ValueError: elections are to be struck, and there are none; or a name in the scenario, in `Outside` or
            in `faults` is misspelled.
    """
    chosen_faults = _faults(faults)
    if elections and not elected:
        raise ValueError("elections: there is none to strike without elected=True")
    began = time.perf_counter()
    with _silent_logs():
        with _errors_logged():
            usual = play(scenario(), elected=elected, seed=seed)
        if usual.failure:
            raise AssertionError(f"The scenario fails without any fault, so no fault was tried.\n{usual}")
        # The first run waits longer, to see that everything has settled: no other run makes its last calls.
        again = play(scenario(), (), usual.steps, elected=elected, seed=seed)
        if again.failure:
            raise AssertionError(f"The scenario does not run the same each time, without any fault.\n{again}")
        matrix = FaultMatrix(list(again.sites))
        single = [each for site in matrix.sites for each in injections(site, chosen_faults)]
        chosen: list[tuple[Injection, ...]] = [(each,) for each in single]
        draw = random.Random(seed)  # noqa: S311 - to be repeatable
        chosen += [tuple(draw.sample(single, 2)) for _ in range(pairs)]
        if elections:
            theirs = [each for site in again.elections for each in injections(site, chosen_faults)]
            chosen += [(each,) for each in draw.sample(theirs, min(elections, len(theirs)))]
        for each in chosen:
            elects = elected or any(injection.fault in WITH_STANDBY for injection in each)
            run = play(scenario(), each, usual.steps, elected=elects, seed=seed)
            # A stale cache may well change which calls are made, so that the last one is not.
            if not (run.failure or run.struck or each[0].fault is Fault.STALE or each[1:]):
                run.failure = "the fault befell no call: the scenario does not run the same each time"
            matrix.runs.append(run)
    matrix.seconds = time.perf_counter() - began
    return matrix


def injections(site: Site, faults: Collection[Fault]) -> Iterator[Injection]:
    """Yield what can befall a call."""
    for fault in faults:
        if not site.may_suffer(fault):
            continue
        if fault is not Fault.STALE:
            yield Injection(site.number, fault, election=site.election)
            continue
        for behind in BEHIND:
            if behind <= site.events:
                yield Injection(site.number, fault, behind, site.events - behind)


def _faults(faults: Collection[Fault]) -> list[Fault]:
    """Return the faults, whether they are given as members or as their values."""
    if isinstance(faults, str):
        raise TypeError(f"explore(faults=) is the string {faults!r}. Give a collection of Fault members.")
    for each in faults:
        if each not in list(Fault):
            near = suggestion(str(each).upper(), list(Fault.__members__))
            raise ValueError(f"explore(faults=) names {each!r}, which is not a Fault. {near}")
    return [Fault(each) for each in faults]


@contextmanager
def _errors_logged() -> Iterator[None]:
    """Let errors through: they show the defects of the run without faults."""
    before = logging.root.manager.disable
    logging.disable(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _silent_logs() -> Iterator[None]:
    """What thousands of runs log, nobody reads."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
