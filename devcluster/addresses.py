"""The addresses and names of a cluster on this machine: its /24 network, interfaces and cgroups.

They are derived from the cluster's id, which is derived from the path of the checkout, so that two checkouts
can run a cluster each. All clusters use the same pod and Service networks, which exist only in their
namespaces.
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
#: Each cluster uses a /24 of this range (10.128.0.0 to 10.191.255.255), which does not overlap the two above.
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
        """The host's bridge to all nodes. Interface names have at most 15 characters."""
        return f"ph{self.cluster}"

    @property
    def host(self) -> IPv4Address:
        """The host's own address on the bridge."""
        return self.subnet[1]

    @property
    def cgroup(self) -> str:
        """The cgroup below the root of every hierarchy that holds all processes of the cluster."""
        return f"pilothouse-{self.cluster}"

    def node(self, index: int) -> IPv4Address:
        """Returns the address of a node. Node 0 also runs the control plane and the registry."""
        return self.subnet[10 + index]

    def link(self, index: int) -> str:
        """Returns the name of the host's end of a node's veth pair, which is attached to the bridge."""
        return f"ph{self.cluster}n{index}"

    @property
    def api(self) -> str:
        """The host:port of the API server."""
        return f"{self.node(0)}:{API_PORT}"

    @property
    def registry(self) -> str:
        """The host:port of the registry."""
        return f"{self.node(0)}:{REGISTRY_PORT}"


def load_or_choose(cluster: str, state: Path) -> Addresses:
    """Returns the recorded addresses of a cluster, or chooses free ones and records them.

    Args:
        cluster: The id of the cluster.
        state: The state folder of the cluster.

    Raises:
        ClusterError: There is no free network.
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
    """Checks that nothing else on this host uses the cluster's network: it is free while the cluster is down.

    Raises:
        ClusterError: Another interface or route overlaps the network.
    """
    for name, network in _networks_in_use():
        if network.overlaps(addresses.subnet) and not name.startswith(addresses.bridge):
            raise ClusterError(
                f"The network {addresses.subnet} of this cluster is now also in use on {name}. Free it, or "
                f"run './inv cluster.reset' for a new cluster with another network."
            )


def choose(cluster: str, taken: Iterable[IPv4Network], wish: str = "") -> IPv4Network:
    """Returns a /24 network that does not overlap `taken`: the one derived from the id, or the next free one.

    Args:
        cluster: The id of the cluster, hexadecimal.
        taken: Networks that are in use.
        wish: A network in CIDR notation to use instead. It must be a free /24.

    Raises:
        ClusterError: There is no free network, or `wish` is not a free /24.
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
    raise ClusterError(
        f"There is no free /24 network in {_RANGE}. Set {_VARIABLE} to a free one, such as 192.168.77.0/24."
    )


def _granted(wish: str, taken: list[IPv4Network]) -> IPv4Network:
    try:
        network = IPv4Network(wish)
    except ValueError as error:
        raise ClusterError(
            f"{_VARIABLE}={wish} is not a network ({error}). Use a free /24, such as 192.168.77.0/24."
        ) from error
    clash = next((other for other in [*taken, POD_NETWORK, SERVICE_NETWORK] if network.overlaps(other)), None)
    if network.prefixlen != 24 or clash:
        why = f"overlaps {clash}" if clash else "is not a /24"
        raise ClusterError(f"{_VARIABLE}={wish} {why}. Use a free /24, such as 192.168.77.0/24.")
    return network


def _networks_in_use() -> list[tuple[str, IPv4Network]]:
    """Returns (interface, network) for every address and route of this host except default routes."""
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
