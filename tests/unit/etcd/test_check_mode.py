"""`pilothouse play --check` for EtcdClusters: what the operator would do next, and why."""

import asyncio

import pytest

from etcd_operator.clusters import etcd_watch
from etcd_operator.settings import EtcdSettings
from pilothouse.cli.by_hand import Hand
from pilothouse.process import Settings
from pilothouse.testing import ModelApi
from tests.unit.etcd.operated import KEY, Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


async def checked(cluster: Operated) -> str:
    """Returns the recap of a play in check mode, after a check that nothing was written."""
    before = cluster.api.version
    watch = etcd_watch(cluster.world.connections(), EtcdSettings())
    reported = await Hand("pilothouse-etcd", Settings(), cluster.api.another_client()).check(watch, KEY)
    assert reported.recap.failure is None
    assert cluster.api.version == before
    return str(reported.recap)


async def test_a_check_shows_the_founding(model: ModelApi) -> None:
    async with operated(model, operator=False) as cluster:
        cluster.apply(size=3, version="3.6.14")
        shown = await checked(cluster)
        assert "Founding a cluster of" in shown
        assert "create PersistentVolumeClaim example-" in shown
        assert "create Service example-client" in shown


async def test_a_check_shows_the_change_of_the_membership_that_is_next(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        await asyncio.sleep(5)
        assert "changed=0" in await checked(cluster)
    # The operator is stopped now, and the nodes, too. Members in the model run on.
    cluster.apply(size=1)
    assert "leaves: removing it from etcd" in await checked(cluster)
    assert cluster.world.lost() == []
