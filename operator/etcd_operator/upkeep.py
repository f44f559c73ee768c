"""Brings to existing pods and volumes what needs no restart: labels, annotations, sizes and owners."""

from typing import Any

from etcd_operator.blueprint import Blueprint
from etcd_operator.observe import Sight
from etcd_operator.pod_metadata import decorate
from etcd_operator.types import ETCD_CLUSTER, EtcdCluster, EtcdClusterStatus, Retention
from etcd_operator.views import POD
from etcd_operator.volumes import REMOVED, claim_spec, grow
from pilothouse import PERSISTENT_VOLUME_CLAIM, Play, TaskFailed
from pilothouse.api import Quantity
from pilothouse.views import PersistentVolumeClaim

VOLUME_NOT_RESIZED = "VolumeNotResized"
# Seconds until a refused resize is tried again: the StorageClass may allow it by then.
_RESIZE = 60.0


async def keep_up(play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, sight: Sight) -> None:
    """Patches what differs. It sends no request if nothing does.

    Raises:
        TaskFailed: The API server refused a patch.
    """
    uid = play.object.metadata.uid
    for pod in sight.pods:
        owned = any(each.uid == uid for each in pod.metadata.owner_references)
        patch = decorate(pod.metadata.labels, pod.metadata.annotations, blueprint.spec)
        if owned and patch and pod.metadata.deletion_timestamp is None:
            await play.patch(POD, pod.metadata.name, patch)
    for claim in sight.claims:
        if claim.metadata.deletion_timestamp is None and REMOVED not in claim.metadata.annotations:
            await _own(play, blueprint, claim)
            await _grow(play, blueprint, claim)


async def _own(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, claim: PersistentVolumeClaim
) -> None:
    """Sets or removes the owner reference: Kubernetes deletes the volume with the cluster, or keeps it."""
    wanted = blueprint.spec.storage.when_deleted is Retention.DELETE
    owned = any(each.uid == blueprint.uid for each in claim.metadata.owner_references)
    if wanted == owned:
        return
    reference = {
        "apiVersion": ETCD_CLUSTER.resource.api_version,
        "kind": ETCD_CLUSTER.resource.kind,
        "name": blueprint.name,
        "uid": blueprint.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    patch: dict[str, Any] = {"metadata": {"ownerReferences": [reference] if wanted else None}}
    await play.patch(PERSISTENT_VOLUME_CLAIM, claim.metadata.name, patch, owned=False)


async def _grow(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, claim: PersistentVolumeClaim
) -> None:
    wanted = str(claim_spec(blueprint.spec)["resources"]["requests"]["storage"])
    current = claim.spec.resources.requests.get("storage", "0")
    if Quantity.parse(wanted) <= Quantity.parse(current):
        return
    try:
        await play.patch(PERSISTENT_VOLUME_CLAIM, claim.metadata.name, grow(blueprint.spec), owned=False)
    except TaskFailed as failure:
        message = (
            f"The volume {claim.metadata.name} cannot grow from {current} to {wanted}. If its StorageClass "
            f"does not allow it, set the size back to {current}. {failure.message}"
        )
        raise TaskFailed(VOLUME_NOT_RESIZED, message, retry_after=_RESIZE) from failure
