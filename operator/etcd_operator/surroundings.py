"""Names the problems of what a cluster depends on: StorageClasses and unusable Secrets. No I/O."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from etcd_operator.model import Problem
from etcd_operator.observe import Sight
from etcd_operator.seats import listed
from etcd_operator.types import EtcdClusterSpec
from etcd_operator.views import StorageClass
from etcd_operator.volumes import claim_spec
from pilothouse.views import PersistentVolumeClaim

PROVISIONING: Final = timedelta(seconds=10)
"""How long a claim with a StorageClass may be Pending before the operator checks whether that exists."""

_CLASS = "spec.pod.persistentVolumeClaimSpec.storageClassName"


def obstacles(
    spec: EtcdClusterSpec, sight: Sight, classes: Sequence[StorageClass] | None
) -> tuple[Problem, ...]:
    """Returns what prevents the operator from seeing the members, and the members from starting.

    Args:
        spec: The spec in force.
        sight: What was observed.
        classes: All StorageClasses. None: they were not read.
    """
    return (*_blindness(sight), *_missing_class(spec, unprovisioned(sight), classes))


def unprovisioned(sight: Sight) -> list[PersistentVolumeClaim]:
    """Returns the claims whose StorageClass may be missing."""
    return [
        each
        for each in sight.claims
        if each.status.phase == "Pending"
        and (not each.spec.storage_class_name or _is_older(each, sight.observation.now))
    ]


def _is_older(claim: PersistentVolumeClaim, now: datetime) -> bool:
    created = claim.metadata.creation_timestamp
    return created is not None and now - created >= PROVISIONING


def _blindness(sight: Sight) -> tuple[Problem, ...]:
    if mistakes := sight.tls.mistakes:
        return (Problem("SecretUnusable", " ".join(each.message for each in mistakes)),)
    if sight.observation.blind and sight.listed is None:
        return (Problem("MembersHidden", sight.observation.blind),)
    return ()


def _missing_class(
    spec: EtcdClusterSpec, claims: Iterable[PersistentVolumeClaim], classes: Sequence[StorageClass] | None
) -> tuple[Problem, ...]:
    names = {each.metadata.name for each in classes or ()}
    unnamed = {each.metadata.name for each in claims if not each.spec.storage_class_name}
    absent = {
        each.spec.storage_class_name: each.metadata.name
        for each in claims
        if each.spec.storage_class_name and classes is not None and each.spec.storage_class_name not in names
    }
    for name, claim in sorted(absent.items()):
        message = (
            f"The StorageClass {name} does not exist, so nothing provisions the volume {claim}. Create it"
        )
        return (Problem("NoStorageClass", f"{message}, or correct {_CLASS}{_choice(classes)}."),)
    default = any(each.is_default for each in classes or ())
    if not unnamed or default or claim_spec(spec).get("storageClassName") is not None:
        return ()
    message = (
        f"There is no default StorageClass, so nothing provisions the volumes {listed(sorted(unnamed))}. "
        f"Set {_CLASS}{_choice(classes)}, or mark a StorageClass as the default."
    )
    return (Problem("NoStorageClass", message),)


def _choice(classes: Sequence[StorageClass] | None) -> str:
    if classes is None:
        return " (the operator may not read StorageClasses, so it cannot list them)"
    names = sorted(each.metadata.name for each in classes)
    return f" to {' or '.join(names)}" if names else " after creating one"
