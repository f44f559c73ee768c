"""The operator's Deployment in the cluster, while the same operator runs on this host."""

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

#: The Deployment's replicas before it was paused: found there again if this process could not bring it back.
REPLICAS = "pilothouse.dev/replicas-before-take-over"
#: Where the Lease is while the operator is not installed.
NOWHERE = "default"
#: Seconds for a look at the cluster: the operator on this host tells of an API server that gives no answer.
_PATIENCE = 5


class StandIn:
    """Knows where the Lease of the two is, and keeps the one in the cluster paused if it is to be.

    Args:
        kubectl: Reaches the cluster.
        package: The operator.
        take_over: Keep its Deployment at 0 replicas.
    """

    def __init__(self, kubectl: Kubectl, package: Package, *, take_over: bool) -> None:
        self._kubectl = kubectl
        self._package = package
        self._take_over = take_over
        #: The Deployment at the last look; None: there was none.
        self._found: Mapping[str, Any] | None = None
        #: How many replicas the Deployment had; 0: it has not been paused.
        self._replicas = 0

    @property
    def namespace(self) -> str:
        """Where the Lease was at the last look: where the Deployment is, so that of the two one works."""
        return str(self._found["metadata"]["namespace"]) if self._found else NOWHERE

    @property
    def runs(self) -> bool:
        """Whether the Deployment had replicas, or would have if a take-over had ended in order."""
        return self._found is not None and _runs(self._found)

    def look(self) -> str:
        """Pauses the Deployment if it runs and is to be paused; returns the namespace of the Lease.

        Once is not enough. OLM brings it back at an upgrade, and when it happens to look after a change of
        the Deployment that the Deployment's controller has not observed yet: it takes that for a broken
        installation and installs anew (`DeploymentStatus` in its pkg/controller/install/status_viewer.go).

        Raises:
            ClusterError: The cluster gave no answer, or has the operator more than once.
        """
        self._found = self._find()
        if self._found is None:
            self._replicas = 0  # Whoever comes after it has a number of its own.
        elif self._take_over:
            self._pause(self._found)
        return self.namespace

    def give_back(self) -> None:
        """Brings the Deployment back to the replicas that it had.

        Raises:
            ClusterError: It could not be brought back; the text tells how a person does.
        """
        if self._found is None or not self._replicas:
            return
        place, (name, *there) = _place(self._found), _words(self._found)
        try:
            if self._find() is None:
                say(f"{self._package.name} is no longer installed: there is nothing to bring back")
                return
            self._patch(self._found, self._replicas, None)
        except ClusterError as error:
            raise ClusterError(
                f"{place} is left at 0 replicas, since it could not be brought back ({error}): "
                f"kubectl {' '.join(there)} scale {name} --replicas={self._replicas}"
            ) from None
        say(f"brought {place} back to {self._replicas} replica(s)")

    def _pause(self, deployment: Mapping[str, Any]) -> None:
        place, replicas = _place(deployment), deployment["spec"]["replicas"]
        if not replicas:
            if not self._replicas and (left := _remembered(deployment)):
                self._replicas = left
                say(f"{place} is paused, by a take-over that did not end in order; it had {left} replica(s)")
            return
        again, self._replicas = self._replicas, self._replicas or replicas
        self._patch(deployment, 0, str(self._replicas))
        if again:
            say(f"{place} was brought back meanwhile, and is paused again")
        else:
            say(f"paused {place}, which had {replicas} replica(s)")

    def _patch(self, deployment: Mapping[str, Any], replicas: int, remembered: str | None) -> None:
        patch = {"metadata": {"annotations": {REPLICAS: remembered}}, "spec": {"replicas": replicas}}
        words = (
            "patch",
            *_words(deployment),
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
                f"{self._package.name} is installed more than once, in {places}: uninstall one of them"
            )
        return next(iter(runs or found), None)


@contextmanager
def standing_in(kubectl: Kubectl, package: Package, *, take_over: bool) -> Iterator[StandIn]:
    """A StandIn that gives back at the end what it has taken.

    Raises:
        ClusterError: The cluster cannot be used, or another process of this checkout takes over already.
    """
    stand_in = StandIn(kubectl, package, take_over=take_over)
    if not take_over:
        stand_in.look()
        yield stand_in
        return
    with _alone(package):
        try:
            stand_in.look()
            yield stand_in
        finally:
            stand_in.give_back()


@contextmanager
def _alone(package: Package) -> Iterator[None]:
    """Of two that take over, the first to end would bring back what the other has paused."""
    lock = folders.clusters() / folders.cluster_id() / f"take-over-{package.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(
                f"another ./inv run {package.argument} --take-over is at work: end that one first"
            ) from None
        yield


def _remembered(deployment: Mapping[str, Any]) -> int:
    """How many replicas a paused Deployment had; 0 where it is not paused, or nobody has said so."""
    said = deployment["metadata"].get("annotations", {}).get(REPLICAS, "")
    paused = not deployment["spec"]["replicas"]
    return int(said) if paused and said.isascii() and said.isdigit() else 0


def _runs(deployment: Mapping[str, Any]) -> bool:
    return bool(deployment["spec"]["replicas"] or _remembered(deployment))


def _place(deployment: Mapping[str, Any]) -> str:
    return f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"


def _words(deployment: Mapping[str, Any]) -> tuple[str, ...]:
    """How kubectl names it."""
    metadata = deployment["metadata"]
    return f"deployment/{metadata['name']}", "-n", metadata["namespace"]
