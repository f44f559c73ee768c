"""The API types that all kinds share, such as metadata and conditions.

Values that are equal in most objects of a kind (namespace, finalizers, the type of a condition) are kept in
memory only once. In a store of 10,000 FlightTickets this saves 3 of 13 MiB, and costs a microsecond per
object.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import msgspec
from msgspec.structs import force_setattr

# One empty mapping for all objects. A dict per object would take 64 bytes each.
EMPTY: Mapping[str, str] = MappingProxyType({})

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# The maximum number of digits. etcd's revisions have at most 19. Python refuses to convert thousands.
_LONGEST = 100


@lru_cache(maxsize=1024)
def _shared(values: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the first of all equal tuples."""
    return values


@lru_cache(maxsize=1024)
def _shared_time(value: datetime) -> datetime:
    """Returns the first of all equal times. Objects of one manifest are created in the same second."""
    return value


class ObjectKey(NamedTuple):
    """The namespace and name of an object: the key in queues and stores.

    The namespace of a cluster-scoped object is empty.
    """

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class OwnerReference(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """metav1.OwnerReference: the owner of an object. When it is deleted, the object is deleted, too."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False
    block_owner_deletion: bool = False


class ObjectMeta(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """The fields of metav1.ObjectMeta that controllers read. All have defaults, because any may be absent.

    Attributes:
        resource_version: The version of the object; see `ordered`.
        generation: A number that increases with every change of the spec.
        deletion_timestamp: The time at which deletion was requested. The object exists until its finalizers
            are removed.
    """

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] = EMPTY
    annotations: Mapping[str, str] = EMPTY
    owner_references: tuple[OwnerReference, ...] = ()

    def __post_init__(self) -> None:
        force_setattr(self, "namespace", intern(self.namespace))
        if self.finalizers:
            force_setattr(self, "finalizers", _shared(self.finalizers))
        if self.creation_timestamp is not None:
            force_setattr(self, "creation_timestamp", _shared_time(self.creation_timestamp))

    @property
    def key(self) -> ObjectKey:
        """The object's namespace and name."""
        return ObjectKey(self.namespace, self.name)


class Condition(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """metav1.Condition: one aspect of an object's state, with a reason for programs and a message for people.

    Every field is encoded, even if it is empty, because the schema of a condition requires it. Only the type
    and the status are required for decoding: an earlier operator may have stored conditions without the
    others (`pilothouse.api.LenientCondition`).

    Attributes:
        last_transition_time: When the status last changed. The start of 1970 if the object has no such time.
    """

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: datetime = EPOCH
    observed_generation: int = 0

    def __post_init__(self) -> None:
        # Not in a loop, for speed: ten thousand conditions may be decoded at start-up.
        force_setattr(self, "type", intern(self.type))
        force_setattr(self, "status", intern(self.status))
        force_setattr(self, "reason", intern(self.reason))
        force_setattr(self, "last_transition_time", _shared_time(self.last_transition_time))


class KubeObject(Protocol):
    """The protocol of views: every view has metadata. The other fields are up to the view."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    @property
    def metadata(self) -> ObjectMeta:
        """The object's metadata."""


class PartialObjectMetadata(msgspec.Struct, frozen=True, gc=False):
    """The view of a controller that reads only metadata, for example of owned objects."""

    metadata: ObjectMeta


class Unstructured:
    """A view that contains the whole object as decoded JSON, for fields that are not known in advance.

    It is for single reads and patches. Informers need a Struct.

    Attributes:
        content: The object. Do not change it.
        metadata: The object's metadata.
    """

    __slots__ = ("content", "metadata")
    __struct_fields__: ClassVar[tuple[str, ...]] = ("metadata", "content")

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.metadata = msgspec.convert(content.get("metadata", {}), ObjectMeta)


def version(obj: KubeObject) -> int:
    """Returns the object's resourceVersion as an integer (KEP-5504), or 0 if it is opaque; see `ordered`."""
    return ordered(obj.metadata.resource_version)


def ordered(resource_version: str) -> int:
    """Returns a resourceVersion as an integer, or 0 if it is missing or opaque, and so has no order.

    The versions of objects in etcd are ordered integers (KEP-5504). Aggregated API servers may use any text,
    or no version.
    """
    if resource_version.isdecimal() and resource_version.isascii() and len(resource_version) < _LONGEST:
        return int(resource_version)
    return 0
