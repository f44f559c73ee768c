"""The operators from plain manifests: kubectl apply -k config/FOLDER. Uninstalls OLM's, so it runs last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from release import airline, install
from release.packages import Package
from tests.cluster.etcd import Etcd, EtcdClusterOnNode
from tests.cluster.flights import Flights

pytestmark = pytest.mark.timeout(600)


@contextmanager
def applied(kubectl: Kubectl, package: Package) -> Iterator[None]:
    """Runs the operator of a package from its plain manifests while the block runs.

    The namespace of the operator has the name of the package.
    """
    name = package.name
    install.unsubscribe(kubectl, package)
    try:
        folder = str(CHECKOUT / "config" / package.folder)
        kubectl("apply", "--server-side", "--force-conflicts", "-k", folder)
        kubectl("rollout", "status", f"deployment/{name}", "-n", name, "--timeout=90s", timeout=100)
        yield
    finally:
        # Not with -k, which would delete the CRD first, and with it every object in the cluster.
        kubectl("delete", "namespace", name, "--timeout=90s", timeout=100)
        kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=pilothouse")


def test_plain_manifests_run_the_operator_and_book(flights: Flights) -> None:
    kubectl = flights.kubectl
    airline.share_key(kubectl, flights.package.name)
    with applied(kubectl, flights.package):
        try:
            uid = flights.create("without-olm")
            flights.wait_phase("without-olm", "Booked")
            assert flights.airline.booking(uid) is not None
            flights.delete("without-olm")
            assert flights.airline.booking(uid) is None
        finally:
            kubectl(
                "delete", "flightticket", "my-flight-ticket", "-n", "default", "--timeout=60s", timeout=70
            )


@pytest.mark.skipif(bool(targets.elsewhere()), reason="the writer runs in the network of the local node")
def test_plain_manifests_run_the_operator_and_an_etcd_cluster(etcd: Etcd, tmp_path: Path) -> None:
    cluster = EtcdClusterOnNode(etcd, "without-olm")
    with applied(etcd.kubectl, etcd.package):
        try:
            cluster.create_with()
            cluster.settle()
            with cluster.under_load(tmp_path, planned=True):
                pass
        finally:
            cluster.wipe()
