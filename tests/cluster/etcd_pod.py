"""Clusters of one member in a pod each, made without the operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from devcluster.kubectl import Kubectl, wait_until
from devcluster.shell import CommandError

#: The client URL inside the pod.
CLIENTS = "http://127.0.0.1:2379"
LABEL = {"app": "etcd"}


@dataclass(frozen=True)
class Pods:
    """The pods of a namespace that accepts only restricted pods."""

    kubectl: Kubectl
    namespace: str

    def create(self, manifest: dict[str, object]) -> None:
        """Creates an object in the namespace."""
        self.kubectl("create", "-n", self.namespace, "-f", "-", stdin=json.dumps(manifest))

    def run(self, name: str, image: str) -> None:
        """Creates a pod and waits until it is ready."""
        self.create(pod(name, image))
        words = ("wait", f"pod/{name}", "-n", self.namespace, "--for=condition=Ready", "--timeout=120s")
        try:
            self.kubectl(*words, timeout=130)
        except CommandError:
            pytest.fail(self.kubectl("describe", "pod", name, "-n", self.namespace))

    def read(self, name: str, kind: str = "pod") -> dict[str, Any]:
        """Returns an object of the namespace."""
        return self.kubectl.read(kind, name, "-n", self.namespace)

    def execute(self, name: str, *words: str) -> str:
        """Runs a program in a pod and returns what it printed."""
        return self.kubectl("exec", name, "-n", self.namespace, "--", *words)


@contextmanager
def pods(kubectl: Kubectl, namespace: str) -> Iterator[Pods]:
    """Creates the namespace, and deletes it after the block."""
    kubectl("delete", "namespace", namespace, "--ignore-not-found", timeout=120)
    kubectl("create", "namespace", namespace)
    kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    # Until it exists, pods are refused.
    account = ("get", "serviceaccount", "default", "-n", namespace, "--ignore-not-found")
    wait_until(lambda: kubectl(*account), 30, lambda: f"{namespace} has no default service account.")
    try:
        yield Pods(kubectl, namespace)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


def pod(name: str, image: str) -> dict[str, object]:
    """Returns a cluster of one member with a volume that ends with the pod."""
    container = {
        "name": "etcd",
        "image": image,
        # These replace the image's Cmd. They would be arguments of an entrypoint if there were one.
        "args": [
            "/usr/local/bin/etcd",
            "--data-dir=/var/etcd/data",
            "--listen-client-urls=http://0.0.0.0:2379",
            f"--advertise-client-urls={CLIENTS}",
        ],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 2379}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "data", "mountPath": "/var/etcd"}],
    }
    restricted = {
        "runAsNonRoot": True,
        "runAsUser": 12345,
        "fsGroup": 12345,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": LABEL},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": restricted,
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    }


def service(name: str) -> dict[str, object]:
    """Returns a client Service for the pods of `pod`."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": LABEL, "ports": [{"port": 2379}]},
    }
