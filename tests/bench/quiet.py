"""The quiet node: kube-apiserver and etcd alone, put back to the same state before each measurement."""

from __future__ import annotations

import json
import shutil
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from devcluster import toolchain
from flights_operator.types import FLIGHT_TICKET
from pilothouse.kube import Client
from pilothouse.testing import ApiServer
from tests.bench import load
from tests.bench.airline import running_airline
from tests.bench.contestants import BUILD, Place
from tests.bench.measure import Bench
from tests.bench.node import ACCOUNT, HOME, failed, install

#: Watches alone are logged, as they open: what "first watch open" is read from. Nothing else is slowed down.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseComplete"],
    "rules": [
        {
            "level": "Metadata",
            "verbs": ["watch"],
            "resources": [{"group": FLIGHT_TICKET.resource.group}],
            "users": [f"system:serviceaccount:{HOME}:{ACCOUNT}"],
        },
        {"level": "None"},
    ],
}


class QuietNode(ApiServer):
    """An API server with the kind, and the shipped service account with the shipped permissions.

    `save` keeps everything that it stores, and `fill` brings it back; the server has just started then, so
    that each contestant meets the same one.
    """

    def __init__(self, assets: Path, folder: Path) -> None:
        super().__init__(assets)
        self._saves = folder / "etcd"
        shutil.rmtree(self._saves, ignore_errors=True)
        self._audit = self._folder / "audit.log"
        (self._folder / "audit.json").write_text(json.dumps(AUDIT_POLICY))

    def _start(self, name: str, *arguments: str) -> None:
        if name == "kube-apiserver":
            arguments += (
                f"--audit-policy-file={self._folder / 'audit.json'}",
                f"--audit-log-path={self._audit}",
            )
        super()._start(name, *arguments)

    async def fill(self, tickets: int) -> None:
        """Comes to the state with so many tickets that nobody has booked; the first time it is made."""
        if not (self._saves / str(tickets)).exists():
            self._restore(0)
            async with Client(self.config(), user_agent="pilothouse-bench") as client:
                await load.create(client, tickets)
            self.save(tickets)
        self._restore(tickets)

    def save(self, tickets: int) -> None:
        """Keeps what is stored as the state with so many tickets. The server is down afterwards."""
        for process in ("kube-apiserver", "etcd"):
            self.stop(process)
        shutil.copytree(self._folder / "etcd", self._saves / str(tickets))

    def _restore(self, tickets: int) -> None:
        for process in ("kube-apiserver", "etcd"):
            self.stop(process)
        shutil.rmtree(self._folder / "etcd")
        shutil.copytree(self._saves / str(tickets), self._folder / "etcd")
        self.start_etcd()
        self.start_api_server()
        self.wait_ready()
        self._wait_cached()

    def _wait_cached(self) -> None:
        """Blocks until the server's cache holds the tickets: until then it sends everybody away (429)."""
        ends = time.monotonic() + 60
        while True:
            try:
                self._get("/apis/flights.com/v1/flighttickets?resourceVersion=0&limit=1")
                return
            except urllib.error.HTTPError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)

    def failed_requests(self) -> int:
        """How many requests for tickets the server has refused since it started."""
        return failed(self._get("/metrics")).total()

    def _get(self, path: str) -> str:
        request = urllib.request.Request(
            f"{self.url}{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return str(answer.read().decode())

    def watches_since(self, moment: float) -> list[float]:
        """When watches of tickets opened after a moment, seconds since the epoch."""
        if not self._audit.exists():
            return []
        events = [json.loads(line) for line in self._audit.read_text().splitlines()]
        opened = [datetime.fromisoformat(event["stageTimestamp"]).timestamp() for event in events]
        return [each for each in opened if each >= moment]


@asynccontextmanager
async def quiet_bench(folder: Path = BUILD) -> AsyncIterator[Bench[QuietNode]]:
    """A quiet node with the kind and the booking API; `folder` takes the files."""
    with (
        tempfile.TemporaryDirectory() as name,
        running_airline() as airline,
        QuietNode(_assets(Path(name)), folder) as node,
    ):
        async with Client(node.config(), user_agent="pilothouse-bench") as client:
            token = await install(client)
        node.save(0)
        yield Bench(node, Place(node.url, node.ca_file, token, airline, folder / "place"))


def _assets(folder: Path) -> Path:
    """The folder, with the programs of the server."""
    for name in ("etcd", "kube-apiserver"):
        (folder / name).symlink_to(toolchain.binary(name))
    return folder
