"""Which changes of an object are worth a sync."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from pilothouse.kube import KubeObject

T = TypeVar("T", bound=KubeObject)

Predicate: TypeAlias = Callable[[T | None, T | None], bool]
"""Told the old and the new version of an object (None: not there yet, deleted), says whether to sync it."""


def meaningful_change(old: KubeObject | None, new: KubeObject | None) -> bool:
    """What a person, or another controller, changed: spec, deletion, finalizers or annotations.

    A write of status alone changes none of them. A completed deletion is of no interest either: what has to
    be done before it is what finalizers are for.
    """
    if new is None:
        return False
    if old is None:
        return True
    before, after = old.metadata, new.metadata
    return (
        before.generation != after.generation
        or before.deletion_timestamp != after.deletion_timestamp
        or before.finalizers != after.finalizers
        or before.annotations != after.annotations
        or before.uid != after.uid
    )
