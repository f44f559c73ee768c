"""Where a kind lives in the API, and the type that its objects are read into."""

import re
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from pilothouse.kube.objects import KubeObject, PartialObjectMetadata, Unstructured

T = TypeVar("T", bound=KubeObject)

#: Nearly every name; RBAC's have colons, too.
_PLAIN = re.compile(r"[-.:_a-zA-Z0-9]+", re.ASCII).fullmatch


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A kind as the API server serves it, and the *view* of it that a controller reads.

    Two resources of one kind may have different views; each decodes and keeps only what its view declares.
    With a view of the metadata alone, such as `PartialObjectMetadata`, only that is sent.

    Attributes:
        group: the API group, empty for the core group.
        version: the API version, such as `v1`.
        kind: the kind, such as `FlightTicket`.
        plural: its name in paths, such as `flighttickets`.
        view: the msgspec Struct that its objects are decoded into; has `metadata: ObjectMeta`. It and the
            Structs in it are frozen, or no informer takes it: what a store holds is read by reference. So
            mappings and lists in it must not be changed either; `msgspec.structs.replace` makes another.
        namespaced: whether its objects live in namespaces.
    """

    group: str
    version: str
    kind: str
    plural: str
    view: type[T]
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as objects carry them, such as `flights.com/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def metadata_only(self) -> bool:
        """Whether the view reads nothing but metadata: then the server sends nothing else."""
        return self.view.__struct_fields__ == ("metadata",)

    def partial(self) -> "Resource[PartialObjectMetadata]":
        """Return the same kind in a view of the metadata alone, for objects that are applied and not read."""
        return Resource(
            self.group, self.version, self.kind, self.plural, PartialObjectMetadata, self.namespaced
        )

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Return the path of the collection, of one object in it, or of an object's subresource.

        Args:
            namespace: the object's namespace; empty means all namespaces for a collection, and is the only
                choice for a cluster-scoped kind.
            name: the object's name; empty for the collection.
            subresource: such as `status`; needs a name.

        Raises:
            ValueError: when the parts do not fit each other or could not be one segment of a path.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self} is cluster-scoped: it has no objects in namespace {namespace!r}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self} {name!r} needs a namespace: objects of this kind live in namespaces")
        if subresource and not name:
            raise ValueError(f"subresource {subresource!r} needs the name of a {self}")
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        path = (
            f"{root}/namespaces/{_segment(namespace)}/{self.plural}" if namespace else f"{root}/{self.plural}"
        )
        if name:
            path += f"/{_segment(name)}"
        return f"{path}/{subresource}" if subresource else path

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def unstructured(resource: Resource[T]) -> Resource[Unstructured]:
    """Returns the same kind, read as JSON has it."""
    kind, plural = resource.kind, resource.plural
    return Resource(resource.group, resource.version, kind, plural, Unstructured, resource.namespaced)


def can_be_name(value: str) -> bool:
    """Whether an object may have this name, by the API server's own rule for names in paths.

    The rule is apimachinery's (api/validation/path): anything else could escape its segment of the path.
    """
    return value not in (".", "..") and "/" not in value and "%" not in value


def _segment(value: str) -> str:
    if not can_be_name(value):
        raise ValueError(
            f"{value!r} cannot be a name: names do not contain '/' or '%', and are not '.' or '..'"
        )
    # What is left may mean something in a URL: a '?' in a name begins no query.
    return value if _PLAIN(value) else quote(value, safe=":", errors="replace")
