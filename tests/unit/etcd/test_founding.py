"""Each way of breaking a static founding that was measured on a node: one cluster results, or none.

Each test begins when the pods of the founding exist. The clients of the headless Service may write from the
moment when the members serve, so a founding that they have written to is kept.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.unit.etcd.operated import CLUSTERS, KEY, Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


def founding(cluster: Operated) -> bool:
    """Whether the pods of the first founding exist, and it is not recorded as complete."""
    return len(cluster.pods) == 3 and not cluster.status["record"].get("founded")


def running(cluster: Operated) -> int:
    return sum(cluster.world.process(name) is not None for name in cluster.pods)


def ids(cluster: Operated) -> set[int]:
    """The IDs of the clusters that the pods belong to."""
    return {cluster.world.running(name).opened.cluster_id for name in cluster.pods}


# The moments: before a container runs, when the first one runs, and when all run.
MOMENTS: dict[str, Callable[[Operated], bool]] = {
    "before": founding,
    "first": lambda cluster: founding(cluster) and running(cluster) >= 1,
    "all": lambda cluster: founding(cluster) and running(cluster) == 3,
}
EACH_MOMENT = pytest.mark.parametrize("moment", MOMENTS)


@asynccontextmanager
async def at(model: ModelApi, moment: str) -> AsyncIterator[Operated]:
    """Founds a cluster of three up to a moment, and checks at the end that there is one cluster."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.until(lambda: MOMENTS[moment](cluster))
        yield cluster
        assert len(ids(cluster)) == 1
        assert {f"{each:x}" for each in ids(cluster)} == {cluster.status["record"]["clusterID"]}
        assert cluster.world.lost() == []


@EACH_MOMENT
async def test_a_pod_and_its_claim_are_replaced(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        victim = ObjectKey("default", cluster.pods[0])
        model.remove(CLAIM, victim)
        model.remove(POD, victim)
        await cluster.settled()
        assert len(cluster.pods) == 3
        assert victim.name not in cluster.pods


@EACH_MOMENT
@pytest.mark.parametrize("size", [1, 5])
async def test_the_size_is_edited(model: ModelApi, moment: str, size: int) -> None:
    async with at(model, moment) as cluster:
        cluster.apply(size=size)
        await cluster.settled()
        assert len(cluster.pods) == size


@EACH_MOMENT
async def test_two_volumes_are_wiped_while_the_third_member_is_silent(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        silent, *wiped = cluster.pods
        node = model.read(POD, ObjectKey("default", silent))["spec"].get("nodeName", "node-1")
        cluster.world.cut_off(model, node)
        for name in wiped:
            if cluster.world.process(name):
                cluster.world.wipe(model, name)
                cluster.world.kill(name)
        await asyncio.sleep(30)
        cluster.world.reconnect(model, node)
        await cluster.settled(600)


@EACH_MOMENT
async def test_an_edit_gives_the_founding_up_while_one_member_is_silent(model: ModelApi, moment: str) -> None:
    """Nothing is founded again before the pod of the silent member is gone."""
    async with at(model, moment) as cluster:
        silent = cluster.pods[0]
        node = model.read(POD, ObjectKey("default", silent))["spec"].get("nodeName", "node-1")
        cluster.world.cut_off(model, node)
        cluster.apply(version="3.5.33")
        await asyncio.sleep(120)
        assert silent in {each["metadata"]["name"] for each in model.all(POD)}
        assert len(cluster.world.members.led) <= 1
        cluster.world.reconnect(model, node)
        await cluster.settled(600)
        assert len(cluster.pods) == 3


@EACH_MOMENT
@pytest.mark.parametrize("ephemeral", [True, False])
async def test_the_data_of_a_founding_stays_where_it_is(
    model: ModelApi, moment: str, ephemeral: bool
) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", storage={"ephemeral": ephemeral})
        await cluster.until(lambda: MOMENTS[moment](cluster))
        pods = cluster.pods
        cluster.apply(storage={"ephemeral": not ephemeral})
        await cluster.until(lambda: bool(cluster.status["record"].get("founded")))
        await asyncio.sleep(60)
        assert cluster.condition("Ready")["reason"] == "InvalidSpec"
        assert cluster.pods == pods
        cluster.apply(storage={"ephemeral": ephemeral})
        await cluster.settled()
        assert cluster.pods == pods


@EACH_MOMENT
async def test_the_status_is_lost(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        model.put(CLUSTERS, KEY.name, status={})
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled(300)
        assert len(cluster.pods) == 3


@EACH_MOMENT
async def test_the_status_and_a_volume_are_lost(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        victim = ObjectKey("default", cluster.pods[0])
        model.put(CLUSTERS, KEY.name, status={})
        model.remove(CLAIM, victim)
        model.remove(POD, victim)
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled(300)
        assert len(cluster.pods) == 3


@EACH_MOMENT
async def test_the_object_is_deleted_and_created_again(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        cluster.delete()
        cluster.apply(size=3, version="3.6.14")
        await asyncio.sleep(10)
        model.collect_garbage()  # what the last reconcile of the deleted object has created
        await cluster.settled(300)
        assert len(cluster.pods) == 3


@EACH_MOMENT
async def test_all_pods_are_deleted(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        for name in cluster.pods:
            model.remove(POD, ObjectKey("default", name))
        await cluster.settled(300)
        assert len(cluster.pods) == 3
