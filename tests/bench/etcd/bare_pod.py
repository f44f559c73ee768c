"""One bare pod of etcd with a fresh volume: the measure of the machine that all times are compared with."""

from __future__ import annotations

import time
from typing import Any

from etcd_operator.views import POD
from pilothouse import PERSISTENT_VOLUME_CLAIM
from pilothouse.kube import ObjectKey
from tests.bench.etcd.cluster import MeasuredCluster
from tests.bench.etcd.view import is_ready
from tests.cluster import etcd_pod
from tests.cluster.etcd import NAMESPACE

_NAME = "bare-pod"
_KEY = ObjectKey(NAMESPACE, _NAME)


async def seconds_to_ready(cluster: MeasuredCluster, image: str) -> float:
    """Creates a volume and a pod at the same time, and returns the seconds until the pod is Ready.

    Both are deleted again.

    Args:
        cluster: The access to the namespace.
        image: The image of etcd.
    """
    client, view = cluster.client, cluster.view

    def ready() -> bool:
        pod = view.pod(_NAME)
        return pod is not None and is_ready(pod)

    began = time.monotonic()
    await client.create(PERSISTENT_VOLUME_CLAIM, _claim(), namespace=NAMESPACE)
    await client.create(POD, _pod(image), namespace=NAMESPACE)
    seconds = await view.until(ready, "the bare pod is Ready") - began
    await client.delete(POD, _KEY)
    await client.delete(PERSISTENT_VOLUME_CLAIM, _KEY)
    await view.until(lambda: view.pod(_NAME) is None, "the bare pod is deleted")
    await cluster.released()
    return seconds


def _pod(image: str) -> dict[str, Any]:
    pod: dict[str, Any] = etcd_pod.pod(_NAME, image)
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": _NAME}}]
    return pod


def _claim() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": _NAME},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
