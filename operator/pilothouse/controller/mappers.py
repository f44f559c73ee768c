"""From an object of a secondary kind to the keys that its change concerns."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from pilothouse.kube import KubeObject, ObjectKey, Resource

T = TypeVar("T", bound=KubeObject)

Mapper: TypeAlias = Callable[[T], Iterable[ObjectKey]]
"""Returns the keys of the objects that have to be synced when this one changes."""


def owner_mapper(owner: Resource[Any]) -> Mapper[KubeObject]:
    """Return the mapper to an object's controlling owner, if that is of this kind.

    Kind and group have to be the owner's; the version does not matter, as a reference may name another one
    than is watched.
    """

    def owners(obj: KubeObject) -> Iterable[ObjectKey]:
        for reference in obj.metadata.owner_references:
            if reference.controller and reference.kind == owner.kind:
                group = reference.api_version.rpartition("/")[0]
                if group == owner.group:
                    return (ObjectKey(obj.metadata.namespace if owner.namespaced else "", reference.name),)
        return ()

    return owners
