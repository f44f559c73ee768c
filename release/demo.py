"""`inv demo`: installs both operators through OLM, books a ticket, and heals an etcd cluster."""

from __future__ import annotations

import shlex
import time
from typing import Any

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from devcluster.progress import Step, run_steps
from release import airline, install, publish
from release.demo_etcd import EtcdDemo
from release.packages import PACKAGES, find

_FLIGHTS, _ETCD = find("pilothouse-flights"), find("pilothouse-etcd")
_TICKET = CHECKOUT / "examples" / "flights" / "flightticket.yaml"
_NAME = "my-flight-ticket"
#: Seconds for a ticket to be booked. It takes less than one, unless the airline has just started.
_BOOKING_PATIENCE = 120.0


class Demo:
    """The steps of the demo on one cluster, and their results."""

    def __init__(self, target: targets.Target) -> None:
        self.kubectl: Kubectl = target.kubectl
        self.target = target
        self.airline_image = ""
        self.published: publish.Published
        self.installed: list[str] = []
        self.ticket: dict[str, Any] = {}
        self.install_seconds = 0.0
        self.etcd = EtcdDemo(target.kubectl, lambda: install.explain(target.kubectl, _ETCD))

    def run(self) -> str:
        """Runs all steps, shows their progress, and returns the summary."""
        run_steps(
            [
                Step("building the airline's, the operators' and etcd's images, and the catalog", self.build),
                Step("deploying the airline", lambda: airline.deploy(self.kubectl, self.airline_image)),
                Step(f"installing {' and '.join(PACKAGES)} through OLM", self.install),
                Step("booking the ticket", self.book),
                Step("creating an etcd cluster and writing a key", self.etcd.create),
                Step("deleting a member with its volume, until the cluster is healed", self.etcd.heal),
            ]
        )
        return self.story()

    def build(self) -> None:
        """Builds and pushes every image."""
        self.airline_image = airline.image()
        self.published = publish.publish()

    def install(self) -> None:
        """Subscribes to every package, and waits until OLM reports Succeeded."""
        began = time.monotonic()
        for package in PACKAGES.values():
            install.subscribe(self.kubectl, package, self.published.catalog, self.published.operator)
        csvs = [install.wait_succeeded(self.kubectl, package) for package in PACKAGES.values()]
        self.installed = [str(csv["metadata"]["name"]) for csv in csvs]
        self.install_seconds = time.monotonic() - began

    def book(self) -> None:
        """Applies the ticket with kubectl, and waits until it is booked."""
        self.kubectl("apply", "-n", "default", "-f", str(_TICKET))
        wait_until(self._booked, _BOOKING_PATIENCE, self._not_booked)

    def _booked(self) -> bool:
        self.ticket = self.kubectl.read("flightticket", _NAME, "-n", "default")
        status = self.ticket.get("status", {})
        current = status.get("observedGeneration") == self.ticket["metadata"]["generation"]
        return bool(current and status.get("phase") == "Booked")

    def _not_booked(self) -> str:
        state = self.kubectl("describe", "flightticket", _NAME, "-n", "default")
        return f"the ticket was not booked:\n{state}\n{install.explain(self.kubectl, _FLIGHTS)}\n"

    def story(self) -> str:
        """Returns what happened, and what to try next."""
        status = self.ticket["status"]
        spec = self.ticket["spec"]
        return _STORY.format(
            ticket=self.kubectl("get", "flightticket", _NAME, "-n", "default").rstrip(),
            clusters=self.etcd.table(),
            csvs=" and ".join(self.installed),
            seconds=self.install_seconds,
            image=self.published.operator,
            booking=status["bookingID"],
            seats=status["bookedSeats"],
            route=f"{spec['from']} to {spec['to']}",
            price=f", {status['price']}" if status.get("price") else "",
            etcd=self.etcd,
            environment=self._environment(),
            ticket_file=_TICKET.relative_to(CHECKOUT),
        )

    def _environment(self) -> str:
        """Returns the shell command that selects the demo's cluster for the commands below it."""
        if self.target.local:
            return "export KUBECONFIG=$(./inv cluster.kubeconfig) PATH=$(./inv tools.path):$PATH"
        program = self.kubectl.program.name
        alias = "" if program == "kubectl" else f"; alias kubectl={program}"
        return f"export KUBECONFIG={shlex.quote(str(self.target.kubeconfig))}{alias}"


_STORY = """
{ticket}

{clusters}

What happened
  OLM        installed {csvs}
             in {seconds:.0f} s: CRDs, RBAC and Deployments
  operators  {image}
             Python processes that watch FlightTickets and EtcdClusters in every namespace
  airline    holds booking {booking}: {route}, {seats} seats{price}
  etcd       {etcd.created}
             member {etcd.lost} and its volume were deleted
             {etcd.replacement} replaced it after {etcd.heal_seconds:.0f} s, and every member has the key

Try next
  {environment}
  kubectl get -n default flighttickets --watch &
  kubectl patch -n default ft my-flight-ticket --type=merge -p '{{"spec":{{"number":4}}}}'
      the booking changes
  kubectl -n airline scale deploy/booking-api --replicas=0
  kubectl patch -n default ft my-flight-ticket --type=merge -p '{{"spec":{{"to":"Paris"}}}}'
      the airline is down: the ticket waits and shows the reason (kubectl describe -n default ft)
  kubectl -n airline scale deploy/booking-api --replicas=1
      the airline is back: the booking changes
  kubectl delete -n default -f {ticket_file}
      the booking is cancelled, then the ticket is deleted
  kubectl get -n default etcd --watch &
  kubectl scale -n default etcdcluster/{etcd.name} --replicas=5
      two members join, one at a time
  kubectl patch -n default etcd {etcd.name} --type=merge -p '{{"spec":{{"version":"3.6.14"}}}}'
      the operator upgrades one member at a time, by way of the last 3.5 release
  kubectl describe -n default etcd {etcd.name}
      conditions and Events of the cluster
  kubectl -n pilothouse get subscription,csv,pods
  kubectl -n pilothouse logs deploy/pilothouse-etcd
      what OLM manages, and what the operator did
"""


def run() -> None:
    """Runs the demo on the cluster of KUBECONFIG. Without one it starts the local cluster."""
    print(Demo(targets.ensure()).run())
