"""What the bench wants of a cluster, and what it brings to one."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import yaml

from devcluster.folders import CHECKOUT
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.kube import Client, ClientConfig

#: Of the tickets.
NAMESPACE = "bench"
#: The service account that every contestant is, and its namespace.
ACCOUNT, HOME = "pilothouse-flights", "bench-operator"
#: What `install` calls what belongs to no namespace.
CLUSTER_WIDE = "pilothouse-bench"
RBAC = CHECKOUT / "config"
_FAILED = re.compile(
    r'^apiserver_request_total\{(?=[^}]*group="flights\.com")[^}]*code="([45]\d\d)"[^}]*\} (\S+)'
)


class Node(Protocol):
    """A cluster with the kind, and the shipped service account with the shipped permissions."""

    @property
    def url(self) -> str:
        """The API server's URL."""

    @property
    def ca_file(self) -> Path:
        """What verifies the API server."""

    def config(self) -> ClientConfig:
        """An administrator's configuration."""

    async def fill(self, tickets: int) -> None:
        """Comes to the state with so many tickets that nobody has booked, and no others."""

    def failed_requests(self) -> int:
        """How many requests for tickets the server has refused since it started."""

    def watches_since(self, moment: float) -> list[float] | None:
        """When watches of tickets opened after a moment, seconds since the epoch; None: it cannot tell."""


def failed(metrics: str) -> Counter[str]:
    """How many requests for tickets a server has refused, by status code, from what /metrics says."""
    counts: Counter[str] = Counter()
    for line in metrics.splitlines():
        if found := _FAILED.match(line):
            counts[found[1]] += int(float(found[2]))
    return counts


async def install(client: Client) -> str:
    """Brings the kind and the service account to a cluster that has neither; returns the account's token."""
    await client.request(
        "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body=crd(FLIGHT_TICKET)
    )
    for namespace in (NAMESPACE, HOME):
        await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": namespace}})
    accounts = f"/api/v1/namespaces/{HOME}/serviceaccounts"
    await client.request("POST", accounts, body={"metadata": {"name": ACCOUNT}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    cluster_role = _manifest("flights/rbac/role.yaml")
    cluster_role["metadata"]["name"] = CLUSTER_WIDE
    await client.request("POST", f"{rbac}/clusterroles", body=cluster_role)
    await client.request("POST", f"{rbac}/clusterrolebindings", body=_binding(cluster_role))
    role = _manifest("base/rbac/leader_election_role.yaml")
    own = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "patch", "update"]}
    role["rules"].append({**own, "resourceNames": [ACCOUNT]})
    await client.request("POST", f"{rbac}/namespaces/{HOME}/roles", body=role)
    await client.request("POST", f"{rbac}/namespaces/{HOME}/rolebindings", body=_binding(role))
    answer = await client.request(
        "POST", f"{accounts}/{ACCOUNT}/token", body={"spec": {"expirationSeconds": 86400}}
    )
    return str(json.loads(answer)["status"]["token"])


def _binding(role: dict[str, Any]) -> dict[str, Any]:
    """Gives a role to the account; it has the role's name."""
    name = role["metadata"]["name"]
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": HOME}],
    }


def _manifest(path: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((RBAC / path).read_text())
    return manifest
