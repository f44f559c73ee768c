"""A stand-in for the volume controller, which binds PersistentVolumeClaims."""

from collections.abc import Callable

from pilothouse.kube import PatchType
from pilothouse.testing.controllers.cluster import Built, Cluster, StandIn
from pilothouse.testing.controllers.pods import CLAIM, RETRY_SECONDS


class VolumeClaims(StandIn):
    """Binds PersistentVolumeClaims, with the capacity that they request. Creates no PersistentVolumes.

    Args:
        bind_seconds: Seconds for which a claim is pending.
        stuck: Returns whether a claim stays pending. Called again every second.
    """

    kinds = (CLAIM,)

    def __init__(self, *, bind_seconds: float = 0.5, stuck: Callable[[Built], bool] | None = None) -> None:
        self._bind_seconds = bind_seconds
        self._stuck = stuck

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Does the next step for a claim."""
        if obj.metadata.deletion_timestamp is not None or obj.status.get("phase") == "Bound":
            return None
        if self._stuck is not None and self._stuck(obj):
            await cluster.set_status(CLAIM, obj, {"phase": "Pending"})
            return RETRY_SECONDS
        if (left := self._bind_seconds - cluster.elapsed(obj, "pending")) > 0:
            await cluster.set_status(CLAIM, obj, {"phase": "Pending"})
            return left
        body = {"metadata": {"uid": obj.metadata.uid}, "spec": {"volumeName": f"pvc-{obj.metadata.uid}"}}
        bound = await cluster.api.patch(CLAIM, obj.key, body, type=PatchType.MERGE)
        capacity = obj.spec.get("resources", {}).get("requests", {})
        modes = obj.spec.get("accessModes", [])
        status = {"phase": "Bound", "accessModes": modes, "capacity": capacity}
        await cluster.set_status(CLAIM, bound, status)
        return None
