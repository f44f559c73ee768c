"""The local cluster of this checkout: up, down, reset, and what is to be known about it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from devcluster import addresses, base_images, checks, folders, namespaces, olm, packages, toolchain
from devcluster.addresses import Addresses
from devcluster.kubectl import Kubectl, wait_until
from devcluster.node import Node
from devcluster.oci import Registry
from devcluster.progress import Step, run_steps, say
from devcluster.shell import ClusterError
from devcluster.supervisor import Spec, read_status

_MANIFESTS = folders.CHECKOUT / "devcluster" / "manifests"
#: Namespace -> deployments without which the cluster is of no use.
DEPLOYMENTS = {
    "kube-system": ("coredns",),
    "local-path-storage": ("local-path-provisioner",),
    "olm": olm.DEPLOYMENTS,
}


@dataclass(frozen=True)
class Cluster:
    """One local cluster, by its addresses and its state folder."""

    addresses: Addresses
    state: Path

    @staticmethod
    def of_checkout() -> Cluster:
        """The cluster of this checkout, whether it exists yet or not."""
        identity = folders.cluster_id()
        state = folders.clusters() / identity
        return Cluster(addresses.load_or_choose(identity, state), state)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes; node 0 holds the control plane."""
        return (Node(self.addresses, 0, self.state),)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.nodes[0].admin

    @property
    def kubectl(self) -> Kubectl:
        """Acts as the administrator."""
        return Kubectl(toolchain.binary("kubectl"), self.kubeconfig)

    @property
    def registry(self) -> Registry:
        """The registry that the nodes pull every image from."""
        return Registry(self.addresses.registry)

    def running(self) -> bool:
        """Whether all nodes' supervisors run."""
        return all(namespaces.running(node) for node in self.nodes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One command at a time brings the cluster up or down."""
        lock = folders.clusters() / f"{self.addresses.cluster}.lock"
        with folders.locked(lock, "bringing this cluster up or down"):
            yield


def up() -> Cluster:
    """Brings the cluster of this checkout up and returns it; does nothing when it is up and unchanged.

    Raises:
        ClusterError: something is missing or went wrong; running it again goes on where it stopped.
    """
    checks.check_user()
    cluster = Cluster.of_checkout()
    with cluster.locked():
        if _is_current(cluster):
            say(f"the cluster is up (kubeconfig: {cluster.kubeconfig})")
            return cluster
        addresses.check_free(cluster.addresses)
        checks.check_resources()
        checks.check_kernel()
        began = time.monotonic()
        run_steps(_steps(cluster))
        say(f"the cluster is up after {time.monotonic() - began:.0f} s (kubeconfig: {cluster.kubeconfig})")
    return cluster


def down() -> None:
    """Stops the cluster and removes every process, mount, interface and cgroup of it; its data stays."""
    checks.check_user()
    if not was_made():
        say("this checkout has no cluster: nothing to do")
        return
    cluster = Cluster.of_checkout()
    with cluster.locked():
        _stop(cluster)
    say(f"the cluster is down; its data is kept in {cluster.state} ('inv cluster.reset' makes a new one)")


def reset() -> Cluster:
    """Deletes the cluster of this checkout with all its data, and brings up a new one."""
    checks.check_user()
    cluster = Cluster.of_checkout()
    with cluster.locked():
        _stop(cluster)
        namespaces.remove_state(cluster.state)
    return up()


def existing() -> Cluster:
    """The cluster of this checkout, which must be up.

    Raises:
        ClusterError: it is not.
    """
    if was_made():
        cluster = Cluster.of_checkout()
        if cluster.running():
            return cluster
    raise ClusterError("the local cluster of this checkout is not up: './inv cluster.up' brings it up")


def was_made() -> bool:
    """Whether this checkout has a cluster, up or down."""
    return (folders.clusters() / folders.cluster_id()).exists()


def logs() -> list[Path]:
    """The log files of the cluster's components, the supervisor's among them."""
    return sorted((folders.clusters() / folders.cluster_id()).glob("node-*/log/*.log"))


def describe() -> list[str]:
    """What `inv cluster.status` prints."""
    if not was_made():
        return ["this checkout has no cluster: './inv cluster.up' makes one"]
    cluster = Cluster.of_checkout()
    lines = [
        f"cluster     {cluster.addresses.cluster} ({'up' if cluster.running() else 'down'})",
        f"kubeconfig  {cluster.kubeconfig}",
        f"API server  https://{cluster.addresses.api}",
        f"registry    http://{cluster.addresses.registry}",
        f"data, logs  {cluster.state}",
    ]
    for node in cluster.nodes:
        if namespaces.running(node):
            for name, state in read_status(node.folder / "status.json").items():
                condition = (
                    "running" if state["running"] else f"not running, {state['last_exit'] or 'not started'}"
                )
                lines.append(f"{node.name:11} {name:24} {condition}, {state['restarts']} restarts")
    if cluster.running():
        try:
            lines.append(cluster.kubectl("get", "nodes,pods", "-A", "-o", "wide", timeout=20).rstrip())
        except ClusterError as error:
            lines.append(
                f"the API server does not answer ('./inv cluster.logs kube-apiserver' may say why): {error}"
            )
    return lines


def _is_current(cluster: Cluster) -> bool:
    """Whether the cluster is up as this checkout describes it, and serves."""
    if toolchain.missing(toolchain.CLUSTER_TOOLS) or not cluster.running():
        return False
    configured = all(Spec.load(node.folder / "spec.json") == node.configure() for node in cluster.nodes)
    return configured and _applied(cluster) and cluster.kubectl.ready()


def _steps(cluster: Cluster) -> list[Step]:
    steps = [Step("Debian packages", packages.install)] if packages.unfinished() else []
    steps += [
        Step(f"building {tool.name} {tool.version}", partial(toolchain.build, tool))
        for tool in toolchain.missing(toolchain.CLUSTER_TOOLS)
    ]
    return [
        *steps,
        Step("packing images", lambda: [base_images.get(name) for name in base_images.CLUSTER_IMAGES]),
        Step("starting the node", lambda: _start(cluster)),
        Step("pushing images", lambda: base_images.ensure(base_images.CLUSTER_IMAGES, cluster.registry)),
        Step("waiting for the API server", lambda: cluster.kubectl.wait_ready(timeout=120)),
        Step("applying DNS, storage and OLM", lambda: _apply(cluster)),
        Step("waiting for DNS, storage and OLM", lambda: _wait(cluster)),
    ]


def _start(cluster: Cluster) -> None:
    """Starts the nodes, unless they run as this checkout describes them."""
    specs = [(node, node.configure()) for node in cluster.nodes]
    if cluster.running() and all(Spec.load(node.folder / "spec.json") == spec for node, spec in specs):
        return
    _stop(cluster)  # also what a killed run left
    for node, spec in specs:
        namespaces.start(node, spec)
    wait_until(cluster.registry.answers, 30, lambda: f"{cluster.registry.address} does not answer")


def _stop(cluster: Cluster) -> None:
    for node in reversed(cluster.nodes):
        namespaces.stop(node)
    namespaces.sweep(cluster.addresses, cluster.state)


def _apply(cluster: Cluster) -> None:
    if _applied(cluster):
        return
    for name in ("coredns.yaml", "storage.yaml"):
        cluster.kubectl.apply((_MANIFESTS / name).read_text())
    olm.apply(cluster.kubectl)
    (cluster.state / "applied").write_text(_wanted())


def _applied(cluster: Cluster) -> bool:
    record = cluster.state / "applied"
    return record.exists() and record.read_text() == _wanted()


def _wanted() -> str:
    """A hash of what is pushed and applied to the cluster."""
    digest = hashlib.sha256(base_images.fingerprint(base_images.CLUSTER_IMAGES).encode())
    for file in sorted(_MANIFESTS.rglob("*.yaml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _wait(cluster: Cluster) -> None:
    started = (cluster.nodes[0].folder / "pid").stat().st_mtime
    for namespace, names in DEPLOYMENTS.items():
        cluster.kubectl.wait_deployments(namespace, names, since=started)
