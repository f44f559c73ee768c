"""The commands of docs/howto/etcd/recover.md on the real node, as a user runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from devcluster import target as targets
from etcd_operator.pages import RECOVERY
from release.documents import dump
from tests.api.etcd_members import free_ports
from tests.cluster.etcd import NAMESPACE, Etcd, EtcdClusterOnNode
from tests.etcd.proof import WriterProcess, prove
from tests.etcd_howto import commands, manifests
from tests.soak.user import User

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
PAGE, VERSION = "recover.md", "3.6.14"
#: The members of the page's examples: one that survives, and one that does not.
EXAMPLE, OTHER = "example-etcd-cluster-aaaaa", "example-etcd-cluster-bbbbb"
NODE_LOST = "A node does not come back"
DAMAGED = "The data of a majority is damaged"
CLAIM_DELETED = "A volume is deleted while its pod does not run"
MAJORITY_LOST = "The volumes of a majority are lost"
NOT_RESUMED = "A deleted cluster cannot be resumed"
ALL_LOST = "All volumes are lost"
COPY = "Copy the keys of a snapshot"
#: The key that is copied to another cluster, and its value.
KEY, VALUE = "/registry/key", "value"


@pytest.fixture
def cluster(etcd: Etcd) -> Iterator[EtcdClusterOnNode]:
    """The cluster of the page, which the test has to create."""
    found = EtcdClusterOnNode(etcd)
    found.wipe()
    yield found
    found.wipe()


def user(cluster: EtcdClusterOnNode, folder: Path, survivor: str = EXAMPLE) -> User:
    """Returns a user whose example is the given member. The page's port may be in use on this machine."""
    (folder / "user").mkdir()
    [port] = free_ports(1)
    words = {
        EXAMPLE: survivor,
        ".default.svc": f".{NAMESPACE}.svc",
        "--endpoints=http://127.0.0.1:2379": f"--endpoints=http://127.0.0.1:{port}",
        " 2379 &": f" {port}:2379 &",
        # The local cluster has another tag of the image.
        "busybox:1.37": "busybox:1.35.0",
    }
    return User(cluster, folder / "user", words)


def written(cluster: EtcdClusterOnNode, folder: Path) -> WriterProcess:
    """Writes for some seconds, and checks that every member has all acknowledged writes."""
    folder.mkdir()
    with cluster.under_load(folder) as writer:
        pass
    return writer


def lose(cluster: EtcdClusterOnNode, *names: str) -> None:
    """Loses members together with their volumes."""
    cluster.delete("pod,pvc", *names)
    cluster.until(lambda: not cluster.listed("pvc").keys() & {*names}, "the volumes are lost")


def recovered(cluster: EtcdClusterOnNode, folder: Path, writer: WriterProcess) -> None:
    """Writes until the cluster has its size again, and checks that all earlier writes are there, too."""
    cluster.until(lambda: cluster.condition("Available").get("status") == "True", "the survivor serves")
    folder.mkdir()
    with cluster.under_load(folder):
        cluster.settle()
    prove(writer, cluster.endpoints())


def is_alone(shell: User, listing: str, keys: str) -> None:
    """Runs the checks of the page in the pod with etcd --force-new-cluster."""
    assert len(shell.run(listing).splitlines()) == 1
    assert shell.run(keys).strip()


def test_a_member_on_a_node_that_is_lost_is_given_up(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    """The node of the test runs. The commands are the same, but the test does not wait for the kubelet."""
    cluster.create_with(version=VERSION)
    cluster.settle()
    lost = min(cluster.pods())
    shell = user(cluster, tmp_path, lost)
    with cluster.under_load(tmp_path):
        for command in commands(PAGE, NODE_LOST):
            shell.run(command)
        cluster.settle(without=lost)


@pytest.mark.parametrize("damaged", [False, True], ids=["lost", "damaged"])
def test_a_cluster_recovers_from_the_survivor_of_a_lost_majority(
    cluster: EtcdClusterOnNode, tmp_path: Path, damaged: bool
) -> None:
    cluster.create_with(version=VERSION)
    cluster.settle()
    writer = written(cluster, tmp_path / "before")
    survivor, *lost = sorted(cluster.pods())
    incarnation = cluster.status["record"]["incarnation"]
    shell = user(cluster, tmp_path, survivor)
    if damaged:
        for name in lost:
            cluster.corrupt_data(name)
            cluster.kill(name)
        crashing = [f"The pod {name} runs etcd, which exits again and again" for name in lost]
        cluster.until_reported("Degraded", "MemberCrashing", *crashing)
        cluster.until_reported("Ready", "NoQuorum", RECOVERY)
        for name in lost:
            for command in commands(PAGE, DAMAGED):
                shell.run(command.replace(OTHER, name))
    else:
        lose(cluster, *lost)
    cluster.until_reported("Degraded", "QuorumLost", f"{survivor} (revision ", "--force-new-cluster")
    pause, forward, save, stop, listing, keys, end, resume, _ = commands(PAGE, MAJORITY_LOST)
    [recover] = manifests(PAGE, MAJORITY_LOST)
    shell.run(pause)
    cluster.until_reported("Ready", "Paused")
    with shell.running(forward):
        shell.run(save)
    shell.run(stop)
    shell.create(recover)
    cluster.until(lambda: shell.succeeds(keys), "the survivor serves alone")
    is_alone(shell, listing, keys)
    shell.run(end)
    shell.run(resume)
    recovered(cluster, tmp_path / "after", writer)
    assert survivor in cluster.pods()
    assert cluster.status["record"]["incarnation"] == incarnation


def test_a_deleted_claim_is_restored_on_its_volume(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    """A mistake in the spec stops one member, and the volume of another is lost. So the claim is needed."""
    cluster.create_with(version=VERSION)
    cluster.settle()
    writer = written(cluster, tmp_path / "before")
    # etcd requires five times the interval of the heartbeats.
    cluster.change(pod={"etcdEnv": [{"name": "ETCD_ELECTION_TIMEOUT", "value": "100"}]})
    cluster.until_reported("Degraded", "MemberCrashing")
    [held] = cluster.status["members"]["unready"]
    lost, survivor = sorted({*cluster.pods()} - {held})
    lose(cluster, lost)
    cluster.delete("pvc", held)
    cluster.until_reported("Ready", "NoQuorum", f"The PVCs of {held} are being deleted", RECOVERY)
    shell = user(cluster, tmp_path, held)
    *keep, owners, save_claim, save, end, ended, release, restore, bound, delete, create, reclaim = commands(
        PAGE, CLAIM_DELETED
    )
    for command in keep:
        shell.run(command)
    cluster.until(lambda: not shell.run(owners).strip(), "the volumes have no owner")
    for command in (save_claim, save, end, ended, release, restore, bound):
        shell.run(command)
    cluster.until_reported("Degraded", "QuorumLost", held, lost)
    shell.run(delete)
    # The user corrects the file.
    file = tmp_path / "user" / "cluster.yaml"
    manifest = yaml.safe_load(file.read_text())
    del manifest["spec"]["pod"]
    file.write_text(dump(manifest))
    shell.run(create)
    recovered(cluster, tmp_path / "after", writer)
    shell.run(reclaim)
    assert {held, survivor} < cluster.pods().keys()
    assert lost not in cluster.pods()


def test_a_deleted_cluster_recovers_from_one_retained_volume(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    cluster.create_with(version=VERSION)
    cluster.settle()
    writer = written(cluster, tmp_path / "before")
    survivor, *lost = sorted(cluster.pods())
    cluster.delete_cluster()
    cluster.kubectl("delete", "pvc", *lost)
    cluster.create_with(version=VERSION)
    cluster.until_reported("Ready", "VolumesMissing", *lost)
    shell = user(cluster, tmp_path, survivor)
    pause, *_, listing, keys, end, resume, _ = commands(PAGE, MAJORITY_LOST)
    [recover] = manifests(PAGE, MAJORITY_LOST)
    [mark] = commands(PAGE, NOT_RESUMED)
    shell.run(pause)
    cluster.until_reported("Ready", "Paused")
    shell.create(recover)
    cluster.until(lambda: shell.succeeds(keys), "the survivor serves alone")
    is_alone(shell, listing, keys)
    shell.run(end)
    shell.run(mark)
    shell.run(resume)
    recovered(cluster, tmp_path / "after", writer)
    assert survivor in cluster.pods()


def test_a_cluster_without_volumes_is_restored_from_a_snapshot(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    cluster.create_with(version=VERSION)
    cluster.settle()
    writer = written(cluster, tmp_path / "before")
    shell = user(cluster, tmp_path, min(cluster.pods()))
    _, forward, save, *_ = commands(PAGE, MAJORITY_LOST)
    with shell.running(forward):
        shell.run(save)
    lose(cluster, *cluster.pods())
    cluster.until_reported("Degraded", "QuorumLost", "Surviving members: none", "from a snapshot")
    claim, restore, again = manifests(PAGE, ALL_LOST)
    *delete, copy, copied, wait, show, end, annotate, label = commands(PAGE, ALL_LOST)
    for command in delete:
        shell.run(command)
    shell.create(claim, restore)
    cluster.until(lambda: shell.succeeds(copy), "the snapshot is copied")
    shell.run(copied)
    shell.run(wait)
    [found] = {*re.findall(r'"cluster-id": "([0-9a-f]+)"', shell.run(show))}
    shell.run(end)
    shell.run(re.sub(r"cluster-id=[0-9a-f]+", f"cluster-id={found}", annotate))
    shell.run(label)
    shell.create(again)
    recovered(cluster, tmp_path / "after", writer)
    assert claim["metadata"]["name"] in cluster.pods()


def test_the_keys_of_an_ephemeral_survivor_are_copied_to_a_new_cluster(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    ephemeral = {"version": VERSION, "storage": {"ephemeral": True}}
    cluster.create_with(**ephemeral)
    cluster.settle()
    survivor, *lost = sorted(cluster.pods())
    cluster.etcdctl(survivor, "put", KEY, VALUE)
    cluster.delete("pod", *lost)
    cluster.until_reported("Degraded", "QuorumLost", survivor, "before you delete its pod")
    shell = user(cluster, tmp_path, survivor)
    _, forward, save, *_ = commands(PAGE, MAJORITY_LOST)
    with shell.running(forward):
        shell.run(save)
    cluster.delete_cluster()
    cluster.create_with(**ephemeral)
    cluster.settle()
    restore, serve, reach, mirror = commands(PAGE, COPY)
    own, peer, other = free_ports(3)
    local = {
        "ETCD_LISTEN_CLIENT_URLS": f"http://127.0.0.1:{own}",
        "ETCD_ADVERTISE_CLIENT_URLS": f"http://127.0.0.1:{own}",
        "ETCD_LISTEN_PEER_URLS": f"http://127.0.0.1:{peer}",
    }
    there = {"ETCDCTL_ENDPOINTS": f"127.0.0.1:{own}"}
    shell.run(restore)
    with (
        shell.running(serve, **local),
        shell.running(reach.replace("12379:", f"{other}:")),
        shell.running(mirror.replace(":12379", f":{other}"), **there),
    ):
        asked = min(cluster.pods())
        cluster.until(lambda: VALUE in cluster.etcdctl(asked, "get", KEY), f"{KEY} is copied")
