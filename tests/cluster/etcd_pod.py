"""A cluster of one member in a pod, made without the operator."""

from __future__ import annotations

#: The client URL inside the pod.
CLIENTS = "http://127.0.0.1:2379"
LABEL = {"app": "etcd"}


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
