"""The etcd operator as users run it: installed by OLM, with real members. No acknowledged write is lost.

The tests share one cluster of three members, from the seed's manifest to the loss of its volumes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from release import packages
from tests.cluster.etcd import NAME, SIZE, Etcd, EtcdClusterOnNode
from tests.etcd.proof import prove

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]


@pytest.fixture
def cluster(etcd: Etcd) -> EtcdClusterOnNode:
    """The healthy cluster that the tests share."""
    found = EtcdClusterOnNode(etcd)
    found.restore()
    return found


def test_olm_runs_the_image_by_digest_with_one_image_per_version_of_etcd(etcd: Etcd) -> None:
    [pod] = etcd.pods()
    container = pod["spec"]["containers"][0]
    assert container["image"] == etcd.published.operator
    assert "@sha256:" in container["image"]
    variables = {each["name"]: each.get("value", "") for each in container["env"]}
    references = etcd.package.related(targets.current())
    assert len(references) == len(etcd_images.versions())
    assert references.items() <= variables.items()
    assert all("@sha256:" in reference for reference in references.values())
    namespace = etcd.kubectl.read("namespace", packages.NAMESPACE)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_seed_s_manifest_becomes_a_cluster_that_serves(etcd: Etcd, tmp_path: Path) -> None:
    cluster = EtcdClusterOnNode(etcd)
    cluster.create()
    cluster.until(lambda: cluster.resource.get("status", {}).get("serviceName"), "the Service is reported")
    with cluster.under_load(tmp_path):
        cluster.settle(version="3.5.0")
    header, row = cluster.kubectl("get", "etcd", NAME).splitlines()
    assert header.split() == ["NAME", "SIZE", "READY", "VERSION", "PHASE", "LEADER", "AGE"]
    leader = cluster.status["leader"]
    assert row.split()[:-1] == [NAME, str(SIZE), "True", "3.5.0", "Running", leader]
    assert leader in cluster.pods()


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_a_deleted_pod_returns_on_its_volume(cluster: EtcdClusterOnNode, tmp_path: Path, leads: bool) -> None:
    before = cluster.pods()
    leader = cluster.status["leader"]
    pod = leader if leads else min(before.keys() - {leader})
    with cluster.under_load(tmp_path, planned=True):
        cluster.delete("pod", pod)
        cluster.until_replaced(before, pod)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_a_killed_process_restarts(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before, pod = cluster.pods(), _without_back_off(cluster)
    with cluster.under_load(tmp_path):
        cluster.kill(pod)
        cluster.until(lambda: _restarts(cluster, pod) > _restart_count(before[pod]), f"{pod} restarts")
        cluster.settle()
    assert cluster.uids() == {each["metadata"]["uid"] for each in before.values()}


def test_a_member_that_is_lost_with_its_volume_is_replaced(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    lost = min(cluster.pods())
    with cluster.under_load(tmp_path, planned=True):
        cluster.delete("pod,pvc", lost)
        cluster.settle(without=lost)
    assert lost not in cluster.listed("pvc")


def test_a_member_whose_claim_is_terminating_is_replaced(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    lost = min(cluster.pods())
    with cluster.under_load(tmp_path, planned=True):
        cluster.delete("pvc", lost)
        cluster.settle(without=lost)
    cluster.until(lambda: lost not in cluster.listed("pvc"), f"the claim {lost} is deleted")


def test_a_member_whose_data_is_wiped_under_the_running_pod_is_replaced(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    lost = _without_back_off(cluster)
    with cluster.under_load(tmp_path):
        cluster.wipe_data(lost)
        cluster.kill(lost)
        cluster.settle(without=lost)


def test_a_majority_restarts_on_its_volumes(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before = cluster.pods()
    pods = sorted(before)[:2]
    with cluster.under_load(tmp_path):
        cluster.delete("pod", *pods)
        cluster.until_replaced(before, *pods)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_all_pods_that_the_kubelet_has_ended_return_on_their_volumes(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    """A deadline stands for an eviction or the shutdown of a node: all leave pods in the phase Failed."""
    before = cluster.pods()
    with cluster.under_load(tmp_path):
        for pod in before:
            deadline = {"spec": {"activeDeadlineSeconds": 1}}
            cluster.kubectl("patch", "pod", pod, "--type=merge", "-p", json.dumps(deadline))
        cluster.until_replaced(before, *before)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_all_pods_and_the_operator_are_deleted_together(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before, [operator] = cluster.pods(), cluster.etcd.pods()
    with cluster.under_load(tmp_path):
        cluster.delete("pod", *before)
        cluster.etcd.kubectl(
            "delete", "pod", operator["metadata"]["name"], "-n", packages.NAMESPACE, "--wait=false"
        )
        cluster.until_replaced(before, *before)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_all_pods_are_evicted_one_after_the_other(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before = cluster.pods()
    with cluster.under_load(tmp_path, planned=True):
        for pod in before:
            cluster.evict(pod)
        cluster.until_replaced(before, *before)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_kubectl_scale_adds_and_removes_members(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before, retained = set(cluster.pods()), set(cluster.status.get("retainedVolumes", ()))
    with cluster.under_load(tmp_path, planned=True):
        for size in (5, SIZE):
            cluster.kubectl("scale", f"etcdcluster/{NAME}", f"--replicas={size}")
            cluster.settle(size)
    removed = set(cluster.status["retainedVolumes"]) - retained
    assert len(removed) == 2
    assert removed <= cluster.listed("pvc").keys()
    assert not removed & cluster.pods().keys()
    assert len(before | removed | cluster.pods().keys()) == 5


def test_one_edit_upgrades_through_every_minor(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    newest = etcd_images.versions()[-1]
    before = cluster.pods()
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(version=newest, upgradePolicy="Automatic")
        cluster.settle(version=newest)
    assert cluster.uids() == {each["metadata"]["uid"] for each in before.values()}  # Patched in place.


def test_a_mistyped_version_is_corrected(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    version = cluster.status["currentVersion"]
    mistyped = f"{version}9"
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(version=mistyped)
        cluster.until_reported("Degraded", "ImageUnavailable", mistyped, "ImagePullBackOff")
        _only_one_is_stopped(cluster)
        cluster.change(version=version)
        cluster.settle(version=version)


def test_another_variable_recreates_every_pod_on_its_volume(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(pod={"etcdEnv": [{"name": "ETCD_HEARTBEAT_INTERVAL", "value": "110"}]})
        cluster.until_replaced(before, *before)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_a_pod_that_cannot_be_scheduled_stops_a_change_of_the_spec(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(pod={"resources": {"requests": {"memory": "1Ti"}}})
        cluster.until_reported("Degraded", "MemberPending", "Insufficient memory")
        pending = _only_one_is_stopped(cluster)
        cluster.change(pod={"resources": None})
        cluster.settle()
    assert cluster.pods().keys() == before.keys()
    others = {each["metadata"]["uid"] for name, each in before.items() if name != pending}
    assert others < cluster.uids()


def test_a_member_that_a_user_has_added_is_reported_and_never_removed(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    gone, asked, _ = sorted(before)
    with cluster.under_load(tmp_path, planned=True):
        url = "--peer-urls=http://stranger.example:2380"
        known = cluster.members(asked)
        # etcd refuses that until its peers have been connected for 5 s.
        cluster.until(
            lambda: cluster.attempt(asked, "member", "add", "stranger", "--learner", url),
            "etcd accepts a learner",
        )
        [stranger] = cluster.members(asked).keys() - known.keys()
        cluster.until_reported("Degraded", "MembersAddedByUser", stranger)
        # The operator continues to heal its own members.
        cluster.delete("pod", gone)
        cluster.until_replaced(before, gone)
        cluster.until(lambda: cluster.status["members"].get("ready") == [*sorted(before)], "all serve")
        assert cluster.members(asked).keys() == {*known, stranger}
        cluster.etcdctl(asked, "member", "remove", stranger)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_a_member_whose_peer_url_a_user_has_changed_is_reported_and_kept(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    changed, asked, _ = sorted(before)
    with cluster.under_load(tmp_path):
        known = cluster.members(asked)
        [(member, url)] = [
            (id_, each["peerURLs"][0]) for id_, each in known.items() if each["name"] == changed
        ]
        cluster.etcdctl(asked, "member", "update", member, "--peer-urls=http://elsewhere.example:2380")
        advice = f"etcdctl member update {member} --peer-urls={url}"
        cluster.until_reported("Degraded", "PeerUrlChanged", changed, advice)
        cluster.etcdctl(asked, *advice.split()[1:])
        cluster.settle()
        assert cluster.members(asked).keys() == known.keys()
    assert cluster.uids() == {pod["metadata"]["uid"] for pod in before.values()}


def test_auth_that_a_user_has_enabled_hides_the_members_and_justifies_no_step(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    newest = etcd_images.versions()[-1]
    cluster.change(version=newest, upgradePolicy="Automatic")  # Old versions show the members to anyone.
    cluster.settle(version=newest)
    lost, restarted, asked = sorted(cluster.pods())
    root = "--user=root:root"
    # While auth is enabled, etcd refuses the writer, too: it has no user.
    with cluster.under_load(tmp_path):
        before = cluster.pods()
        known = cluster.members(asked)
        for words in ("user add root:root", "user grant-role root root", "auth enable"):
            cluster.etcdctl(asked, *words.split())
        cluster.delete("pod,pvc", lost)
        cluster.delete("pod", restarted)
        cluster.until_replaced(before, restarted)
        # Before, there is no quorum, so etcdctl could not log in.
        cluster.until(lambda: cluster.serves(restarted), f"{restarted} serves")
        cluster.until_reported("Ready", "MembersHidden", "etcd's auth is enabled", "etcdctl auth disable")
        cluster.until_reported("Degraded", "MembersHidden", f"The volumes of these members are lost: {lost}.")
        assert cluster.members(asked, root).keys() == known.keys()
        cluster.etcdctl(asked, "auth", "disable", root)
        cluster.settle(without=lost)
        cluster.etcdctl(asked, "user", "delete", "root")
    assert {restarted, asked} <= cluster.pods().keys()


def test_a_cluster_that_is_created_again_resumes_with_its_data(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before, manifest = set(cluster.pods()), cluster.resource
    with cluster.under_load(tmp_path) as writer:
        pass
    cluster.delete_cluster()
    again = {key: manifest[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": NAME}}
    # An empty cluster beside the volumes would look healthy, and clients would write to it.
    ephemeral = {**again, "spec": {**manifest["spec"], "storage": {"ephemeral": True}}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(ephemeral))
    cluster.until_reported("Degraded", "OtherStorage", *before)
    assert not cluster.pods()
    cluster.delete_cluster()
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({**again, "spec": manifest["spec"]}))
    cluster.settle()
    assert set(cluster.pods()) == before
    prove(writer, cluster.endpoints())
    (tmp_path / "again").mkdir()
    with cluster.under_load(tmp_path / "again"):
        pass


def test_a_majority_that_is_lost_with_its_volumes_is_never_founded_again(cluster: EtcdClusterOnNode) -> None:
    """Runs last, because the cluster is lost."""
    survivor, *lost = sorted(cluster.pods())
    claim = cluster.read("pvc", survivor)["metadata"]["uid"]
    incarnation = cluster.status["record"]["incarnation"]
    cluster.delete("pod,pvc", *lost)
    cluster.until_reported("Degraded", "QuorumLost", survivor, *lost)
    cluster.until(lambda: not cluster.listed("pvc").keys() & set(lost), "the claims are deleted")
    assert cluster.condition("Available")["status"] == "False"
    assert cluster.read("pvc", survivor)["metadata"]["uid"] == claim
    assert cluster.status["record"]["incarnation"] == incarnation


def _without_back_off(cluster: EtcdClusterOnNode) -> str:
    """Returns a member whose container has restarted the least: the kubelet restarts it immediately."""
    pods = cluster.pods()
    return min(pods, key=lambda name: _restart_count(pods[name]))


def _restarts(cluster: EtcdClusterOnNode, name: str) -> int:
    return _restart_count(cluster.pods()[name])


def _restart_count(pod: dict[str, Any]) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])


def _only_one_is_stopped(cluster: EtcdClusterOnNode) -> str:
    """Checks that all members but one serve, and that the condition names the pod of that one."""
    members = cluster.status["members"]
    [name] = members["unready"]
    assert len(members["ready"]) == SIZE - 1
    assert f"The pod {name} " in cluster.condition("Degraded")["message"]
    assert cluster.condition("Available")["status"] == "True"
    return str(name)
