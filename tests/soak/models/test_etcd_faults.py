"""Many more faults, and accidents at many more moments, than tests/faults tries for an EtcdCluster."""

import pytest

from tests.faults.etcd_life import EtcdLife
from tests.faults.sampling import sample
from tests.faults.test_etcd_cluster import SCENARIOS
from tests.faults.test_etcd_moments import ACCIDENTS, CHANGES, Accident, require_recovery

pytestmark = pytest.mark.timeout(7200)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_faults_do_not_change_the_result(
    scenario: type[EtcdLife], capsys: pytest.CaptureFixture[str]
) -> None:
    # 15 times as many as in tests/faults, about five minutes for each scenario.
    matrix = sample(scenario, writes=300, reads=75, pairs=75, seed=1)
    with capsys.disabled():
        print(f"\n{scenario.__name__}: {matrix}")  # noqa: T201 - shows the runs per minute
    matrix.require_converged()


@pytest.mark.parametrize("change", ["", *CHANGES], ids=lambda change: change or "founding")
@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda accident: accident.__name__)
def test_an_accident_at_any_moment(accident: Accident, change: str) -> None:
    require_recovery(accident, change, range(1, 200, 4))
