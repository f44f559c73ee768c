"""The PVC of a member: its manifest, the annotations that the operator writes, and reading them again.

A retained PVC outlives the EtcdCluster, so it has no owner reference. The annotations hold what the operator
must know about the data on it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from etcd_operator.blueprint import NODE_LABEL, Blueprint
from etcd_operator.model import Mark, VolumeState
from etcd_operator.types import DEFAULT_STORAGE, PREFIX, EtcdClusterSpec
from etcd_operator.versions import Version
from etcd_operator.views import Pod, has_ended
from pilothouse import ObjectMeta
from pilothouse.views import PersistentVolumeClaim

CLUSTER_UID = f"{PREFIX}cluster-uid"
INCARNATION = f"{PREFIX}incarnation"
SCHEME = f"{PREFIX}scheme"
DOMAIN = f"{PREFIX}domain"
"""The `ClusterDomain` of the member's peer URL, which may be empty."""
SERVICE = f"{PREFIX}service"
"""The DNS name of the cluster's headless Service. A copy of the volume in another namespace keeps it."""
STARTED = f"{PREFIX}started"
MEMBER_ID = f"{PREFIX}member-id"
CLUSTER_ID = f"{PREFIX}cluster-id"
VERSION = f"{PREFIX}version"
VOTERS = f"{PREFIX}voters"
"""The epoch and the names of the voters: `4:a,b,c`. One value, so that they always fit together."""
REMOVED = f"{PREFIX}removed"

_SCHEMES = re.compile("https?/https?")

# Kubernetes removes this finalizer of a Terminating PVC when no pod uses it.
_PROTECTION = "kubernetes.io/pvc-protection"

T = TypeVar("T")

EPHEMERAL = "ephemeral"
"""The storage of a cluster whose data is in emptyDir; see `storage`."""


def volume_claim(blueprint: Blueprint, name: str) -> dict[str, Any]:
    """Returns the manifest of a member's PVC. Create it with `owned=False`.

    Args:
        blueprint: The cluster.
        name: The name of the member.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": blueprint.namespace,
            "labels": {**blueprint.selector, NODE_LABEL: name},
            "annotations": volume_annotations(blueprint),
        },
        "spec": claim_spec(blueprint.spec),
    }


def claim_spec(spec: EtcdClusterSpec) -> dict[str, Any]:
    """Returns the spec of the PVCs: that of `pod.persistentVolumeClaimSpec`, with defaults."""
    claim = (spec.pod.persistent_volume_claim_spec if spec.pod else None) or {}
    resources = claim.get("resources") or {}
    requests = {"storage": DEFAULT_STORAGE, **(resources.get("requests") or {})}
    filled = {key: value for key, value in claim.items() if value is not None}
    return {
        **filled,
        "accessModes": claim.get("accessModes") or ["ReadWriteOnce"],
        "resources": {**resources, "requests": requests},
    }


def grow(spec: EtcdClusterSpec) -> dict[str, Any]:
    """Returns the merge patch that requests the size of the spec for an existing PVC."""
    return {"spec": {"resources": {"requests": claim_spec(spec)["resources"]["requests"]}}}


def storage(spec: EtcdClusterSpec) -> str:
    """Returns what cannot change for an existing volume: the storage class, or that it is ephemeral.

    The class `""` is one without a provisioner. An absent class is the default one.
    """
    if spec.storage.ephemeral:
        return EPHEMERAL
    claim = (spec.pod.persistent_volume_claim_spec if spec.pod else None) or {}
    name = claim.get("storageClassName")
    return "default" if name is None else f"class:{name}"


def volume_annotations(blueprint: Blueprint) -> dict[str, str]:
    """Returns the annotations of a new volume."""
    return {
        CLUSTER_UID: blueprint.uid,
        INCARNATION: str(blueprint.incarnation),
        SCHEME: blueprint.scheme,
        DOMAIN: blueprint.pod.cluster_domain,
        SERVICE: blueprint.service,
    }


def recorded_domain(claims: Iterable[PersistentVolumeClaim]) -> str | None:
    """Returns the `ClusterDomain` that is recorded on PVCs. None: there is none, or there are several."""
    domains = {each.metadata.annotations[DOMAIN] for each in claims if DOMAIN in each.metadata.annotations}
    return domains.pop() if len(domains) == 1 else None


def mark(change: Mark, blueprint: Blueprint, cluster_id: int) -> dict[str, Any]:
    """Returns the merge patch that marks a volume: of its PVC, or of the pod if the data is in an emptyDir.

    It has all annotations, so it corrects those that a user has changed.

    Args:
        change: What differs between volumes.
        blueprint: The cluster. After a resumption, its UID differs from the one on the volume.
        cluster_id: etcd's cluster ID, `Record.cluster_id`. 0: not known yet.
    """
    annotations = {
        CLUSTER_UID: blueprint.uid,
        INCARNATION: str(blueprint.incarnation),
        SCHEME: blueprint.scheme,
        SERVICE: blueprint.service,
        STARTED: "true" if change.started else None,
        MEMBER_ID: f"{change.member_id:x}" if change.member_id else None,
        CLUSTER_ID: f"{cluster_id:x}" if cluster_id else None,
        VERSION: change.version or None,
        VOTERS: f"{change.epoch}:{','.join(change.voters)}" if change.voters or change.epoch else None,
        REMOVED: "true" if change.removed else None,
    }
    if change.domain is not None:
        annotations[DOMAIN] = change.domain
    return {"metadata": {"annotations": annotations}}


def volume_of_claim(claim: PersistentVolumeClaim) -> VolumeState:
    """Returns the state of the volume of a PVC."""
    phase = claim.status.phase
    volume = _volume(claim.metadata, lost=phase == "Lost", bound=phase in ("Bound", "Lost"))
    held = tuple(each for each in claim.metadata.finalizers if volume.deleting and each != _PROTECTION)
    return replace(volume, labelled=claim.metadata.labels.get(NODE_LABEL, ""), held=held)


def volume_of_pod(pod: Pod) -> VolumeState:
    """Returns the state of the emptyDir of a pod. The kubelet deletes it when the pod has ended."""
    return _volume(pod.metadata, lost=has_ended(pod), bound=False)


def _volume(metadata: ObjectMeta, *, lost: bool, bound: bool) -> VolumeState:
    """Returns what the annotations say. `VolumeState.unreadable` has the first one that cannot be read."""
    read = _Reader(metadata.annotations)
    no_voters: tuple[int, tuple[str, ...]] = (0, ())
    epoch, voters = read(VOTERS, _voters, no_voters)
    return VolumeState(
        name=metadata.name,
        uid=metadata.uid,
        owner=metadata.annotations.get(CLUSTER_UID, ""),
        incarnation=read(INCARNATION, int, 0),
        started=read(STARTED, _flag, False),
        member_id=read(MEMBER_ID, _identity, 0),
        cluster_id=read(CLUSTER_ID, _identity, 0),
        version=read(VERSION, _version, ""),
        scheme=read(SCHEME, _scheme, "http/http"),
        domain=metadata.annotations.get(DOMAIN),
        service=metadata.annotations.get(SERVICE),
        voters=voters,
        epoch=epoch,
        removed=read(REMOVED, _flag, False),
        deleting=metadata.deletion_timestamp is not None,
        bound=bound,
        lost=lost,
        unreadable=read.unreadable,
    )


class _Reader:
    """Reads annotations, each by itself.

    Attributes:
        unreadable: The key of the first annotation that cannot be read. "": all can be read.
    """

    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations
        self.unreadable = ""

    def __call__(self, key: str, read: Callable[[str], T], default: T) -> T:
        """Returns the value of an annotation, or the default if it is missing or cannot be read."""
        text = self._annotations.get(key)
        if text is None:
            return default
        try:
            return read(text)
        except ValueError:
            self.unreadable = self.unreadable or key
            return default


def _identity(text: str) -> int:
    return int(text, 16)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _version(text: str) -> str:
    Version.parse(text)
    return text


def _scheme(text: str) -> str:
    if not _SCHEMES.fullmatch(text):
        raise ValueError(text)
    return text


def _voters(text: str) -> tuple[int, tuple[str, ...]]:
    epoch, _, names = text.partition(":")
    voters = tuple(each for each in names.split(",") if each)
    if not voters:
        raise ValueError(text)
    return int(epoch), voters
