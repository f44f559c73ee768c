"""`inv bench.flights`: the figures of the flights operator, as OLM installed it on the local node.

Everything runs on the same machine: node, OLM, airline, operator and this client. Absolute figures belong
to it.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from datetime import UTC, datetime
from typing import Any

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl, wait_until
from flights_operator.types import Phase
from pilothouse.kube import Client
from release import airline, install, packages, publish
from release.packages import find
from tests.bench.process import Memory, Process, seconds_to_ready
from tests.cluster.airline import ClusterAirline
from tests.cluster.flights import operator_pods
from tests.cluster.load import (
    RESOURCE,
    Writes,
    create_ticket,
    create_tickets,
    delete_tickets,
    open_client,
    wait_booked,
)

RESULTS = CHECKOUT / "build" / "bench" / "flights.json"
NAMESPACE = "pilothouse-bench"
TICKETS = 1000
ONE_BY_ONE = 50
#: What the airline takes to answer while tickets are created one by one, seconds.
LATENCY = 0.010
#: For how long the idle operator's CPU is counted, seconds.
IDLE = 60.0


class Bench:
    """One run; `figures` holds what it found, by the figure's name."""

    def __init__(self) -> None:
        self.kubectl: Kubectl = targets.ensure().kubectl
        self.kubeconfig = self.kubectl.kubeconfig
        self.package = find("pilothouse-flights")
        self.figures: dict[str, float] = {}

    def run(self) -> dict[str, float]:
        """Measures everything, with a line as each part begins."""
        self.install()
        self.start_up()
        self.idle("idle")
        asyncio.run(self.one_by_one())
        asyncio.run(self.all_at_once())
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        dated = {"date": datetime.now(UTC).date().isoformat(), **self.figures}
        RESULTS.write_text(json.dumps(dated, indent=2) + "\n")
        return self.figures

    def install(self) -> None:
        """Installs anew, from the Subscription to Succeeded."""
        _say("installing")
        airline.deploy(self.kubectl, airline.image())
        published = publish.publish()
        install.unsubscribe(self.kubectl, self.package)
        install.subscribe(self.kubectl, self.package, published.catalog, published.operator)
        began = time.monotonic()
        install.wait_succeeded(self.kubectl, self.package)
        self.figures["subscription_to_succeeded_seconds"] = time.monotonic() - began

    def start_up(self) -> None:
        """Deletes the pod, and waits for the next one's process to be ready."""
        _say("starting a new pod")
        old = Process(self._pod()["metadata"]["uid"], self.package.module).pid
        words = ("pod", "-n", packages.NAMESPACE, "-l", self.package.selector)
        self.kubectl("delete", *words, "--wait=false")
        self.figures["process_start_to_ready_seconds"] = seconds_to_ready(old, self.package.module)
        self.kubectl("rollout", "status", f"deployment/{self.package.name}", "-n", packages.NAMESPACE)
        wait_until(
            lambda: len(operator_pods(self.kubectl, self.package)) == 1,
            60,
            lambda: f"the old pod does not go\n{install.explain(self.kubectl, self.package)}\n",
        )

    def idle(self, name: str) -> None:
        """Memory and CPU while nothing happens."""
        _say(f"{name}: counting for {IDLE:.0f} s")
        process = Process(self._pod()["metadata"]["uid"], self.package.module)
        before = process.cpu_seconds()
        began = time.monotonic()
        time.sleep(IDLE)
        used = process.cpu_seconds() - before
        self.figures[f"{name}_cpu_millicores"] = used / (time.monotonic() - began) * 1000
        self._record_memory(name, process.memory())

    async def one_by_one(self) -> None:
        """The time from a ticket's creation to its status Booked being seen, one ticket after the other."""
        _say(f"{ONE_BY_ONE} tickets, one by one")
        self._namespace()
        service = ClusterAirline(self.kubectl)
        service.request("PUT", "/faults", {"latency": {"seconds": LATENCY}})
        try:
            async with await open_client(self.kubeconfig) as client:
                seconds = [await self._booked(client, f"one-{number}") for number in range(ONE_BY_ONE)]
        finally:
            service.release()
            service.close()
        self.figures["created_to_booked_median_ms"] = statistics.median(seconds) * 1000
        self.figures["created_to_booked_p95_ms"] = statistics.quantiles(seconds, n=20)[-1] * 1000

    async def all_at_once(self) -> None:
        """1,000 tickets at once: time, bookings, writes, memory, restarts."""
        _say(f"{TICKETS} tickets at once")
        self._namespace()
        process = Process(self._pod()["metadata"]["uid"], self.package.module)
        cpu = process.cpu_seconds()
        service = ClusterAirline(self.kubectl)
        before = service.request("GET", "/statistics")
        async with await open_client(self.kubeconfig) as client, Writes(client, NAMESPACE) as writes:
            began = time.monotonic()
            await create_tickets(client, NAMESPACE, TICKETS)
            self.figures["many_created_seconds"] = time.monotonic() - began
            await wait_booked(client, NAMESPACE, TICKETS + ONE_BY_ONE)
            self.figures["many_booked_seconds"] = time.monotonic() - began
            await writes.settle()
        after = service.request("GET", "/statistics")
        service.close()
        self.figures["many_writes_per_ticket"] = sum(writes.of.values()) / TICKETS
        self.figures["many_cpu_seconds"] = process.cpu_seconds() - cpu
        self.figures["many_new_bookings"] = float(after["bookings"] - before["bookings"])
        self.idle("many")
        status = self._pod()["status"]["containerStatuses"][0]
        self.figures["many_restarts"] = float(status["restartCount"])
        async with await open_client(self.kubeconfig) as client:
            began = time.monotonic()
            await delete_tickets(client, NAMESPACE)
            self.figures["many_deleted_seconds"] = time.monotonic() - began
        self.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s", timeout=130)

    async def _booked(self, client: Client, name: str) -> float:
        seen = await create_ticket(client, NAMESPACE, name)
        began = time.perf_counter()
        watch = client.watch(
            RESOURCE,
            resource_version=seen.metadata.resource_version,
            namespace=NAMESPACE,
            field_selector=f"metadata.name={name}",
        )
        async with asyncio.timeout(60):
            async for event in watch:
                if event.object and event.object.status.phase is Phase.BOOKED:
                    return time.perf_counter() - began
        raise RuntimeError(f"the watch of {name} ended")

    def _namespace(self) -> None:
        if not self.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found"):
            self.kubectl("create", "namespace", NAMESPACE)

    def _record_memory(self, name: str, memory: Memory) -> None:
        self.figures[f"{name}_resident_mib"] = memory.resident
        self.figures[f"{name}_peak_mib"] = memory.peak
        self.figures[f"{name}_working_set_mib"] = memory.working_set

    def _pod(self) -> dict[str, Any]:
        pods = operator_pods(self.kubectl, self.package)
        return next(pod for pod in pods if "deletionTimestamp" not in pod["metadata"])


def _say(line: str) -> None:
    print(f"bench: {line}", flush=True)


def table(figures: dict[str, float]) -> str:
    """The figures, a line each."""
    return "\n".join(f"{name:36} {value:10.1f}" for name, value in figures.items())
