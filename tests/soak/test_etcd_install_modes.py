"""OLM runs pilothouse-etcd for one namespace: the clusters of other namespaces are left alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import target as targets
from devcluster.kubectl import wait_until
from release import install, packages
from tests.cluster.etcd import NAMESPACE, SEED, Etcd, EtcdClusterOnNode

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node"),
]
OTHER = "pilothouse-etcd-other"
NAME = "watched"


def watch(etcd: Etcd, *namespaces: str) -> None:
    """Sets the namespaces of the OperatorGroup, and waits until OLM has rolled the operator out for them.

    None: all namespaces.
    """
    patch = json.dumps({"spec": {"targetNamespaces": list(namespaces) or None}})
    group = ("operatorgroup", "pilothouse", "-n", packages.NAMESPACE)
    etcd.kubectl("patch", *group, "--type=merge", "-p", patch)

    def rolled_out() -> bool:
        csv = install.wait_succeeded(etcd.kubectl, etcd.package)
        pods = etcd.pods()
        targeted = [each["metadata"]["annotations"].get("olm.targetNamespaces", "") for each in (csv, *pods)]
        return bool(pods) and {*targeted} == {",".join(namespaces)} and all(map(_is_ready, pods))

    wait_until(rolled_out, 180, lambda: install.explain(etcd.kubectl, etcd.package))


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.fixture
def watched(etcd: Etcd) -> Iterator[EtcdClusterOnNode]:
    """A cluster in the only namespace that the operator watches. Afterwards it watches all again."""
    found = EtcdClusterOnNode(etcd, NAME)
    etcd.kubectl("delete", "namespace", OTHER, "--ignore-not-found", timeout=120)
    etcd.kubectl("create", "namespace", OTHER)
    try:
        watch(etcd, NAMESPACE)
        yield found
    finally:
        watch(etcd)
        etcd.kubectl("delete", "namespace", OTHER, "--wait=false")
        found.wipe()


def test_a_cluster_in_another_namespace_is_left_alone(watched: EtcdClusterOnNode, tmp_path: Path) -> None:
    kubectl = watched.etcd.kubectl
    kubectl("create", "-n", OTHER, "-f", str(SEED))
    watched.create_with()
    watched.settle()
    with watched.under_load(tmp_path):
        pass

    def other() -> dict[str, Any]:
        [found] = kubectl.read("etcdclusters", "-n", OTHER)["items"]
        status: dict[str, Any] = found.get("status", {})
        return status

    assert other() == {}
    assert kubectl.read("pods,pvc,services", "-n", OTHER)["items"] == []
    # The same operator serves it once its OperatorGroup selects all namespaces.
    watch(watched.etcd)
    wait_until(lambda: other().get("phase") == "Running", 120, lambda: json.dumps(other()))
