"""How a client reaches a kind, and the view that its objects are decoded into."""

import re
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from pilothouse.kube.objects import KubeObject, PartialObjectMetadata, Unstructured

T = TypeVar("T", bound=KubeObject)

#: Matches nearly every name. Names of RBAC objects may contain colons.
_PLAIN = re.compile(r"[-.:_a-zA-Z0-9]+", re.ASCII).fullmatch


def require_flags(where: str, **flags: object) -> None:
    """Refuses flags that are neither True nor False: the text "no" counts as true, and None as false.

    Args:
        where: The function or class, for the error: "Client.patch".
        flags: The values by the names of their arguments.

    Raises:
        TypeError: A value is something else, such as a text, a number or None.
    """
    for name, value in flags.items():
        if value is not True and value is not False:
            raise TypeError(f"{where}: {name} is {reprlib.repr(value)}, but must be True or False")


def require_no_duplicates(where: str, shown: Callable[[Any], str], **values: Sequence[object]) -> None:
    """Refuses an item that a list has twice.

    Args:
        where: What has the lists, for the error: "Kind WebSite".
        shown: Returns the text of an item, for the error.
        values: The lists by the names of their arguments.

    Raises:
        TypeError: A list has an item twice.
    """
    for name, items in values.items():
        for number, each in enumerate(items):
            if each in items[:number]:
                raise TypeError(f"{where}: {name} contains {shown(each)} twice. Name it once.")


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A kind that the API server serves, and the *view* that its objects are decoded into.

    Two resources of the same kind may have different views. Each decodes and keeps only the fields of its
    view. With a view of only the metadata, such as `PartialObjectMetadata`, the API server sends only the
    metadata.

    Attributes:
        group: The API group. Empty for the core group.
        version: The API version, such as `v1`.
        kind: The kind, such as `FlightTicket`.
        plural: The name in paths, such as `flighttickets`.
        view: The msgspec Struct that objects are decoded into, with `metadata: ObjectMeta`. For an informer,
            it and the Structs in it must be frozen, because all readers of a store share its objects. For the
            same reason, do not change mappings and lists in it; `msgspec.structs.replace` creates a copy.
        namespaced: Whether objects of the kind are namespaced.
        declared: Whether the operator declares the kind: set for the resource of a `pilothouse.api.Kind`. The
            operator then writes its status by default; see `pilothouse.playbook.Watch`. It is not compared.

    Raises:
        TypeError: A flag is not True or False.
    """

    group: str
    version: str
    kind: str
    plural: str
    view: type[T]
    namespaced: bool = True
    declared: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        require_flags(f"Resource {self.kind}", namespaced=self.namespaced, declared=self.declared)

    @property
    def api_version(self) -> str:
        """The group and version as in an object's apiVersion, such as `flights.com/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def metadata_only(self) -> bool:
        """Whether the view has only metadata. Then the API server sends only the metadata."""
        return self.view.__struct_fields__ == ("metadata",)

    def partial(self) -> "Resource[PartialObjectMetadata]":
        """Returns the same kind with a view of only the metadata, for objects that are applied, not read."""
        return Resource(
            self.group, self.version, self.kind, self.plural, PartialObjectMetadata, self.namespaced
        )

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Returns the path of the collection, of an object, or of an object's subresource.

        Args:
            namespace: The object's namespace. Empty for a cluster-scoped kind, and for a collection in all
                namespaces.
            name: The object's name. Empty for the collection.
            subresource: A subresource, such as `status`. It requires a name.

        Raises:
            ValueError: The arguments contradict each other, or one is not valid in a path.
        """
        if namespace and not self.namespaced:
            raise ValueError(f"{self} is cluster-scoped, so it has no objects in namespace {namespace!r}")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self} is namespaced, so {name!r} needs a namespace")
        if subresource and not name:
            raise ValueError(f"subresource {subresource!r} of {self} needs an object's name")
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
    """Returns the same kind with the view `Unstructured`."""
    kind, plural = resource.kind, resource.plural
    return Resource(resource.group, resource.version, kind, plural, Unstructured, resource.namespaced)


def can_be_name(value: str) -> bool:
    """Whether an object can have this name, by the API server's rule for names in paths.

    The rule is apimachinery's (api/validation/path). Other texts could change the path of a request.
    """
    return value not in (".", "..") and "/" not in value and "%" not in value


def _segment(value: str) -> str:
    if not can_be_name(value):
        raise ValueError(
            f"{value!r} is not a valid name: a name must not contain '/' or '%', or be '.' or '..'"
        )
    # Other characters with a meaning in URLs, such as '?', are escaped.
    return value if _PLAIN(value) else quote(value, safe=":", errors="replace")


def not_served(resource: Resource[Any]) -> str:
    """Returns what a user reads when the API server does not know a kind."""
    return (
        f"the API server does not serve {resource} in version {resource.version}; "
        "install its CustomResourceDefinition, or check which versions it serves"
    )
