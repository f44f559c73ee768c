"""The writer reaches the client Service and the members of a cluster on the local node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devcluster import etcd_images
from devcluster import target as targets
from etcd_operator.etcd import Endpoint
from tests.cluster.etcd_pod import pod, service
from tests.etcd.proof import Access, prove, writing

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
NAMESPACE = "pilothouse-etcd-writer"


def test_writes_through_the_service_are_read_back_from_the_pod(tmp_path: Path) -> None:
    target = targets.ensure()
    assert target.cluster
    kubectl = target.kubectl
    image = etcd_images.ensure(target)[etcd_images.versions()[-1]]
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)
    kubectl("create", "namespace", NAMESPACE)
    try:
        for manifest in (service("client"), pod("member", image)):
            kubectl("create", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(manifest))
        words = ("wait", "pod/member", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=120s")
        kubectl(*words, timeout=130)
        address = kubectl.read("service", "client", "-n", NAMESPACE)["spec"]["clusterIP"]
        with writing(Access.of(target.cluster), Endpoint(address, ""), tmp_path) as writer:
            writer.wait_acknowledged()
        member = kubectl.read("pod", "member", "-n", NAMESPACE)["status"]["podIP"]
        figures = prove(writer, {"member": Endpoint(member, "")})
        assert figures.failed_writes == 0
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")
