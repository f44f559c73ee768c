"""The quiet node: kube-apiserver and etcd alone, put back to the same state before each measurement."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from devcluster.folders import CHECKOUT
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.kube import Client
from pilothouse.testing import ApiServer

NAMESPACE = "bench"
ACCOUNT = "pilothouse-flights"
RBAC = CHECKOUT / "config"
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
            "users": [f"system:serviceaccount:{ACCOUNT}:{ACCOUNT}"],
        },
        {"level": "None"},
    ],
}
_FAILED = re.compile(
    r'^apiserver_request_total\{(?=[^}]*group="flights\.com")[^}]*code="([45]\d\d)"[^}]*\} (\S+)'
)


class QuietNode(ApiServer):
    """An API server with the kind, and the shipped service account with the shipped permissions.

    `save` and `restore` keep and bring back everything that it stores; a restored server has just started,
    so that each contestant meets the same one.
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

    def save(self, name: str) -> None:
        """Keeps what is stored under a name. The server is down afterwards: `restore` starts it."""
        for process in ("kube-apiserver", "etcd"):
            self.stop(process)
        shutil.copytree(self._folder / "etcd", self._saves / name)

    def restore(self, name: str) -> None:
        """Starts the server anew with what was saved under a name."""
        for process in ("kube-apiserver", "etcd"):
            self.stop(process)
        shutil.rmtree(self._folder / "etcd")
        shutil.copytree(self._saves / name, self._folder / "etcd")
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

    def failed_requests(self) -> Counter[str]:
        """How many requests for tickets the server has refused since it started, by status code."""
        failed: Counter[str] = Counter()
        for line in self._get("/metrics").splitlines():
            if found := _FAILED.match(line):
                failed[found[1]] += int(float(found[2]))
        return failed

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


async def install(client: Client) -> str:
    """Brings the kind and the service account to a new server; returns the account's token."""
    await client.request(
        "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=crd(FLIGHT_TICKET)
    )
    for namespace in (NAMESPACE, ACCOUNT):
        await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    accounts = f"/api/v1/namespaces/{ACCOUNT}/serviceaccounts"
    await client.request("POST", accounts, body={"metadata": {"name": ACCOUNT}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    subjects = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": ACCOUNT}]
    group = "rbac.authorization.k8s.io"
    cluster_role = _manifest("flights/rbac/role.yaml")
    await client.request("POST", f"{rbac}/clusterroles", body=cluster_role)
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": cluster_role["metadata"]["name"]}
    binding = {"metadata": {"name": ACCOUNT}, "roleRef": reference, "subjects": subjects}
    await client.request("POST", f"{rbac}/clusterrolebindings", body=binding)
    role = _manifest("base/rbac/leader_election_role.yaml")
    own = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "patch", "update"]}
    role["rules"].append({**own, "resourceNames": [ACCOUNT]})
    await client.request("POST", f"{rbac}/namespaces/{ACCOUNT}/roles", body=role)
    reference = {"apiGroup": group, "kind": "Role", "name": role["metadata"]["name"]}
    binding = {"metadata": {"name": ACCOUNT}, "roleRef": reference, "subjects": subjects}
    await client.request("POST", f"{rbac}/namespaces/{ACCOUNT}/rolebindings", body=binding)
    answer = await client.request(
        "POST", f"{accounts}/{ACCOUNT}/token", body={"spec": {"expirationSeconds": 86400}}
    )
    return str(json.loads(answer)["status"]["token"])


def _manifest(path: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((RBAC / path).read_text())
    return manifest
