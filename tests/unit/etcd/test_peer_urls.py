"""Members whose peer URL is not the one that the operator expects: a user or another spec has changed it."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import model as m
from etcd_operator import plan
from etcd_operator.seats import Cluster
from pilothouse import ObjectKey
from pilothouse.testing import ModelApi
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.state import SetMember
from tests.unit.etcd.abstract import cluster, observe
from tests.unit.etcd.operated import Operated, operated

OTHER_URL = "http://10.0.0.9:2380"
DOMAIN = "etcd.pilothouse.dev/domain"


def moved(observation: m.Observation, *indexes: int, domain: str | None = None) -> m.Observation:
    """The peer URLs of these members have another host."""
    assert observation.members is not None
    members = tuple(
        replace(each, name="", urls=(OTHER_URL,), outside=True, domain=domain) if index in indexes else each
        for index, each in enumerate(observation.members)
    )
    return replace(observation, members=members)


def test_a_member_is_known_by_its_id_in_the_status() -> None:
    observation = moved(observe(cluster(3)), 0)
    found = Cluster(observation)
    assert found.strangers == ()
    assert len(found.voters) == found.count == 3
    assert found.peers == ("", *sorted(each.name for each in observation.pods[1:]))


def test_a_member_is_known_by_its_id_on_its_volume() -> None:
    observation = moved(observe(cluster(3)), 0)
    seats = observation.record.seats[1:]
    found = Cluster(replace(observation, record=replace(observation.record, seats=seats)))
    assert found.strangers == ()
    assert len(found.voters) == 3


def test_a_member_that_a_user_has_added_is_not_the_one_with_the_other_peer_url() -> None:
    observation = moved(observe(cluster(3)), 0)
    assert observation.members is not None
    name = observation.pods[0].name
    added = m.MemberState(99, name)
    found = Cluster(replace(observation, members=(*observation.members, added)))
    assert found.strangers == (added,)
    place = found.places[name]
    assert place.member is not None
    assert place.member.id == 1


@pytest.mark.parametrize("delete", [False, True])
def test_a_member_with_another_peer_url_is_reported_and_kept(delete: bool) -> None:
    decision = plan.decide(moved(observe(cluster(3, delete=delete)), 0))
    assert isinstance(decision.step, m.Settled)
    (problem,) = decision.problems
    assert problem.reason == "PeerUrlChanged"
    name = observe(cluster(3)).pods[0].name
    assert f"{name} (1) has the peer URL {OTHER_URL}" in problem.message
    assert f"etcdctl member update 1 --peer-urls=http://{name}:2380" in problem.message


def test_scaling_in_removes_no_member_because_of_its_peer_url() -> None:
    observation = observe(cluster(3)._replace(size=2))
    names = [each.name for each in observation.pods]
    step: Any = plan.decide(moved(observation, 0)).step
    assert isinstance(step, m.Announce)
    assert step.record.claim is not None
    assert step.record.claim.name in names[1:]
    decision = plan.decide(moved(observation, 0, 1, 2))
    assert (type(decision.step), decision.reason) == (m.Wait, "PeerUrlChanged")


def test_nothing_is_added_under_another_domain() -> None:
    observation = observe(cluster(3)._replace(size=4))
    decision = plan.decide(moved(observation, 0, 1, 2, domain=".other"))
    while not isinstance(decision.step, m.Wait):  # The domain of the members is recorded first.
        assert isinstance(decision.step, m.MarkVolumes)
        assert {each.domain for each in decision.step.marks} == {".other"}
        marked = tuple(replace(each, domain=".other") for each in observation.volumes)
        observation = replace(observation, volumes=marked)
        decision = plan.decide(moved(observation, 0, 1, 2, domain=".other"))
    assert decision.reason == "PeerUrlChanged"
    assert "spec.pod.ClusterDomain to '.other'" in decision.problems[0].message


async def until_reported(cluster: Operated, reason: str, type_: str = "Degraded") -> str:
    await cluster.until(lambda: cluster.condition(type_).get("reason") == reason)
    return str(cluster.condition(type_)["message"])


def update(cluster: Operated, name: str, url: str) -> None:
    """Carries out `etcdctl member update --peer-urls`."""
    process = cluster.world.running(cluster.status["leader"])
    member = next(each for each in process.opened.state.members.values() if each.name == name)
    cluster.world.members.propose(process, SetMember(replace(member, peer_urls=(url,))))


@pytest.mark.usefixtures("virtual_time")
@pytest.mark.parametrize("when_scaled", ["Retain", "Delete"])
async def test_the_peer_url_of_a_voter_is_changed_and_set_back(model: ModelApi, when_scaled: str) -> None:
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", storage={"whenScaled": when_scaled})
        await cluster.settled()
        name = next(each for each in cluster.pods if each != cluster.status["leader"])
        objects = cluster.uids(POD), cluster.uids(CLAIM)
        async with cluster.world.writing("example-client"):
            update(cluster, name, OTHER_URL)
            message = await until_reported(cluster, "PeerUrlChanged")
            assert f"http://{name}.example.default.svc:2380" in message
            await asyncio.sleep(300)
            assert (cluster.uids(POD), cluster.uids(CLAIM)) == objects
            assert cluster.status.get("retainedVolumes", []) == []
            update(cluster, name, f"http://{name}.example.default.svc:2380")
            await cluster.until(lambda: cluster.condition("Degraded")["status"] == "False")
            await cluster.settled()
        assert (cluster.uids(POD), cluster.uids(CLAIM)) == objects
        assert cluster.world.lost() == []


@pytest.mark.usefixtures("virtual_time")
async def test_a_retained_cluster_is_not_resumed_under_another_domain(model: ModelApi) -> None:
    old, new = "", ".cluster.local"
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14", pod={"ClusterDomain": old})
        await cluster.settled()
        claims = cluster.uids(CLAIM)
        cluster.delete()
        cluster.apply(size=3, version="3.6.14", pod={"ClusterDomain": new})
        message = await until_reported(cluster, "OtherDomain", "Ready")
        assert f"spec.pod.ClusterDomain is '{new}'" in message
        assert f"Set spec.pod.ClusterDomain to '{old}'" in message
        cluster.apply(pod={"ClusterDomain": old})
        await cluster.settled()
        assert cluster.uids(CLAIM) == claims
        assert cluster.world.lost() == []


@pytest.mark.usefixtures("virtual_time")
async def test_a_cluster_that_was_resumed_under_another_domain_can_be_set_back(model: ModelApi) -> None:
    """The volumes have no annotation, so only the peer URLs show the domain."""
    async with operated(model) as cluster:
        cluster.apply(size=3, version="3.6.14")
        await cluster.settled()
        claims = cluster.claims, cluster.uids(CLAIM)
        cluster.delete()
        for name in cluster.claims:
            annotations = model.read(CLAIM, ObjectKey("default", name))["metadata"]["annotations"]
            others = {key: value for key, value in annotations.items() if key != DOMAIN}
            model.put(CLAIM, name, metadata={"annotations": others})
        cluster.apply(size=3, version="3.6.14", pod={"ClusterDomain": ".other.local"})
        message = await until_reported(cluster, "PeerUrlChanged")
        assert "set spec.pod.ClusterDomain to ''" in message
        pods = cluster.uids(POD)
        await asyncio.sleep(300)
        assert cluster.uids(POD) == pods
        assert (cluster.claims, cluster.uids(CLAIM)) == claims
        cluster.apply(pod={"ClusterDomain": ".third.local"})
        assert "Set it to '' again" in await until_reported(cluster, "InvalidSpec", "Ready")
        cluster.apply(pod={"ClusterDomain": ""})
        await cluster.settled()
        assert cluster.condition("Degraded")["status"] == "False"
        assert cluster.status.get("retainedVolumes", []) == []
        assert cluster.uids(CLAIM) == claims[1]
        assert cluster.world.lost() == []
