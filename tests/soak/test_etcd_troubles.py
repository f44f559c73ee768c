"""What goes wrong with an EtcdCluster on the real node for minutes: members that crash, an operator away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from devcluster.shell import CommandError
from etcd_operator.problems import SYMPTOMS
from tests.cluster.etcd import NAMESPACE, SIZE, Etcd, EtcdClusterOnNode

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
#: Seconds that the operator is away. After half of them, the second of two members is lost.
AWAY = 600.0
#: Seconds: a member crashes for 5 minutes before it is replaced.
CRASHES = 600.0


@pytest.fixture
def cluster(etcd: Etcd) -> EtcdClusterOnNode:
    """The healthy cluster that the tests share."""
    found = EtcdClusterOnNode(etcd)
    found.restore()
    return found


@contextmanager
def cordoned(cluster: EtcdClusterOnNode) -> Iterator[None]:
    """Makes the only node refuse new pods while the block runs."""
    [node] = cluster.etcd.kubectl.read("nodes")["items"]
    name = node["metadata"]["name"]
    cluster.etcd.kubectl("cordon", name)
    try:
        yield
    finally:
        cluster.etcd.kubectl("uncordon", name)


@contextmanager
def limited(cluster: EtcdClusterOnNode) -> Iterator[None]:
    """Allows no more pods in the namespace while the block runs."""
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "pods"},
        "spec": {"hard": {"pods": str(SIZE - 1)}},
    }
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(quota))
    used = ("get", "resourcequota", "pods", "-o", "jsonpath={.status.used.pods}")
    cluster.until(lambda: cluster.kubectl(*used), "the quota is in force")
    try:
        yield
    finally:
        cluster.kubectl("delete", "resourcequota", "pods")


def test_a_deleted_pod_that_no_node_accepts_waits_for_one(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    before = cluster.pods()
    gone = min(before)
    with cluster.under_load(tmp_path, planned=True):
        with cordoned(cluster):
            cluster.delete("pod", gone)
            cluster.until_reported("Degraded", "MemberPending", f"The pod {gone} ", "unschedulable")
            assert cluster.condition("Available")["status"] == "True"
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_a_deleted_pod_that_a_quota_forbids_is_created_once_that_is_raised(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    gone = min(before)
    with cluster.under_load(tmp_path, planned=True):
        with limited(cluster):
            cluster.delete("pod", gone)
            cluster.until_reported("Ready", "KubernetesRefused", gone, "exceeded quota")
            cluster.until(lambda: cluster.condition("Available")["status"] == "True", "the others serve")
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_each_mistake_in_a_new_cluster_is_named_and_can_be_corrected(etcd: Etcd, tmp_path: Path) -> None:
    """Nothing is served yet, so each correction founds the cluster again."""
    cluster = EtcdClusterOnNode(etcd, "mistaken")
    newest = etcd_images.versions()[-1]
    mistyped = f"{newest}9"
    field = "spec.pod.persistentVolumeClaimSpec.storageClassName"
    claim = {"storageClassName": "mistyped", "resources": {"requests": {"storage": "1Gi"}}}
    large = {"requests": {"memory": "1Ti"}}
    try:
        cluster.create_with(version=mistyped, pod={"persistentVolumeClaimSpec": claim, "resources": large})
        cluster.until_reported("Ready", "NoStorageClass", "mistyped", field)
        cluster.change(pod={"persistentVolumeClaimSpec": None})
        cluster.until_reported("Degraded", "MemberPending", "Insufficient memory")
        cluster.change(pod={"resources": None})
        cluster.until_reported("Degraded", "ImageUnavailable", mistyped)
        cluster.change(version=newest)
        cluster.settle(version=newest)
        with cluster.under_load(tmp_path, planned=True):
            pass
        assert cluster.listed("pvc").keys() == cluster.pods().keys(), "nothing is left of earlier attempts"
    finally:
        cluster.wipe()


def test_a_member_with_a_corrupt_log_crashes_and_is_replaced(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    lost, *others = sorted(cluster.pods())
    with cluster.under_load(tmp_path):
        cluster.corrupt_data(lost)
        cluster.kill(lost)
        cluster.until_reported("Degraded", "MemberCrashing", f"The pod {lost} ", "--previous")
        assert cluster.status["members"] == {"ready": others, "unready": [lost]}
        assert cluster.condition("Available")["status"] == "True"
        cluster.settle(without=lost, seconds=CRASHES)
    assert {*others} < cluster.pods().keys()
    # Its data may help to find the cause.
    assert lost in cluster.status["retainedVolumes"]


def test_a_variable_that_etcd_refuses_stops_one_member_until_it_is_corrected(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    # etcd requires five times the interval of the heartbeats.
    mistake = [{"name": "ETCD_ELECTION_TIMEOUT", "value": "100"}]
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(pod={"etcdEnv": mistake})
        cluster.until_reported("Degraded", "MemberCrashing", "--previous")
        [crashing] = cluster.status["members"]["unready"]
        # After that time, a member that alone crashes would be replaced.
        time.sleep(CRASHES / 2 + 30)
        assert cluster.status["members"]["unready"] == [crashing]
        assert cluster.condition("Available")["status"] == "True"
        cluster.change(pod=None)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_a_reverted_spec_reaches_a_member_that_runs_without_serving(etcd: Etcd, tmp_path: Path) -> None:
    """A stopped process stands for a mistake with which etcd starts and never finds a leader."""
    cluster = EtcdClusterOnNode(etcd, "hanging")
    # The readiness of old versions is an open port, which a stopped process may have.
    cluster.create_with(version=etcd_images.versions()[-1])
    try:
        cluster.settle()
        before = cluster.pods()
        processes = {name: cluster.processes(name) for name in before}
        with cluster.under_load(tmp_path, planned=True):
            cluster.change(pod={"etcdEnv": [{"name": "ETCD_LOG_LEVEL", "value": "debug"}]})
            hanging = cluster.hang_next(processes)
            cluster.until(lambda: cluster.reason("Degraded") in SYMPTOMS, f"{hanging} does not serve")
            assert hanging in cluster.condition("Degraded")["message"]
            assert cluster.status["members"]["unready"] == [hanging]
            assert cluster.condition("Available")["status"] == "True"
            hung = cluster.pods()[hanging]["metadata"]["uid"]
            cluster.change(pod=None)
            cluster.until(lambda: hung not in cluster.uids(), f"{hanging} is created again")
            cluster.settle()
        assert cluster.pods().keys() == before.keys()
        others = {each["metadata"]["uid"] for name, each in before.items() if name != hanging}
        assert others < cluster.uids()
    finally:
        cluster.wipe()


@pytest.mark.parametrize("fate", ["kept", "lost", "unwanted"])
def test_a_learner_that_a_killed_operator_has_added_is_finished_or_removed(
    cluster: EtcdClusterOnNode, tmp_path: Path, fate: str
) -> None:
    before = cluster.pods()
    asked = min(before)
    with cluster.under_load(tmp_path, planned=True):
        known = cluster.members(asked)
        cluster.change(size=SIZE + 2)
        cluster.until(lambda: len(cluster.pods()) > SIZE, "a pod is created for the new member")
        with cluster.etcd.stopped():
            [learner] = {*cluster.pods()} - {*before}
            if cluster.members(asked).keys() == known.keys():
                # The operator has sent this request, or was about to.
                url = f"http://{learner}.{cluster.name}.{NAMESPACE}.svc:2380"
                cluster.etcdctl(asked, "member", "add", learner, f"--peer-urls={url}", "--learner")
            cluster.kubectl("delete", "pod", learner)
            [added] = cluster.members(asked).keys() - known.keys()
            assert cluster.members(asked)[added].get("isLearner"), "the operator was killed too late"
            if fate == "lost":
                cluster.kubectl("delete", "pvc", learner)
            if fate == "unwanted":
                cluster.change(size=SIZE)
        size = SIZE if fate == "unwanted" else SIZE + 2
        cluster.settle(size, without="" if fate == "kept" else learner)
        assert (learner in cluster.pods()) == (fate == "kept")
        cluster.change(size=SIZE)
        cluster.settle()


def test_a_learner_of_a_user_delays_a_replacement_and_is_never_removed(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    lost, asked, _ = sorted(cluster.pods())
    with cluster.under_load(tmp_path, planned=True):
        stranger = add_stranger(cluster, asked, "--learner")
        cluster.delete("pod,pvc", lost)
        cluster.until_reported("Ready", "WaitingForLearner")
        assert stranger in cluster.members(asked)
        cluster.etcdctl(asked, "member", "remove", stranger)
        cluster.settle(without=lost)


def test_a_voter_of_a_user_counts_for_the_quorum_and_is_never_removed(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    gone, asked, _ = sorted(before)
    # It has never started, so all other members are needed for the quorum.
    with cluster.under_load(tmp_path):
        stranger = add_stranger(cluster, asked)
        cluster.delete("pod", gone)
        cluster.until_replaced(before, gone)
        cluster.until(lambda: cluster.status["members"].get("ready") == sorted(before), "all serve")
        assert cluster.reason("Degraded") == "MembersAddedByUser"
        assert stranger in cluster.members(asked)
        cluster.etcdctl(asked, "member", "remove", stranger)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def add_stranger(cluster: EtcdClusterOnNode, asked: str, *options: str) -> str:
    """Adds a member that never starts, waits until that is reported, and returns its ID."""
    known = cluster.members(asked)
    words = ("member", "add", "stranger", "--peer-urls=http://stranger.example:2380", *options)

    def accepted() -> bool:
        """Adds it. Etcd refuses that until its members have been connected for 5 s."""
        try:
            cluster.etcdctl(asked, *words)
        except CommandError as error:
            if "unhealthy cluster" in str(error):
                return False
            raise
        return True

    cluster.until(accepted, "etcd accepts another member")
    [stranger] = cluster.members(asked).keys() - known.keys()
    cluster.until_reported("Degraded", "MembersAddedByUser", stranger)
    return stranger


def test_two_members_are_lost_while_the_operator_is_away_for_ten_minutes(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    lost, deleted, survivor = sorted(cluster.pods())
    with cluster.under_load(tmp_path, stall=AWAY) as writer:
        with cluster.etcd.stopped():
            cluster.delete("pod,pvc", lost)
            time.sleep(AWAY / 2)
            writer.wait_acknowledged()
            cluster.delete("pod", deleted)
            time.sleep(AWAY / 2)
            assert {*cluster.pods()} == {survivor}
        cluster.settle(without=lost)
    assert {deleted, survivor} < cluster.pods().keys()


def test_auth_stops_a_replacement_although_an_old_version_lets_the_operator_see(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    """Versions before 3.5.29 and 3.6.10 list their members to anyone, but refuse to change them."""
    if cluster.status["currentVersion"] != etcd_images.versions()[0]:
        pytest.skip("the cluster was upgraded by an earlier test")
    lost, asked, _ = sorted(cluster.pods())
    root = "--user=root:root"
    with cluster.under_load(tmp_path):
        known = cluster.members(asked)
        for words in ("user add root:root", "user grant-role root root", "auth enable"):
            cluster.etcdctl(asked, *words.split())
        cluster.delete("pod,pvc", lost)
        cluster.until_reported("Ready", "PermissionDenied", "etcd's auth is enabled", "etcdctl auth disable")
        assert cluster.members(asked, root).keys() == known.keys()
        cluster.etcdctl(asked, "auth", "disable", root)
        cluster.settle(without=lost)
        cluster.etcdctl(asked, "user", "delete", "root")
