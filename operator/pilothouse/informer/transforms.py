"""Functions that remove unneeded parts of objects before they are stored."""

from typing import Any, TypeVar, cast

from msgspec.structs import replace

from pilothouse.kube import EMPTY, KubeObject

T = TypeVar("T", bound=KubeObject)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation in which `kubectl apply` keeps a copy of the whole manifest."""


def drop_last_applied(obj: T) -> T:
    """Returns the object without the annotation in which `kubectl apply` keeps a copy of the manifest.

    Only kubectl reads this annotation. It is often the largest part of an object. It also changes with every
    apply, so irrelevant changes would look like changes of annotations.
    """
    metadata = obj.metadata
    if LAST_APPLIED not in metadata.annotations:
        return obj
    others = {name: value for name, value in metadata.annotations.items() if name != LAST_APPLIED}
    kept = replace(metadata, annotations=others or EMPTY)
    return cast("T", replace(cast("Any", obj), metadata=kept))
