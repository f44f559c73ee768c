"""The writer reaches the client Service and the members of a cluster on the local node."""

from __future__ import annotations

from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from etcd_operator.etcd import Endpoint
from tests.cluster.etcd_pod import pods, service
from tests.etcd.proof import Access, prove, writing

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]


def test_writes_through_the_service_are_read_back_from_the_pod(tmp_path: Path) -> None:
    target = targets.ensure()
    assert target.cluster
    image = etcd_images.ensure(target)[etcd_images.versions()[-1]]
    with pods(target.kubectl, "pilothouse-etcd-writer") as found:
        found.create(service("client"))
        found.run("member", image)
        address = found.read("client", "service")["spec"]["clusterIP"]
        with writing(Access.of(target.cluster), Endpoint(address, ""), tmp_path) as writer:
            writer.wait_acknowledged()
        member = found.read("member")["status"]["podIP"]
        figures = prove(writer, {"member": Endpoint(member, "")})
    # kube-proxy may need a second for the rules of a new Service. The first writes fail until then.
    assert figures.writes > figures.failed_writes
