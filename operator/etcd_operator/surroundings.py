"""Names the problems of what a cluster depends on: StorageClasses, and Secrets with certificates. No I/O."""

from collections.abc import Iterable

from etcd_operator.model import Problem
from etcd_operator.observe import Sight
from etcd_operator.types import PREFIX, EtcdClusterSpec
from etcd_operator.volumes import claim_spec
from pilothouse.views import PersistentVolumeClaim

AUTHORITIES = f"{PREFIX}authorities"
"""The annotation of a pod with the fingerprint of the certificate authorities that it has started with."""


def obstacles(spec: EtcdClusterSpec, claims: Iterable[PersistentVolumeClaim]) -> tuple[Problem, ...]:
    """Returns what keeps the members from starting.

    Args:
        spec: The spec in force.
        claims: The PVCs.
    """
    if claim_spec(spec).get("storageClassName") is not None:
        return ()
    waiting = [
        each.metadata.name
        for each in claims
        if each.status.phase == "Pending" and not each.spec.storage_class_name
    ]
    if not waiting:
        return ()
    message = (
        f"There is no default StorageClass, so nothing provisions the volumes {', '.join(sorted(waiting))}. "
        "Set spec.pod.persistentVolumeClaimSpec.storageClassName, or mark a StorageClass as the default."
    )
    return (Problem("NoStorageClass", message),)


def changed_authorities(sight: Sight) -> tuple[Problem, ...]:
    """Returns the warning that members still use certificate authorities that have changed.

    etcd reads them only when it starts. If the members restarted with authorities that do not overlap, they
    would not accept each other, so the operator restarts none.
    """
    current = sight.tls.authorities
    outdated = sorted(
        each.metadata.name
        for each in sight.pods
        if current and each.metadata.annotations.get(AUTHORITIES, current) != current
    )
    if not outdated:
        return ()
    message = (
        "The certificate authorities in the Secrets have changed, and these members still use the earlier "
        f"ones: {', '.join(outdated)}. If the Secrets contain the earlier ones, too, delete the pods one "
        "after the other. Otherwise add them first."
    )
    return (Problem("AuthoritiesChanged", message),)
