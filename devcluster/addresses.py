"""Where a cluster lives on this machine: a /24 network of its own, and names for its interfaces and cgroups.

All follow from the cluster's id, hence from the checkout's path, so that two checkouts run two clusters side
by side. Inside, all have the same pod and service networks: those never leave the cluster's own namespaces.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from devcluster import folders
from devcluster.shell import ClusterError, run

POD_NETWORK = IPv4Network("10.244.0.0/16")
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
DNS_ADDRESS = SERVICE_NETWORK[10]
API_PORT = 6443
REGISTRY_PORT = 5000
#: Clusters take a /24 of this range (10.128.0.0 to 10.191.255.255), clear of the two above.
_RANGE = IPv4Network("10.128.0.0/10")
_CHOICES = 1 << (24 - _RANGE.prefixlen)
_VARIABLE = "PILOTHOUSE_SUBNET"


@dataclass(frozen=True)
class Addresses:
    """The names and addresses of one cluster."""

    cluster: str
    subnet: IPv4Network

    @property
    def bridge(self) -> str:
        """The host's interface to all nodes; interface names end at 15 characters."""
        return f"ph{self.cluster}"

    @property
    def host(self) -> IPv4Address:
        """The host's own address on the bridge."""
        return self.subnet[1]

    @property
    def cgroup(self) -> str:
        """The cgroup, below the root of every hierarchy, that holds all of the cluster's processes."""
        return f"pilothouse-{self.cluster}"

    def node(self, index: int) -> IPv4Address:
        """The address of a node; node 0 also holds the control plane and the registry."""
        return self.subnet[10 + index]

    def link(self, index: int) -> str:
        """The host's end of a node's cable, plugged into the bridge."""
        return f"ph{self.cluster}n{index}"

    @property
    def api(self) -> str:
        """Where the API server listens, host:port."""
        return f"{self.node(0)}:{API_PORT}"

    @property
    def registry(self) -> str:
        """Where the registry listens, host:port."""
        return f"{self.node(0)}:{REGISTRY_PORT}"


def load_or_choose(cluster: str, state: Path) -> Addresses:
    """The addresses that a cluster was given before; else free ones, which it keeps from now on.

    Args:
        cluster: the cluster's id.
        state: its state folder.

    Raises:
        ClusterError: no network is free.
    """
    record = state / "subnet"
    if record.exists():
        return Addresses(cluster, IPv4Network(record.read_text().strip()))
    taken = [network for name, network in _networks_in_use() if not name.startswith(f"ph{cluster}")]
    taken += [IPv4Network(other.read_text().strip()) for other in folders.clusters().glob("*/subnet")]
    addresses = Addresses(cluster, choose(cluster, taken, os.environ.get(_VARIABLE, "")))
    state.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{addresses.subnet}\n")
    return addresses


def check_free(addresses: Addresses) -> None:
    """Checks that nothing else on this host uses a cluster's network now: what is down has not kept it free.

    Raises:
        ClusterError: something does.
    """
    for name, network in _networks_in_use():
        if network.overlaps(addresses.subnet) and not name.startswith(addresses.bridge):
            raise ClusterError(
                f"the network {addresses.subnet} of this cluster is now also on {name}: free it, "
                f"or './inv cluster.reset' makes a new cluster on another network"
            )


def choose(cluster: str, taken: Iterable[IPv4Network], wish: str = "") -> IPv4Network:
    """A /24 network that overlaps none of `taken`: the one that the id points to, or the next free one.

    Args:
        cluster: the cluster's id, hexadecimal.
        taken: networks that must be left alone.
        wish: a network in CIDR notation to use instead; it must be a free /24.
    """
    taken = list(taken)
    if wish:
        return _granted(wish, taken)
    start = int(cluster, 16)
    for step in range(_CHOICES):
        offset = (start + step) % _CHOICES
        candidate = IPv4Network((int(_RANGE.network_address) + (offset << 8), 24))
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise ClusterError(f"no network in {_RANGE} is free here: name a free one, {_VARIABLE}=192.168.77.0/24")


def _granted(wish: str, taken: list[IPv4Network]) -> IPv4Network:
    try:
        network = IPv4Network(wish)
    except ValueError as error:
        raise ClusterError(
            f"{_VARIABLE}={wish} is not a network such as 192.168.77.0/24 ({error})"
        ) from error
    clash = next((other for other in [*taken, POD_NETWORK, SERVICE_NETWORK] if network.overlaps(other)), None)
    if network.prefixlen != 24 or clash:
        why = f"overlaps {clash}" if clash else "is not a /24"
        raise ClusterError(f"{_VARIABLE}={wish} {why}: name a free /24 network, such as 192.168.77.0/24")
    return network


def _networks_in_use() -> list[tuple[str, IPv4Network]]:
    """(interface, network) of every address and route of this host, but for default routes."""
    found: list[tuple[str, IPv4Network]] = []
    links: list[dict[str, Any]] = json.loads(run(["ip", "-j", "-4", "address"], timeout=10))
    for link in links:
        for address in link.get("addr_info", []):
            text = f"{address['local']}/{address['prefixlen']}"
            found.append((link["ifname"], IPv4Network(text, strict=False)))
    routes: list[dict[str, Any]] = json.loads(run(["ip", "-j", "-4", "route"], timeout=10))
    found += [
        (route.get("dev", "?"), IPv4Network(route["dst"]))
        for route in routes
        if route.get("dst", "default") != "default"
    ]
    return found
