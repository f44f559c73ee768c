"""The busy node: the local node, kubelet, OLM and all pods beside the contestants on the same cores.

A contestant is a process of the host all the same: its cost is counted as on the quiet node.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from devcluster import target as targets
from devcluster.kubectl import Kubectl
from devcluster.shell import ClusterError
from pilothouse.kube import Client, ClientConfig, TlsFiles
from release.packages import find
from tests.bench import load
from tests.bench.airline import running_airline
from tests.bench.contestants import BUILD, Place
from tests.bench.measure import Bench
from tests.bench.node import CLUSTER_WIDE, HOME, NAMESPACE, failed, install
from tests.cluster.flights import DEMO_TICKET, uninstall

CRD = "crd/flighttickets.flights.com"
#: Seconds for a namespace with 10,000 tickets and their Events to go.
GONE = 600


class BusyNode:
    """The local node. Nothing can be put back there: the tickets are deleted, and made anew."""

    def __init__(self, target: targets.Target) -> None:
        self._kubectl: Kubectl = target.kubectl
        self._config = ClientConfig.from_kubeconfig(str(target.kubeconfig))
        tls = self._config.tls
        assert isinstance(tls, TlsFiles)
        assert tls.ca_data is not None, "the local node's kubeconfig has its CA as data"
        self.url, self.ca_file = self._config.server, target.kubeconfig.with_name("ca.crt")
        self.ca_file.write_text(tls.ca_data)

    def config(self) -> ClientConfig:
        """An administrator's configuration."""
        return self._config

    async def fill(self, tickets: int) -> None:
        """Comes to the state with so many tickets that nobody has booked, and no others."""
        async with self._client() as client:
            await self._release(client)
            self._delete("namespace", NAMESPACE)
            self._kubectl("create", "namespace", NAMESPACE)
            await load.create(client, tickets)

    def failed_requests(self) -> int:
        """How many requests for tickets the server has refused since it started."""
        return failed(self._kubectl("get", "--raw=/metrics")).total()

    def watches_since(self, _: float) -> None:
        """It keeps no audit log: it cannot tell."""

    async def prepare(self) -> str:
        """Takes the installed operator away, brings kind and service account; returns the account's token."""
        await self.vacate()
        async with self._client() as client:
            token = await install(client)
        self._kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
        return token

    async def vacate(self) -> None:
        """Takes away what a run has left, and the installed operator with the demo's ticket.

        Raises:
            ClusterError: There are somebody's tickets.
        """
        if self._kubectl("get", CRD, "--ignore-not-found"):
            async with self._client() as client:
                await self._release(client)
        self._delete("namespace", NAMESPACE, HOME)
        self._delete("clusterrole,clusterrolebinding", CLUSTER_WIDE)
        uninstall(self._kubectl, find("pilothouse-flights"), {DEMO_TICKET})

    async def _release(self, client: Client) -> None:
        """Takes the finalizers off all tickets: the contestant that set them is gone."""
        held = [
            ticket.metadata.key
            async for page in client.pages(load.TICKET, namespace=NAMESPACE)
            for ticket in page.items
            if ticket.metadata.finalizers
        ]
        await load.release(client, held)

    def _delete(self, *words: str) -> None:
        patience = f"--timeout={GONE}s"
        self._kubectl("delete", *words, "--ignore-not-found", patience, timeout=GONE + 10)

    def _client(self) -> Client:
        return Client(self._config, user_agent="pilothouse-bench", connections=load.IN_FLIGHT)


@asynccontextmanager
async def busy_bench(folder: Path = BUILD / "busy") -> AsyncIterator[Bench[BusyNode]]:
    """The local node with the kind, and the booking API; `folder` takes the files.

    The node is left without operator and kind: `inv demo` installs them again.

    Raises:
        ClusterError: KUBECONFIG names a cluster elsewhere, or there are somebody's tickets.
    """
    target = targets.ensure()
    if not target.local:
        raise ClusterError(
            "KUBECONFIG names a cluster that does not share this machine's cores: unset it, so that the busy "
            "node is the local one"
        )
    node = BusyNode(target)
    with running_airline() as airline:
        token = await node.prepare()
        try:
            yield Bench(node, Place(node.url, node.ca_file, token, airline, folder / "place"))
        finally:
            await node.vacate()
