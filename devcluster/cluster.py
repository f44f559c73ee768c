"""The local cluster of this checkout: up, down, reset, status and logs."""

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
#: Namespace -> Deployments that have to be ready before the cluster counts as up.
DEPLOYMENTS = {
    "kube-system": ("coredns",),
    "local-path-storage": ("local-path-provisioner",),
    "olm": olm.DEPLOYMENTS,
}


@dataclass(frozen=True)
class Cluster:
    """A local cluster with its addresses and its state folder."""

    addresses: Addresses
    state: Path

    @staticmethod
    def of_checkout() -> Cluster:
        """Returns the cluster of this checkout, whether or not it exists yet."""
        identity = folders.cluster_id()
        state = folders.clusters() / identity
        return Cluster(addresses.load_or_choose(identity, state), state)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes. Node 0 runs the control plane."""
        return (Node(self.addresses, 0, self.state),)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig file."""
        return self.nodes[0].admin

    @property
    def kubectl(self) -> Kubectl:
        """The `Kubectl` with the administrator's kubeconfig."""
        return Kubectl(toolchain.binary("kubectl"), self.kubeconfig)

    @property
    def registry(self) -> Registry:
        """The registry that the nodes pull all images from."""
        return Registry(self.addresses.registry)

    def running(self) -> bool:
        """Returns whether the supervisors of all nodes are running."""
        return all(namespaces.running(node) for node in self.nodes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds a lock, so that only one command at a time starts or stops the cluster."""
        lock = folders.clusters() / f"{self.addresses.cluster}.lock"
        with folders.locked(lock, "starting or stopping this cluster"):
            yield


def up() -> Cluster:
    """Starts the cluster of this checkout and returns it. If it is up and unchanged, nothing happens.

    Raises:
        ClusterError: Something is missing or a step failed. Another call continues where this one stopped.
    """
    checks.check_user()
    cluster = Cluster.of_checkout()
    with cluster.locked():
        if _is_current(cluster):
            say(f"The cluster is up (kubeconfig: {cluster.kubeconfig})")
            return cluster
        addresses.check_free(cluster.addresses)
        checks.check_resources()
        checks.check_kernel()
        began = time.monotonic()
        run_steps(_steps(cluster))
        say(f"The cluster is up after {time.monotonic() - began:.0f} s (kubeconfig: {cluster.kubeconfig})")
    return cluster


def down() -> None:
    """Stops the cluster, removes its processes, mounts, interfaces and cgroups, and keeps its data."""
    checks.check_user()
    if not was_made():
        say("This checkout has no cluster. Nothing to do.")
        return
    cluster = Cluster.of_checkout()
    with cluster.locked():
        _stop(cluster)
    say(
        f"The cluster is down. Its data is kept in {cluster.state} "
        f"('./inv cluster.reset' deletes it and starts a new cluster)."
    )


def reset() -> Cluster:
    """Deletes the cluster of this checkout with all its data, and starts a new one."""
    checks.check_user()
    cluster = Cluster.of_checkout()
    with cluster.locked():
        _stop(cluster)
        namespaces.remove_state(cluster.state)
    return up()


def existing() -> Cluster:
    """Returns the cluster of this checkout, which must be up.

    Raises:
        ClusterError: The cluster is not up.
    """
    if was_made():
        cluster = Cluster.of_checkout()
        if cluster.running():
            return cluster
    raise ClusterError("The local cluster of this checkout is not up. Start it: './inv cluster.up'.")


def was_made() -> bool:
    """Returns whether this checkout has a cluster, up or down."""
    return (folders.clusters() / folders.cluster_id()).exists()


def logs() -> list[Path]:
    """Returns the log files of the cluster's components, including the supervisor."""
    return sorted((folders.clusters() / folders.cluster_id()).glob("node-*/log/*.log"))


def describe() -> list[str]:
    """Returns the lines that `inv cluster.status` prints."""
    if not was_made():
        return ["This checkout has no cluster. Start one: './inv cluster.up'."]
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
                f"The API server does not respond (see './inv cluster.logs kube-apiserver'): {error}"
            )
    return lines


def _is_current(cluster: Cluster) -> bool:
    """Returns whether the cluster is up and ready with the configuration of this checkout."""
    if toolchain.missing(toolchain.CLUSTER_TOOLS) or not cluster.running():
        return False
    configured = all(Spec.load(node.folder / "spec.json") == node.configure() for node in cluster.nodes)
    return configured and _applied(cluster) and cluster.kubectl.ready()


def _steps(cluster: Cluster) -> list[Step]:
    steps = [Step("installing Debian packages", packages.install)] if packages.unfinished() else []
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
    """Starts the nodes, unless they are running with the configuration of this checkout."""
    specs = [(node, node.configure()) for node in cluster.nodes]
    if cluster.running() and all(Spec.load(node.folder / "spec.json") == spec for node, spec in specs):
        return
    _stop(cluster)  # Also removes what a killed run left behind.
    for node, spec in specs:
        namespaces.start(node, spec)
    wait_until(
        cluster.registry.answers, 30, lambda: f"The registry {cluster.registry.address} does not respond."
    )


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
    """Returns a hash of the images and manifests that the cluster should have."""
    digest = hashlib.sha256(base_images.fingerprint(base_images.CLUSTER_IMAGES).encode())
    for file in sorted(_MANIFESTS.rglob("*.yaml")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _wait(cluster: Cluster) -> None:
    started = (cluster.nodes[0].folder / "pid").stat().st_mtime
    for namespace, names in DEPLOYMENTS.items():
        cluster.kubectl.wait_deployments(namespace, names, since=started)
