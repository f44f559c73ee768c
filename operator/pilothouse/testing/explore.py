"""Every fault at every call: checks that a playbook reaches the same state and does nothing twice."""

import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pilothouse.kube.resource import require_flags
from pilothouse.testing.faults import WITH_STANDBY, Fault, Injection, Site
from pilothouse.testing.naming import suggestion
from pilothouse.testing.scenario import Run, Scenario
from pilothouse.testing.world import play

#: Maximum number of failed runs in a report.
SHOWN = 3
#: How many events the caches are behind with Fault.STALE.
BEHIND = (1, 2, 3)


@dataclass
class FaultMatrix:
    """The results of a scenario with every fault at every call.

    Attributes:
        sites: The calls of the run without faults.
        leftovers: Sentences about which effects that outlive an object were checked in the run without
            faults, and which were not.
        runs: The runs with faults.
        seconds: The duration of all runs, in seconds of real time.
    """

    sites: list[Site]
    leftovers: Sequence[str] = ()
    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failures(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.failure]

    @property
    def runs_a_minute(self) -> float:
        """The number of runs per minute of real time."""
        return 60 * len(self.runs) / self.seconds if self.seconds else 0.0

    def require_converged(self) -> None:
        """Fails unless all runs have converged.

        Raises:
            AssertionError: Runs have failed, and the message contains the reports of the first ones. Or there
                were no runs: none of the given faults is possible at any call.
        """
        if not self.runs:
            raise AssertionError(
                f"No fault was tried: none of the given faults is possible at any of the {len(self.sites)} "
                "calls. Give other faults to explore()."
            )
        if failures := self.failures:
            shown = "\n\n".join(str(run) for run in failures[:SHOWN])
            raise AssertionError(
                f"{len(failures)} of {len(self.runs)} runs failed. The first {min(SHOWN, len(failures))}:\n\n"
                f"{shown}\n\n{self}"
            )

    def __str__(self) -> str:
        kinds = Counter(injection.fault for run in self.runs for injection in run.injections)
        counts = ", ".join(f"{fault} {count}" for fault, count in kinds.items())
        first = (
            f"{len(self.sites)} calls, {len(self.runs)} runs ({counts}), {len(self.failures)} failed, "
            f"{self.runs_a_minute:.0f} runs per minute"
        )
        return "\n".join((first, *self.leftovers))


def explore(
    scenario: Callable[[], Scenario],
    *,
    faults: Collection[Fault] = tuple(Fault),
    elected: bool = False,
    pairs: int = 0,
    elections: int = 0,
    seed: int = 0,
) -> FaultMatrix:
    """Runs a scenario once to count its calls, and then once for each call and each possible fault at it.

    Every run uses a new model of the API server and virtual time, and is reproducible.

    The run without faults comes first. It must not raise unexpected errors, must stop changing things after
    each step, and must leave nothing behind of deleted objects of the watched kinds, all of which the user
    deletes in a last step; see `Scenario`.

    Args:
        scenario: Creates the scenario of a run.
        faults: The faults to inject.
        elected: Whether the processes elect a leader (or divide the scenario's shards) in all runs. In runs
            with Fault.TWO_LEADERS or Fault.TERMINATED they always do.
        pairs: The number of additional runs with two random faults.
        elections: The number of additional runs with a fault at a random call of the leader election. Needs
            `elected`.
        seed: The seed for all random choices, including the operator's jitter.

    Returns:
        The results. `require_converged` fails if a run failed.

    Raises:
        AssertionError: The run without faults failed, or the operator reconciled no object in it. The message
            says why.
        TypeError: An attribute of the scenario has the wrong type, or its `play` does not yield steps.
        ValueError: `elections` is set without `elected`, or a name in the scenario, in `Outside` or in
            `faults` is misspelled.
    """
    require_flags("explore", elected=elected)
    chosen_faults = _faults(faults)
    if elections and not elected:
        raise ValueError("explore(elections=) needs elected=True: without it there are no elections.")
    began = time.perf_counter()
    with _silent_logs():
        with _errors_logged():
            usual = play(scenario(), elected=elected, seed=seed)
        if usual.failure:
            raise AssertionError(f"The scenario fails without any fault, so no fault was tried.\n{usual}")
        # The first run waits longer to see that everything has settled, so it makes calls that others do not
        # make.
        again = play(scenario(), (), usual.steps, elected=elected, seed=seed)
        if again.failure:
            raise AssertionError(
                f"The scenario is not deterministic: a second run without faults had another result.\n{again}"
            )
        matrix = FaultMatrix(list(again.sites), usual.leftovers)
        if usual.timeline is None or not usual.timeline.reconciles:
            raise AssertionError(
                "The operator reconciles no object in this scenario, so no fault was tried. In `play`, "
                "create an object of a watched kind that the selector of the watch matches, and then yield "
                'the name of a step: yield "created"'
            )
        single = [each for site in matrix.sites for each in injections(site, chosen_faults)]
        chosen: list[tuple[Injection, ...]] = [(each,) for each in single]
        draw = random.Random(seed)  # noqa: S311 - reproducible on purpose
        chosen += [tuple(draw.sample(single, 2)) for _ in range(pairs)]
        if elections:
            theirs = [each for site in again.elections for each in injections(site, chosen_faults)]
            chosen += [(each,) for each in draw.sample(theirs, min(elections, len(theirs)))]
        for each in chosen:
            elects = elected or any(injection.fault in WITH_STANDBY for injection in each)
            run = play(scenario(), each, usual.steps, elected=elects, seed=seed)
            # A stale cache may change which calls are made, so that the last one is not made.
            if not (run.failure or run.struck or each[0].fault is Fault.STALE or each[1:]):
                run.failure = "The call was not made: the scenario is not deterministic."
            matrix.runs.append(run)
    matrix.seconds = time.perf_counter() - began
    return matrix


def injections(site: Site, faults: Collection[Fault]) -> Iterator[Injection]:
    """Yields the injections of the given faults that are possible at a call."""
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
    """Returns the members of Fault for members or their values."""
    if isinstance(faults, str):
        raise TypeError(f"explore(faults=) is the string {faults!r}. Give a collection of Fault members.")
    for each in faults:
        if each not in list(Fault):
            name, known = str(each).upper(), list(Fault.__members__)
            near = f"Write Fault.{name}." if name in known else suggestion(name, known)
            raise ValueError(f"explore(faults=) contains {each!r}, which is not a Fault. {near}")
    return [Fault(each) for each in faults]


@contextmanager
def _errors_logged() -> Iterator[None]:
    """Enables logging of errors, which shows the defects of the run without faults."""
    before = logging.root.manager.disable
    logging.disable(min(before, logging.WARNING))
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _silent_logs() -> Iterator[None]:
    """Disables logging, which would be too much in thousands of runs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
