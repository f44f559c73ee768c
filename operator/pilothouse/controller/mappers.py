"""Mappers: which objects to reconcile when an object of another kind changes."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from pilothouse.kube import KubeObject, ObjectKey, Resource

T = TypeVar("T", bound=KubeObject)

Mapper: TypeAlias = Callable[[T], Iterable[ObjectKey]]
"""Returns the keys of the objects to reconcile when the given object changes."""


def owner_mapper(owner: Resource[Any]) -> Mapper[KubeObject]:
    """Returns a mapper to the controlling owner of an object, if that owner is of the given kind.

    Kind and group must match. The version is ignored: a reference may use another version than the watch.

    Args:
        owner: The owner's kind.
    """

    def owners(obj: KubeObject) -> Iterable[ObjectKey]:
        for reference in obj.metadata.owner_references:
            if reference.controller and reference.kind == owner.kind:
                group = reference.api_version.rpartition("/")[0]
                if group == owner.group:
                    return (ObjectKey(obj.metadata.namespace if owner.namespaced else "", reference.name),)
        return ()

    return owners
