"""pilothouse-flights on the real cluster, installed by OLM: helpers for tests and benchmarks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from release import airline, install, packages, publish
from release.packages import Package, find
from tests.cluster.airline import ClusterAirline

T = TypeVar("T")
EXAMPLES = CHECKOUT / "examples" / "flights"
DEMO_TICKET = ("default", "my-flight-ticket")
NAMESPACE = "pilothouse-test"


@dataclass
class Flights:
    """The installed operator, and helpers for tests."""

    kubectl: Kubectl
    package: Package
    published: publish.Published
    airline: ClusterAirline
    seed_uid: str

    def create(self, name: str, **spec: object) -> str:
        """Creates a ticket in the test namespace. Returns its UID, which is its reference at the airline."""
        ticket = {
            "apiVersion": "flights.com/v1",
            "kind": "FlightTicket",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"from": "Mumbai", "to": "London", "number": 2, **spec},
        }
        words = ("create", "-f", "-", "-o", "jsonpath={.metadata.uid}")
        return self.kubectl(*words, stdin=json.dumps(ticket)).strip()

    def change(self, name: str, **spec: object) -> None:
        """Changes fields of a ticket's spec."""
        patch = json.dumps({"spec": spec})
        self.kubectl("patch", "flightticket", name, "-n", NAMESPACE, "--type=merge", "-p", patch)

    def delete(self, name: str, *, wait: bool = True) -> None:
        """Deletes a ticket, and waits until it no longer exists."""
        self.kubectl(
            "delete", "flightticket", name, "-n", NAMESPACE, f"--wait={str(wait).lower()}", timeout=90
        )

    def ticket(self, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """Returns the ticket, or an empty object if it does not exist."""
        text = self.kubectl("get", "flightticket", name, "-n", namespace, "--ignore-not-found", "-o", "json")
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def wait_phase(
        self, name: str, phase: str, *, namespace: str = NAMESPACE, seconds: float = 60
    ) -> dict[str, Any]:
        """Waits until a ticket is in a phase for its current generation, and returns it."""

        def reached() -> dict[str, Any] | None:
            ticket = self.ticket(name, namespace)
            status = ticket.get("status", {})
            current = status.get("observedGeneration") == ticket.get("metadata", {}).get("generation")
            return ticket if current and status.get("phase") == phase else None

        return self.until(reached, f"{namespace}/{name} is {phase}", seconds)

    def until(self, condition: Callable[[], T | None], what: str, seconds: float = 60) -> T:
        """Waits for a condition and returns its result. A failure shows the state of the cluster."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                tickets = self.kubectl("get", "flighttickets", "-A", "-o", "yaml")
                scene = install.explain(self.kubectl, self.package)
                pytest.fail(f"not within {seconds:.0f} s: {what}\n{tickets[-8000:]}\n{scene}")
            time.sleep(0.1)

    def operator_pods(self) -> list[dict[str, Any]]:
        """Returns the operator's pods."""
        return operator_pods(self.kubectl, self.package)


def operator_pods(kubectl: Kubectl, package: Package) -> list[dict[str, Any]]:
    """Returns the pods of a package's operator."""
    words = ("pods", "-n", packages.NAMESPACE, "-l", package.selector)
    items: list[dict[str, Any]] = kubectl.read(*words)["items"]
    return items


def ready_condition(ticket: dict[str, Any]) -> dict[str, Any]:
    """Returns the Ready condition of a ticket."""
    found: dict[str, Any] = next(c for c in ticket["status"]["conditions"] if c["type"] == "Ready")
    return found


@contextmanager
def installed() -> Iterator[Flights]:
    """Creates the seed's CRD and ticket manually, then installs the operator through OLM."""
    target = targets.ensure()
    kubectl = target.kubectl
    package = find("pilothouse-flights")
    uninstall(kubectl, package, {DEMO_TICKET} if target.local else set())
    kubectl("create", "-f", str(EXAMPLES / "flightticket-custom-definition.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/flighttickets.flights.com", "--timeout=30s")
    kubectl("create", "-n", "default", "-f", str(EXAMPLES / "flightticket.yaml"))
    seed_uid = kubectl("get", "ft", "my-flight-ticket", "-n", "default", "-o", "jsonpath={.metadata.uid}")
    airline.deploy(kubectl, airline.image())
    published = publish.publish()
    install.subscribe(kubectl, package, published.catalog, published.operator)
    install.wait_succeeded(kubectl, package)
    if not kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
        kubectl("create", "namespace", NAMESPACE)
    service = ClusterAirline(kubectl)
    try:
        yield Flights(kubectl, package, published, service, seed_uid)
    finally:
        service.close()
        if not target.local:  # On other clusters the next run would refuse this ticket as a user's.
            kubectl("delete", "flightticket", DEMO_TICKET[1], "-n", DEMO_TICKET[0], "--wait=false")


def uninstall(kubectl: Kubectl, package: Package, ours: set[tuple[str, str]]) -> None:
    """Removes everything that an earlier run has left.

    Args:
        kubectl: Runs kubectl against the cluster.
        package: The package to uninstall.
        ours: The tickets that may be deleted, besides those in the test namespace.

    Raises:
        ClusterError: There are tickets of a user.
    """
    if not kubectl("get", "crd", "flighttickets.flights.com", "--ignore-not-found"):
        install.unsubscribe(kubectl, package)
        return
    tickets = kubectl.read("flighttickets", "-A")["items"]
    places = [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in tickets]
    for place in places:
        if place not in ours and place[0] != NAMESPACE:
            raise ClusterError(
                f"ticket {'/'.join(place)} was not created by a test. Delete it, or test on another cluster"
            )
    for namespace, name in places:
        kubectl("delete", "flightticket", name, "-n", namespace, "--wait=false")
    gone = _tickets_gone(kubectl, seconds=60)
    install.unsubscribe(kubectl, package)
    if not gone:  # There was no operator to remove the finalizers.
        for item in kubectl.read("flighttickets", "-A")["items"]:
            words = ("patch", "flightticket", item["metadata"]["name"], "-n", item["metadata"]["namespace"])
            kubectl(*words, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("delete", "crd", "flighttickets.flights.com", "--timeout=60s", timeout=70)


def _tickets_gone(kubectl: Kubectl, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while kubectl.read("flighttickets", "-A")["items"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True
