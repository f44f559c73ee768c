"""The operator from plain manifests: kubectl apply -k config/flights. Uninstalls OLM's, so it runs last."""

from __future__ import annotations

import pytest

from devcluster.folders import CHECKOUT
from release import airline, install
from tests.cluster.flights import Flights

pytestmark = pytest.mark.timeout(600)

NAMESPACE = "pilothouse-flights"


def test_plain_manifests_run_the_operator_and_book(flights: Flights) -> None:
    kubectl = flights.kubectl
    install.unsubscribe(kubectl, flights.package)
    airline.share_key(kubectl, NAMESPACE)
    try:
        kubectl("apply", "--server-side", "--force-conflicts", "-k", str(CHECKOUT / "config" / "flights"))
        words = ("rollout", "status", "deployment/pilothouse-flights", "-n", NAMESPACE, "--timeout=90s")
        kubectl(*words, timeout=100)
        uid = flights.create("without-olm")
        flights.wait_phase("without-olm", "Booked")
        assert flights.airline.booking(uid) is not None
        flights.delete("without-olm")
        assert flights.airline.booking(uid) is None
    finally:
        # Not with -k, which would delete the CRD first, and with it every ticket in the cluster.
        kubectl("delete", "flightticket", "my-flight-ticket", "-n", "default", "--timeout=60s", timeout=70)
        kubectl("delete", "namespace", NAMESPACE, "--timeout=90s", timeout=100)
        kubectl("delete", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/part-of=pilothouse")
