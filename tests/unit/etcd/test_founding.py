"""Each way of breaking a static founding that was measured on a node: one cluster results, or none.

Each test begins when the pods of the founding exist. The clients of the headless Service may write from the
moment when the members serve, so a founding that they have written to is kept.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.state import Change, Entry, Put
from tests.etcd.model.world import WriterLog
from tests.unit.etcd.operated import CLUSTERS, KEY, Operated, operated

pytestmark = pytest.mark.usefixtures("virtual_time")


def founding(cluster: Operated) -> bool:
    """Whether the pods of the first founding exist, and it is not recorded as complete."""
    return len(cluster.pods) == 3 and not cluster.status["record"].get("founded")


def running(cluster: Operated) -> int:
    return sum(cluster.world.process(name) is not None for name in cluster.pods)


def leaders(cluster: Operated) -> list[str]:
    processes = {name: cluster.world.process(name) for name in cluster.pods}
    return [name for name, process in processes.items() if process and process.leads]


def ids(cluster: Operated) -> set[int]:
    """The IDs of the clusters that the pods belong to."""
    return {cluster.world.running(name).opened.cluster_id for name in cluster.pods}


def beginnings(cluster: Operated) -> set[Entry]:
    """The first entry of the first leader that the members have: one for each cluster, whatever its ID."""
    logs = [cluster.world.running(name).opened.log for name in cluster.pods]
    return {next(each for each in log if type(each.change) is Change) for log in logs}


# The moments: before a container runs, when the first one runs, and when all run.
MOMENTS: dict[str, Callable[[Operated], bool]] = {
    "before": founding,
    "first": lambda cluster: founding(cluster) and running(cluster) >= 1,
    "all": lambda cluster: founding(cluster) and running(cluster) == 3,
}
EACH_MOMENT = pytest.mark.parametrize("moment", MOMENTS)


@asynccontextmanager
async def at(model: ModelApi, moment: str, *, writing: bool = True) -> AsyncIterator[Operated]:
    """Founds a cluster of three up to a moment, and checks at the end that there is one cluster.

    Args:
        model: The API server.
        moment: A key of MOMENTS.
        writing: Whether clients write through the headless Service all the time, and lose nothing. They would
            lose what they wrote before a status is lost that does not record a founded cluster.
    """
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(operated(model))
        log = WriterLog()
        if writing:
            log = await stack.enter_async_context(cluster.world.writing(KEY.name, rate=4))
        cluster.apply(size=3, version="3.6.14")
        await cluster.until(lambda: MOMENTS[moment](cluster))
        yield cluster
        assert len(ids(cluster)) == len(beginnings(cluster)) == 1
        assert {f"{each:x}" for each in ids(cluster)} == {cluster.status["record"]["clusterID"]}
        assert bool(log.acknowledged) == writing
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
async def test_the_size_is_edited_while_one_member_is_silent(model: ModelApi, moment: str) -> None:
    """If no member ran, nothing is founded again before the pod of the silent member is gone."""
    async with at(model, moment) as cluster:
        silent = cluster.pods[0]
        node = model.read(POD, ObjectKey("default", silent))["spec"].get("nodeName", "node-1")
        cluster.world.cut_off(model, node)
        cluster.apply(size=5)
        await asyncio.sleep(120)
        assert silent in {each["metadata"]["name"] for each in model.all(POD)}
        assert len(cluster.world.members.led) <= 1
        cluster.world.reconnect(model, node)
        await cluster.settled(600)
        assert len(cluster.pods) == 5


@EACH_MOMENT
async def test_the_version_is_edited(model: ModelApi, moment: str) -> None:
    async with at(model, moment) as cluster:
        claims = cluster.claims
        cluster.apply(version="3.7.3")
        await cluster.settled(300)
        assert cluster.status["currentVersion"] == "3.7.3"
        assert cluster.claims == claims, "nothing is founded again"


async def test_a_mistyped_version_is_corrected_on_the_same_volumes(model: ModelApi) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.99")
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "ImageUnavailable")
        claims = cluster.claims
        cluster.apply(version="3.6.14")
        await cluster.settled()
        assert cluster.claims == cluster.pods == claims
        assert "retainedVolumes" not in cluster.status


def give_up(cluster: Operated) -> None:
    """Does what a killed operator did: it recorded that the founding is given up, and nothing else."""
    record = cluster.status["record"]
    founding = {**record["founding"], "phase": "Abandoning", "ran": False}
    cluster.api.put(CLUSTERS, KEY.name, status={"record": {**record, "founding": founding}})


def notes(model: ModelApi, reason: str) -> list[str]:
    return [each["note"] for each in model.all(EVENT) if each["reason"] == reason]


async def test_a_write_after_the_founding_was_given_up_stays_on_a_kept_volume(model: ModelApi) -> None:
    """All pods disappear before the operator sees that they have run."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.until(lambda: founding(cluster) and bool(leaders(cluster)))
        first, [leader] = cluster.pods, leaders(cluster)
        cluster.world.members.propose(cluster.world.running(leader), Put(b"key", b"value"))
        written = cluster.volume(leader)
        give_up(cluster)
        for name in first:
            model.remove(POD, ObjectKey("default", name))
        await cluster.settled(300)
        assert not {*first} & {*cluster.pods}
        assert {*first} < {*cluster.claims}
        assert cluster.status["retainedVolumes"] == first
        assert cluster.volume(leader) is written
        assert written.data is not None
        assert Put(b"key", b"value") in [each.change for each in written.data.log]
        assert any(all(name in note for name in first) for note in notes(model, "AbandoningFounding"))


async def test_members_that_ran_unseen_keep_their_write_although_the_size_is_edited(model: ModelApi) -> None:
    """The operator was away from the creation of the pods until they had disappeared."""
    async with at(model, "before") as cluster:
        await cluster.until(lambda: founding(cluster) and bool(leaders(cluster)))
        [leader] = leaders(cluster)
        cluster.world.members.propose(cluster.world.running(leader), Put(b"key", b"value"))
        record = cluster.status["record"]
        founded = {**record["founding"], "ran": False}
        model.put(CLUSTERS, KEY.name, status={"record": {**record, "founding": founded}})
        for name in cluster.pods:
            model.remove(POD, ObjectKey("default", name))
        cluster.apply(size=1)
        await cluster.settled(300)
        found = await cluster.world.client("example-client").get(b"key")
        assert found is not None
        assert found.value == b"value"


async def test_volumes_that_are_kept_are_never_used_again(model: ModelApi) -> None:
    """Neither the next founding nor a resumed cluster uses them, and they block neither."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.99")
        await cluster.until(lambda: cluster.condition("Degraded").get("reason") == "ImageUnavailable")
        first = cluster.claims
        cluster.apply(size=1)
        await cluster.until(lambda: cluster.status.get("retainedVolumes") == first)
        cluster.apply(version="3.6.14")
        await cluster.settled()
        [member] = cluster.pods
        assert member not in first
        cluster.delete()
        await cluster.until(lambda: not model.all(POD))
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        assert member in cluster.pods
        assert not {*first} & {*cluster.pods}
        assert cluster.status["retainedVolumes"] == first


async def test_volumes_that_were_never_bound_are_deleted(model: ModelApi) -> None:
    async with operated(model) as cluster:
        claim = {"persistentVolumeClaimSpec": {"storageClassName": "missing"}}
        cluster.apply(size=3, version="3.6.14", pod=claim)
        await cluster.until(lambda: len(cluster.pods) == 3)
        first = cluster.claims
        cluster.apply(pod={})
        await cluster.settled()
        assert not {*first} & {*cluster.claims}
        assert "retainedVolumes" not in cluster.status


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
    async with at(model, moment, writing=False) as cluster:
        model.put(CLUSTERS, KEY.name, status={})
        await cluster.until(lambda: not cluster.ready)
        await cluster.settled(300)
        assert len(cluster.pods) == 3


@EACH_MOMENT
async def test_the_status_and_a_volume_are_lost(model: ModelApi, moment: str) -> None:
    async with at(model, moment, writing=False) as cluster:
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
