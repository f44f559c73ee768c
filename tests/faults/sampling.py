"""The fault matrix of scenarios with many calls: a sample of all faults at all calls."""

import logging
import random
import time
from collections.abc import Callable

from pilothouse.testing import Fault, FaultMatrix, Injection, Scenario, play
from pilothouse.testing.explore import injections
from pilothouse.testing.faults import WITH_STANDBY


def sample(
    scenario: Callable[[], Scenario], *, writes: int, reads: int, pairs: int, seed: int = 0
) -> FaultMatrix:
    """Runs a scenario with faults at random calls, more often at calls that change something.

    `pilothouse.testing.explore` would try all calls. An operator that asks its members every second makes
    so many that this takes hours.

    Args:
        scenario: Creates the scenario of a run.
        writes: The number of runs with a fault at a call that changes something.
        reads: The number of runs with a fault at a call that changes nothing.
        pairs: The number of runs with two random faults.
        seed: The seed for all random choices.

    Raises:
        AssertionError: A run without faults failed.
    """
    began = time.perf_counter()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        usual = play(scenario(), seed=seed)
        assert not usual.failure, f"The scenario fails without any fault.\n{usual}"
        again = play(scenario(), (), usual.steps, seed=seed)
        assert not again.failure, f"The scenario is not deterministic.\n{again}"
        matrix = FaultMatrix(list(again.sites))
        draw = random.Random(seed)
        at_writes: list[Injection] = []
        at_reads: list[Injection] = []
        for site in again.sites:
            (at_writes if site.writes else at_reads).extend(injections(site, list(Fault)))
        chosen: list[tuple[Injection, ...]] = []
        for found, count in ((at_writes, writes), (at_reads, reads)):
            chosen += [(each,) for each in draw.sample(found, min(count, len(found)))]
        chosen += [tuple(draw.sample([*at_writes, *at_reads], 2)) for _ in range(pairs)]
        for each in chosen:
            elected = any(injection.fault in WITH_STANDBY for injection in each)
            matrix.runs.append(play(scenario(), each, usual.steps, elected=elected, seed=seed))
    finally:
        logging.disable(before)
    matrix.seconds = time.perf_counter() - began
    return matrix
