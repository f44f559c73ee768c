"""A stand-in for the scheduler and the kubelet: schedules and starts Pods, and makes them ready or stuck."""

import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from pilothouse.kube import Resource
from pilothouse.testing.controllers.cluster import Built, Cluster, StandIn, called, timestamp
from pilothouse.testing.documents import Json

POD: Resource[Built] = Resource("", "v1", "Pod", "pods", Built)
CLAIM: Resource[Built] = Resource("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", Built)

NODE = "node-1"
#: Seconds between two retries for a Pod in trouble.
RETRY_SECONDS = 1.0


class Trouble(StrEnum):
    """The reason why a Pod does not become ready."""

    UNSCHEDULABLE = "unschedulable"
    """There is no node for it."""
    IMAGE_PULL = "image pull"
    """Its image cannot be pulled."""
    CRASH_LOOP = "crash loop"
    """Its containers exit right after they have started."""
    UNREADY = "unready"
    """It runs, but its readiness probe fails."""


UNSCHEDULABLE: Json = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient cpu.",
}
CRASHED: Json = {
    "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
}


class Pods(StandIn):
    """Schedules Pods, starts their containers and makes them ready, as the scheduler and the kubelet do.

    Args:
        start_seconds: Seconds from the scheduling to the start of the containers.
        ready_seconds: Seconds from the start of the containers until the Pod is ready.
        trouble: Returns what is wrong with a Pod; None if nothing is. Called again every second, so that the
            trouble can end.
        on_start: Called when the containers of a Pod have started. May be async. For example, it starts a
            model of the program in the Pod.
        on_stop: Called when a Pod with started containers is deleted. May be async.
    """

    kinds = (POD,)

    def __init__(
        self,
        *,
        start_seconds: float = 1.0,
        ready_seconds: float = 1.0,
        trouble: Callable[[Built], Trouble | None] | None = None,
        on_start: Callable[[Built], Any] | None = None,
        on_stop: Callable[[Built], Any] | None = None,
    ) -> None:
        self._start_seconds = start_seconds
        self._ready_seconds = ready_seconds
        self._trouble = trouble
        self._on_start = on_start
        self._on_stop = on_stop

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a Pod."""
        if obj.metadata.deletion_timestamp is not None:
            await cluster.delete(POD, obj)
            return None
        trouble = self._trouble(obj) if self._trouble else None
        if trouble is Trouble.UNSCHEDULABLE and not obj.spec.get("nodeName"):
            await cluster.set_status(POD, obj, {"phase": "Pending", "conditions": [UNSCHEDULABLE]})
            return RETRY_SECONDS
        if not obj.spec.get("nodeName"):
            await cluster.api.request("POST", POD.path(*obj.key, "binding"), body=_binding(obj))
            return None  # The change triggers the next sync.
        if trouble is Trouble.IMAGE_PULL:
            await cluster.set_status(POD, obj, _status(obj, {"waiting": _image_pull(obj)}))
            return RETRY_SECONDS
        if (left := self._start_seconds - cluster.elapsed(obj, "scheduled")) > 0:
            await cluster.set_status(POD, obj, _status(obj, {"waiting": {"reason": "ContainerCreating"}}))
            return left
        return await self._run(cluster, obj, trouble)

    async def _run(self, cluster: Cluster, obj: Built, trouble: Trouble | None) -> float | None:
        if trouble is Trouble.CRASH_LOOP:
            was_running = _is_running(obj)
            await cluster.set_status(POD, obj, _status(obj, CRASHED, phase="Running", restarts=3))
            cluster.forget(obj, "started")
            if was_running:
                await called(self._on_stop, obj)
            return RETRY_SECONDS
        if not _is_running(obj):
            cluster.elapsed(obj, "started")
            started = {"running": {"startedAt": timestamp()}}
            await cluster.set_status(POD, obj, _status(obj, started, phase="Running"))
            await called(self._on_start, cluster.get(POD, obj.key) or obj)
            return self._ready_seconds
        state = obj.status["containerStatuses"][0]["state"]
        if trouble is Trouble.UNREADY:
            await cluster.set_status(POD, obj, _status(obj, state, phase="Running"))
            return RETRY_SECONDS
        if (left := self._ready_seconds - cluster.elapsed(obj, "started")) > 0:
            return left
        await cluster.set_status(POD, obj, _status(obj, state, phase="Running", ready=True))
        return RETRY_SECONDS if self._trouble else None

    async def gone(self, cluster: Cluster, obj: Built) -> None:
        """Calls `on_stop` for a deleted Pod whose containers were running."""
        if _is_running(obj):
            await called(self._on_stop, obj)


def is_ready(pod: Built) -> bool:
    """Returns whether a Pod is ready."""
    conditions = pod.status.get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _is_running(pod: Built) -> bool:
    return any("running" in each.get("state", {}) for each in pod.status.get("containerStatuses") or ())


def _binding(pod: Built) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.metadata.name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    }


def _image_pull(pod: Built) -> Json:
    image = next((each.get("image", "") for each in _containers(pod)), "")
    return {"reason": "ImagePullBackOff", "message": f'Back-off pulling image "{image}"'}


def _containers(pod: Built) -> list[Json]:
    containers: list[Json] = pod.spec.get("containers") or [{"name": "main", "image": "image"}]
    return containers


def _status(
    pod: Built, state: Json, *, phase: str = "Pending", ready: bool = False, restarts: int = 0
) -> Json:
    """Returns the status of a scheduled Pod whose containers are all in the given state."""
    last = {"terminated": {"exitCode": 1, "reason": "Error"}} if restarts else {}
    running = "running" in state
    unready = {} if ready else {"reason": "ContainersNotReady", "message": "containers with unready status"}
    status: Json = {
        "phase": phase,
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Initialized", "status": "True"},
            {"type": "ContainersReady", "status": str(ready), **unready},
            {"type": "Ready", "status": str(ready), **unready},
        ],
        "containerStatuses": [
            {
                "name": each["name"],
                "image": each.get("image", ""),
                "imageID": "",
                "ready": ready,
                "started": running,
                "restartCount": restarts,
                "state": state,
                **({"lastState": last} if last else {}),
            }
            for each in _containers(pod)
        ],
    }
    if running:
        # The same for a Pod in all runs, and different for its successor.
        digest = hashlib.sha256(pod.metadata.uid.encode()).digest()
        address = f"10.{digest[0]}.{digest[1]}.{digest[2] or 1}"
        status |= {"hostIP": "10.0.0.1", "podIP": address, "podIPs": [{"ip": address}]}
    return status
