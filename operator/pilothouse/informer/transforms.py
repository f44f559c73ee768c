"""What is taken off objects before they are stored."""

from typing import Any, TypeVar, cast

from msgspec.structs import replace

from pilothouse.kube import EMPTY, KubeObject

T = TypeVar("T", bound=KubeObject)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The whole object once more, as `kubectl apply` was given it."""


def drop_last_applied(obj: T) -> T:
    """Return the object without `kubectl apply`'s copy of it.

    Only kubectl reads that annotation. It is often the largest part of an object, and it changes with every
    apply, so that it also makes changes of no interest look like ones of annotations.
    """
    metadata = obj.metadata
    if LAST_APPLIED not in metadata.annotations:
        return obj
    others = {name: value for name, value in metadata.annotations.items() if name != LAST_APPLIED}
    kept = replace(metadata, annotations=others or EMPTY)
    return cast("T", replace(cast("Any", obj), metadata=kept))
