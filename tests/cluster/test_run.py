"""`inv run`: the operator on this host, in place of the one that OLM runs in the cluster."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from devcluster.folders import CHECKOUT
from release import packages
from tests.cluster.commands import inv, running
from tests.cluster.flights import Flights

pytestmark = pytest.mark.timeout(900)


def replicas(flights: Flights) -> int:
    """Returns the number of replicas in the spec of the operator's Deployment."""
    words = ("deployment", flights.package.name, "-n", packages.NAMESPACE, "-o", "jsonpath={.spec.replicas}")
    return int(flights.kubectl("get", *words))


def test_take_over_books_restarts_on_a_change_and_restores_the_deployment(
    flights: Flights, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert replicas(flights) == 1

    def logs(process: subprocess.Popen[bytes], text: str) -> None:
        def logged() -> bool:
            assert process.poll() is None, log.read_text()
            return text in log.read_text()

        flights.until(logged, f"the log contains {text!r}")

    with running(flights.kubectl, "run", "flights", "--take-over", log=log) as process:
        logs(process, "paused")
        flights.until(lambda: not flights.operator_pods(), "the operator's pod is gone")
        uid = flights.create("on-the-host")
        flights.wait_phase("on-the-host", "Booked")
        refused = inv(flights.kubectl, "run", "flights", "--take-over")
        assert (refused.returncode, "another ./inv run flights --take-over" in refused.stderr) == (1, True)
        # OLM does the same when it installs the operator again.
        flights.kubectl(
            "scale", f"deployment/{flights.package.name}", "-n", packages.NAMESPACE, "--replicas=1"
        )
        logs(process, "had been scaled up again; paused it")
        added = CHECKOUT / "operator" / "flights_operator" / "added_by_a_test.py"
        added.write_text('"""A source file that nothing imports."""\n')
        try:
            logs(process, "the sources have changed: restarting")
        finally:
            added.unlink()
        flights.change("on-the-host", number=4)
        flights.wait_phase("on-the-host", "Booked")
        # The airline gets another pod, so the port-forward must be restarted.
        flights.airline.scale(0)
        flights.airline.scale(1)
        flights.change("on-the-host", number=5)
        flights.wait_phase("on-the-host", "Booked", seconds=120)
        flights.until(
            lambda: (replicas(flights), flights.operator_pods()) == (0, []),
            "only the operator on this host may reconcile",
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    text = log.read_text()
    assert "Traceback" not in text
    assert f"scaled {packages.NAMESPACE}/{flights.package.name} back to 1 replica(s)" in text
    assert replicas(flights) == 1
    flights.delete("on-the-host")  # the operator in the cluster cleans up
    assert dict(flights.airline.audit(uid)) == {"created": 1, "changed": 2, "cancelled": 1, "closed": 1}
