"""A switch to Retain on the real node: the volumes outlive the EtcdCluster, whatever state that is in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.etcd import Etcd, EtcdClusterOnNode

pytestmark = pytest.mark.timeout(900)
RETAIN = {"storage": {"whenDeleted": "Retain"}}
#: What keeps the operator from the spec, and the reason that it reports.
STATES: list[tuple[dict[str, Any], str]] = [
    ({"version": "3.99.0"}, "InvalidSpec"),
    ({"paused": True}, "Paused"),
]


@pytest.fixture
def cluster(etcd: Etcd) -> Iterator[EtcdClusterOnNode]:
    """A cluster of one member whose volume would be deleted with it."""
    found = EtcdClusterOnNode(etcd, "retention")
    found.create_with(size=1, storage={"whenDeleted": "Delete"})
    found.settle(1)
    yield found
    found.wipe()


def owners(cluster: EtcdClusterOnNode) -> list[str]:
    """Returns the kinds of the owners of the cluster's volumes."""
    claims = cluster.listed("pvc").values()
    return [each["kind"] for claim in claims for each in claim["metadata"].get("ownerReferences", ())]


@pytest.mark.parametrize(("spec", "reason"), STATES, ids=[reason for _, reason in STATES])
def test_a_switch_to_retain_is_followed_in_every_state(
    cluster: EtcdClusterOnNode, spec: dict[str, Any], reason: str
) -> None:
    [name] = cluster.pods()
    uid = cluster.read("pvc", name)["metadata"]["uid"]
    assert owners(cluster) == ["EtcdCluster"]
    cluster.etcdctl(name, "put", "key", "value")
    cluster.change(**spec)
    cluster.until_reported("Ready", reason)
    cluster.change(**RETAIN)
    cluster.until(lambda: not owners(cluster), "the volume has no owner")
    cluster.delete_cluster()
    claim = cluster.read("pvc", name)["metadata"]
    assert (claim["uid"], claim.get("deletionTimestamp")) == (uid, None)
    cluster.create_with(size=1)
    cluster.settle(1)
    assert [*cluster.pods()] == [name]
    assert "value" in cluster.etcdctl(name, "get", "key")
