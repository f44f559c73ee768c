"""The exploration of the etcd plan with bounds that take minutes."""

import sys

import pytest

from etcd_operator import plan
from tests.unit.etcd.abstract import cluster, explore, unfounded
from tests.unit.etcd.laws import ending, judge

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize(("size", "strikes"), [(1, 4), (2, 3), (3, 3), (4, 2), (5, 2)], ids=str)
def test_a_cluster_heals_after_every_series_of_strikes(capsys, size, strikes):
    found = explore([cluster(size, strikes=strikes)], plan.decide, judge, ending)
    with capsys.disabled():
        sys.stdout.write(f"\n{found}\n")
    assert "Healthy" in found.endings


@pytest.mark.parametrize(("size", "edits"), [(1, 2), (3, 2), (5, 1)], ids=str)
def test_edits_and_strikes_in_any_order(capsys, size, edits):
    starts = [cluster(size, strikes=1, edits=edits), unfounded(size, strikes=1, edits=1)]
    found = explore(starts, plan.decide, judge, ending, sizes=(1, 3, 5), targets=(0, 1, 3), shape=True)
    with capsys.disabled():
        sys.stdout.write(f"\n{found}\n")
    assert "Healthy" in found.endings
