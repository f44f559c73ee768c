"""An EtcdCluster with TLS for peers, clients and the operator on the real node. Its names are in real DNS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from etcd_operator.certificates import OPERATOR
from tests.cluster.etcd import Etcd, EtcdClusterOnNode
from tests.cluster.etcd_tls import CLIENTS, TLS, Certificates, put_secret, write_files

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
NAME = "with-tls"


@pytest.fixture
def cluster(etcd: Etcd, tmp_path: Path) -> Iterator[EtcdClusterOnNode]:
    """A cluster that the test has to create."""
    found = EtcdClusterOnNode(etcd, NAME, tmp_path / "client")
    yield found
    found.wipe()


def test_a_cluster_with_tls_waits_for_its_secrets_heals_and_keeps_tls(
    cluster: EtcdClusterOnNode, tmp_path: Path
) -> None:
    secrets = Certificates(tmp_path / "authority", NAME).all()
    write_files(tmp_path / "client", secrets[CLIENTS])
    cluster.create_with(version=etcd_images.versions()[-1], TLS=TLS)
    cluster.until_reported("Ready", "SecretUnusable", *secrets)
    for name, contents in secrets.items():
        put_secret(cluster, name, {key: contents[key] for key in contents if key != OPERATOR.key})
    cluster.until_reported("Ready", "SecretUnusable", CLIENTS, OPERATOR.key)
    assert not cluster.pods()
    put_secret(cluster, CLIENTS, secrets[CLIENTS])
    cluster.settle()
    before = cluster.pods()
    gone = min(before)
    with cluster.under_load(tmp_path, planned=True):
        cluster.delete("pod", gone)
        cluster.until_replaced(before, gone)
        cluster.settle()
        uids = cluster.uids()
        cluster.change(TLS=None)
        cluster.until_reported("Ready", "InvalidSpec", "cannot be turned off while the cluster runs")
        cluster.change(TLS=TLS)
        cluster.settle()
    assert cluster.pods().keys() == before.keys()
    assert cluster.uids() == uids
