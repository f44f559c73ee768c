"""Pauses an operator's Deployment in the cluster while the same operator runs on this host."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from devcluster import folders
from devcluster.kubectl import Kubectl
from devcluster.progress import say
from devcluster.shell import ClusterError
from release.packages import Package

#: An annotation with the replicas of the Deployment before it was paused. If this process could not restore
#: them, the next one reads them there.
REPLICAS = "pilothouse.dev/replicas-before-take-over"
#: The namespace of the Lease if the operator is not installed.
NOWHERE = "default"
#: The timeout of requests, in seconds. The operator on this host logs that an API server does not answer.
_PATIENCE = 5


class StandIn:
    """Finds the namespace of the Lease, and keeps the Deployment in the cluster paused during a take-over.

    Args:
        kubectl: Runs kubectl against the cluster.
        package: The operator.
        take_over: Whether to keep its Deployment at 0 replicas.
    """

    def __init__(self, kubectl: Kubectl, package: Package, *, take_over: bool) -> None:
        self._kubectl = kubectl
        self._package = package
        self._take_over = take_over
        #: The Deployment at the last check; None if there was none.
        self._found: Mapping[str, Any] | None = None
        #: The replicas of the Deployment before it was paused; 0 if it has not been paused.
        self._replicas = 0

    @property
    def namespace(self) -> str:
        """The namespace of the Lease at the last check, which is that of the Deployment.

        Both processes use this Lease, so that only one of them reconciles.
        """
        return str(self._found["metadata"]["namespace"]) if self._found else NOWHERE

    @property
    def runs(self) -> bool:
        """Whether the Deployment has replicas, or would have without an interrupted take-over."""
        return self._found is not None and _runs(self._found)

    def check(self) -> str:
        """Pauses the Deployment if this is a take-over and it runs. Returns the namespace of the Lease.

        Call this repeatedly. OLM scales the Deployment up again on an upgrade. It also does so if it sees a
        change of the Deployment that the Deployment controller has not observed yet: it takes that for a
        broken installation and installs it again (`DeploymentStatus` in its
        pkg/controller/install/status_viewer.go).

        Raises:
            ClusterError: The cluster does not answer, or the operator is installed more than once.
        """
        self._found = self._find()
        if self._found is None:
            self._replicas = 0  # The next Deployment has its own number of replicas.
        elif self._take_over:
            self._pause(self._found)
        return self.namespace

    def restore(self) -> None:
        """Restores the number of replicas that the Deployment had.

        Raises:
            ClusterError: The Deployment could not be scaled. The text has the command for it.
        """
        if self._found is None or not self._replicas:
            return
        place, (name, *there) = _place(self._found), _arguments(self._found)
        try:
            if self._find() is None:
                say(f"{self._package.name} is no longer installed, so there is nothing to restore")
                return
            self._patch(self._found, self._replicas, None)
        except ClusterError as error:
            raise ClusterError(
                f"{place} is still at 0 replicas, because it could not be scaled ({error}). Restore it: "
                f"kubectl {' '.join(there)} scale {name} --replicas={self._replicas}"
            ) from None
        say(f"scaled {place} back to {self._replicas} replica(s)")

    def _pause(self, deployment: Mapping[str, Any]) -> None:
        place, replicas = _place(deployment), deployment["spec"]["replicas"]
        if not replicas:
            if not self._replicas and (left := _paused_replicas(deployment)):
                self._replicas = left
                say(f"{place} is still paused by an interrupted take-over; it had {left} replica(s)")
            return
        again, self._replicas = self._replicas, self._replicas or replicas
        self._patch(deployment, 0, str(self._replicas))
        if again:
            say(f"{place} had been scaled up again; paused it")
        else:
            say(f"paused {place}, which had {replicas} replica(s)")

    def _patch(self, deployment: Mapping[str, Any], replicas: int, remembered: str | None) -> None:
        patch = {"metadata": {"annotations": {REPLICAS: remembered}}, "spec": {"replicas": replicas}}
        words = (
            "patch",
            *_arguments(deployment),
            "--type=merge",
            f"--patch={json.dumps(patch)}",
        )
        self._kubectl(*words, f"--request-timeout={_PATIENCE}s")

    def _find(self) -> dict[str, Any] | None:
        words = ("deployments", "-A", "-l", self._package.selector, f"--request-timeout={_PATIENCE}s")
        found: list[dict[str, Any]] = self._kubectl.read(*words)["items"]
        runs = [each for each in found if _runs(each)]
        if len(runs) > 1:
            places = ", ".join(each["metadata"]["namespace"] for each in runs)
            raise ClusterError(
                f"{self._package.name} is installed in several namespaces: {places}. Uninstall one of them"
            )
        return next(iter(runs or found), None)


@contextmanager
def standing_in(kubectl: Kubectl, package: Package, *, take_over: bool) -> Iterator[StandIn]:
    """Yields a StandIn, and restores the Deployment at the end.

    Raises:
        ClusterError: The cluster cannot be used, or another process has already taken over.
    """
    stand_in = StandIn(kubectl, package, take_over=take_over)
    if not take_over:
        stand_in.check()
        yield stand_in
        return
    with _exclusive(package):
        try:
            stand_in.check()
            yield stand_in
        finally:
            stand_in.restore()


@contextmanager
def _exclusive(package: Package) -> Iterator[None]:
    """Allows only one take-over at a time. Otherwise the first to end would restore what the other paused."""
    lock = folders.clusters() / folders.cluster_id() / f"take-over-{package.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"another ./inv run {package.argument} --take-over is running. Stop it first"
            ) from None
        yield


def _paused_replicas(deployment: Mapping[str, Any]) -> int:
    """Returns the replicas that a paused Deployment had; 0 if it is not paused or has no annotation."""
    text = deployment["metadata"].get("annotations", {}).get(REPLICAS, "")
    paused = not deployment["spec"]["replicas"]
    return int(text) if paused and text.isascii() and text.isdigit() else 0


def _runs(deployment: Mapping[str, Any]) -> bool:
    return bool(deployment["spec"]["replicas"] or _paused_replicas(deployment))


def _place(deployment: Mapping[str, Any]) -> str:
    return f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"


def _arguments(deployment: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the arguments that name the Deployment for kubectl."""
    metadata = deployment["metadata"]
    return f"deployment/{metadata['name']}", "-n", metadata["namespace"]
