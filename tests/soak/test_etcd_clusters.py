"""The etcd operator on the real node for a long time: resizes, and random losses, under load."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from release import packages
from tests.cluster.etcd import SIZE, Etcd, EtcdClusterOnNode

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
#: The largest number of members.
LARGEST = 7
SEED, ROUNDS = 20261128, 40


@pytest.fixture
def cluster(etcd: Etcd) -> EtcdClusterOnNode:
    """The healthy cluster that the tests share."""
    found = EtcdClusterOnNode(etcd)
    found.restore()
    return found


def test_a_cluster_goes_from_one_member_to_seven_and_back(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    """From three members up, no write fails. One and two members have no spare.

    The volumes of the removed members stay, and never block a later step.
    """
    retained = {*cluster.status.get("retainedVolumes", ())}
    parts = {
        "small": ((1, SIZE), False),
        "large": ((LARGEST, SIZE), True),
        "all": ((1, LARGEST, SIZE), False),
    }
    for part, (sizes, planned) in parts.items():
        (tmp_path / part).mkdir()
        with cluster.under_load(tmp_path / part, planned=planned):
            for size in sizes:
                cluster.change(size=size)
                cluster.settle(size)
    removed = (SIZE - 1) + (LARGEST - SIZE) + (SIZE - 1) + (LARGEST - SIZE)
    assert len({*cluster.status["retainedVolumes"]} - retained) == removed


def test_all_pods_that_are_deleted_together_return_on_their_volumes(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    before = cluster.pods()
    with cluster.under_load(tmp_path):
        cluster.delete("pod", *before)
        cluster.until_replaced(before, *before)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()


def test_random_losses_of_pods_volumes_and_the_operator(cluster: EtcdClusterOnNode, tmp_path: Path) -> None:
    draw = random.Random(SEED)
    with cluster.under_load(tmp_path):
        for _ in range(ROUNDS):
            pods, lost = sorted(cluster.pods()), ""
            match draw.choice(("pods", "volume", "process", "operator")):
                case "pods":
                    cluster.delete("pod", *draw.sample(pods, draw.randint(1, SIZE)))
                case "volume":
                    lost = draw.choice(pods)
                    cluster.delete("pod,pvc", lost)
                    delete_operator(cluster)
                case "process":
                    cluster.kill(draw.choice(pods))
                case _:
                    cluster.delete("pod", draw.choice(pods))
                    delete_operator(cluster)
            cluster.settle(without=lost)


def test_the_operator_is_deleted_again_and_again_during_an_upgrade(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    newest = etcd_images.versions()[-1]
    with cluster.under_load(tmp_path, planned=True):
        cluster.change(version=newest, upgradePolicy="Automatic")
        while cluster.status.get("currentVersion") != newest:
            delete_operator(cluster)
            cluster.until(lambda: _one_is_ready(cluster), "the operator is ready again")
        cluster.settle(version=newest)


def delete_operator(cluster: EtcdClusterOnNode) -> None:
    """Deletes the pods of the operator, without waiting."""
    words = ("delete", "pods", "-l", cluster.etcd.package.selector, "-n", packages.NAMESPACE)
    cluster.etcd.kubectl(*words, "--wait=false")


def _one_is_ready(cluster: EtcdClusterOnNode) -> bool:
    conditions = [each["status"].get("conditions", ()) for each in cluster.etcd.pods()]
    return any(each["type"] == "Ready" and each["status"] == "True" for pod in conditions for each in pod)
