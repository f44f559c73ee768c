"""Runs kubectl against one cluster, with a deadline on every call, and waits until objects are ready."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from devcluster.shell import ClusterError, CommandError, run

T = TypeVar("T")

#: The field manager of everything that we apply.
_FIELD_MANAGER = "pilothouse-devcluster"
_POLL = 0.3


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl with one kubeconfig."""

    program: Path
    kubeconfig: Path

    def __call__(self, *words: str, stdin: str = "", timeout: float = 60.0) -> str:
        """Runs one command and returns its standard output.

        Args:
            words: The arguments for kubectl.
            stdin: Text for its standard input (`-f -`).
            timeout: Seconds after which it is stopped.

        Raises:
            CommandError: The command failed or timed out. The message contains that of kubectl.
        """
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return run([self.program, *words], stdin=stdin, timeout=timeout, env=environment)

    def read(self, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        """Returns the decoded output of `kubectl get WORDS -o json`."""
        document: dict[str, Any] = json.loads(self("get", *words, "-o", "json", timeout=timeout))
        return document

    def apply(self, manifests: str) -> None:
        """Applies manifests with server-side apply: OLM's CRDs are too large for client-side apply.

        Passes them on standard input, because every user of the host can read command lines.
        """
        owner = f"--field-manager={_FIELD_MANAGER}"
        self("apply", "--server-side", "--force-conflicts", owner, "-f", "-", stdin=manifests, timeout=120)

    def may(self, verb: str, resource: str) -> bool:
        """Returns whether the user of the kubeconfig has the verb on the resource in every namespace."""
        try:
            return self("auth", "can-i", verb, resource, "--all-namespaces").strip() == "yes"
        except CommandError:  # "no" comes with status 1
            return False

    def ready(self) -> bool:
        """Returns whether the API server is ready."""
        try:
            return self("get", "--raw=/readyz", "--request-timeout=2s", timeout=5) == "ok"
        except CommandError:
            return False

    def wait_ready(self, timeout: float) -> None:
        """Waits until the API server is ready."""
        wait_until(
            self.ready,
            timeout,
            lambda: "The API server is not ready. Its log: './inv cluster.logs kube-apiserver'.",
        )

    def wait_deployments(
        self, namespace: str, names: Sequence[str], *, since: float = 0.0, timeout: float = 300.0
    ) -> None:
        """Waits until all replicas of the Deployments are ready.

        Args:
            namespace: The namespace of the Deployments.
            names: The names of the Deployments.
            since: A Unix time. Containers that started earlier do not count: after a restart of the node,
                its pods are reported as ready until the kubelet has checked them.
            timeout: Seconds.

        Raises:
            ClusterError: The wait timed out. The message names the pods that are not ready, and why.
        """
        wait_until(
            lambda: not self._unready(namespace, names, since),
            timeout,
            lambda: (
                f"Not ready in namespace {namespace}: " + "; ".join(self._unready(namespace, names, since))
            ),
        )

    def _unready(self, namespace: str, names: Sequence[str], since: float) -> list[str]:
        deployments = {
            item["metadata"]["name"]: item for item in self.read("deployments", "-n", namespace)["items"]
        }
        pods = self.read("pods", "-n", namespace)["items"]
        problems = []
        for name in names:
            deployment = deployments.get(name)
            if not deployment:
                problems.append(f"Deployment {name} does not exist")
                continue
            selector = deployment["spec"]["selector"]["matchLabels"].items()
            own = [pod for pod in pods if selector <= pod["metadata"].get("labels", {}).items()]
            if sum(not pod_problem(pod, since) for pod in own) < deployment["spec"]["replicas"]:
                problems += [f"{name}: {pod_problem(pod, since)}" for pod in own] or [f"{name}: no pod yet"]
        return problems


def pod_problem(pod: dict[str, Any], since: float = 0.0) -> str:
    """Returns why a pod is not ready or was started before `since` (Unix time); empty if it is fine."""
    status = pod["status"]
    containers = status.get("containerStatuses", [])
    for container in containers:
        waiting = container["state"].get("waiting")
        if waiting:
            return f"{waiting.get('reason', 'waiting')} {waiting.get('message', '')}".strip()
    started = [container["state"].get("running", {}).get("startedAt", "") for container in containers]
    if not containers or any(not text or _unix(text) < int(since) for text in started):
        return f"{status.get('phase', 'Pending')}: not started yet"
    return "" if all(container["ready"] for container in containers) else "started, not ready yet"


def wait_until(done: Callable[[], T], timeout: float, complaint: Callable[[], str]) -> T:
    """Calls `done` repeatedly until it returns a true value, and returns that value.

    Raises:
        ClusterError: The wait timed out after `timeout` seconds. The message ends with `complaint()`.
    """
    deadline = time.monotonic() + timeout
    while not (found := done()):
        if time.monotonic() > deadline:
            raise ClusterError(f"Timed out after {timeout:.0f} s. {complaint()}")
        time.sleep(_POLL)
    return found


def _unix(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
