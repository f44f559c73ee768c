"""Brings to existing pods and volumes what needs no restart: labels, annotations, sizes and owners."""

from collections.abc import Sequence
from typing import Any

import msgspec

from etcd_operator.blueprint import NODE_LABEL, Blueprint
from etcd_operator.expansion import members_claims, smaller
from etcd_operator.model import Problem
from etcd_operator.observe import Sight
from etcd_operator.pod_metadata import decorate
from etcd_operator.types import ETCD_CLUSTER, EtcdCluster, EtcdClusterStatus, Retention
from etcd_operator.views import POD
from etcd_operator.volumes import CLUSTER_UID, claim_spec, grow
from pilothouse import PERSISTENT_VOLUME_CLAIM, Play, TaskFailed
from pilothouse.views import PersistentVolumeClaim


async def keep_up(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, sight: Sight
) -> tuple[Problem, ...]:
    """Patches what differs. It sends no request if nothing does.

    Returns:
        That a volume cannot grow. The members do not depend on it, so it delays nothing else.

    Raises:
        TaskFailed: The API server refused another patch.
    """
    uid = play.object.metadata.uid
    for pod in sight.pods:
        owned = any(each.uid == uid for each in pod.metadata.owner_references)
        own = {**blueprint.selector, NODE_LABEL: pod.metadata.name}
        patch = decorate(pod.metadata.labels, pod.metadata.annotations, blueprint.spec, own)
        if owned and patch and pod.metadata.deletion_timestamp is None:
            await play.patch(POD, pod.metadata.name, patch)
    claims = members_claims(sight.claims, sight.observation.record)
    for claim in claims:
        await _own(play, blueprint, claim)
    for claim in smaller(blueprint.spec, claims):
        if problem := await _grow(play, blueprint, claim):
            return (problem,)
    return ()


async def release(play: Play[EtcdCluster, EtcdClusterStatus], claim: PersistentVolumeClaim) -> None:
    """Removes the cluster's owner reference from a volume if the object's own spec says Retain.

    Raises:
        TaskFailed: The API server refused the patch.
    """
    retained = play.object.spec.storage.when_deleted is Retention.RETAIN
    if retained and _is_owned(claim, play.object.metadata.uid):
        await _set_owners(play, claim, ())


async def _own(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, claim: PersistentVolumeClaim
) -> None:
    """Sets the owner reference if the spec in force says Delete: Kubernetes deletes the volume, too."""
    marked = claim.metadata.annotations.get(CLUSTER_UID) == blueprint.uid
    wanted = blueprint.spec.storage.when_deleted is Retention.DELETE
    if not (marked and wanted) or _is_owned(claim, blueprint.uid):
        return
    reference = {
        "apiVersion": ETCD_CLUSTER.resource.api_version,
        "kind": ETCD_CLUSTER.resource.kind,
        "name": blueprint.name,
        "uid": blueprint.uid,
        # The API server accepts one controller.
        "controller": not any(each.controller for each in claim.metadata.owner_references),
        "blockOwnerDeletion": True,
    }
    await _set_owners(play, claim, (reference,))


def _is_owned(claim: PersistentVolumeClaim, uid: str) -> bool:
    return any(each.uid == uid for each in claim.metadata.owner_references)


async def _set_owners(
    play: Play[EtcdCluster, EtcdClusterStatus], claim: PersistentVolumeClaim, own: Sequence[dict[str, Any]]
) -> None:
    """Replaces the references to this cluster. A merge patch has the whole list, with those of others."""
    uid = play.object.metadata.uid
    others = [msgspec.to_builtins(each) for each in claim.metadata.owner_references if each.uid != uid]
    patch = {"metadata": {"ownerReferences": [*others, *own] or None}}
    await play.patch(PERSISTENT_VOLUME_CLAIM, claim.metadata.name, patch, owned=False)


async def _grow(
    play: Play[EtcdCluster, EtcdClusterStatus], blueprint: Blueprint, claim: PersistentVolumeClaim
) -> Problem | None:
    try:
        await play.patch(PERSISTENT_VOLUME_CLAIM, claim.metadata.name, grow(blueprint.spec), owned=False)
    except TaskFailed as failure:
        wanted = claim_spec(blueprint.spec)["resources"]["requests"]["storage"]
        current = claim.spec.resources.requests.get("storage", "0")
        message = (
            f"The volume {claim.metadata.name} cannot grow from {current} to {wanted}. If its StorageClass "
            f"does not allow it, set the size back to {current}. {failure.message}"
        )
        return Problem("VolumeNotResized", message)
    return None
