"""PersistentVolumeClaim."""

from collections.abc import Mapping

import msgspec

from pilothouse.kube import EMPTY, ObjectMeta, Resource
from pilothouse.views.conditions import StatusCondition


class ClaimResources(msgspec.Struct, frozen=True, gc=False):
    """The resources of a claim's spec.

    Attributes:
        requests: The requested size, as a quantity, by the key "storage".
    """

    requests: Mapping[str, str] = EMPTY


class ClaimSpec(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """The volume that a claim requests.

    Attributes:
        storage_class_name: The StorageClass that provisions the volume.
        volume_name: The volume that the claim is bound to.
        resources: The requested size.
    """

    storage_class_name: str = ""
    volume_name: str = ""
    resources: ClaimResources = ClaimResources()


class ClaimStatus(msgspec.Struct, frozen=True, gc=False):
    """The state of a claim and its volume.

    Attributes:
        phase: Pending, Bound or Lost.
        capacity: The size of the volume, as a quantity, by the key "storage".
        conditions: The claim's conditions, such as Resizing.
    """

    phase: str = ""
    capacity: Mapping[str, str] = EMPTY
    conditions: tuple[StatusCondition, ...] = ()


class PersistentVolumeClaim(msgspec.Struct, frozen=True, gc=False):
    """v1 PersistentVolumeClaim."""

    metadata: ObjectMeta = ObjectMeta()
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


PERSISTENT_VOLUME_CLAIM: Resource[PersistentVolumeClaim] = Resource(
    "", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", PersistentVolumeClaim
)
"""PersistentVolumeClaims."""
