"""Predicates: which changes of an object cause a reconcile.

An object that appears or vanishes passes every predicate. A controller calls none when an object of its own
kind vanishes: work that must happen before a deletion belongs behind a finalizer.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from pilothouse.kube import KubeObject

T = TypeVar("T", bound=KubeObject)

Predicate: TypeAlias = Callable[[T | None, T | None], bool]
"""Returns whether a change from the old object (None: created) to the new one (None: deleted) counts."""


def any_change(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Passes every change."""
    return True


def generation_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Passes changes of metadata.generation: of the spec and, once, the request to delete."""
    return old is None or new is None or old.metadata.generation != new.metadata.generation


def labels_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Passes changes of labels."""
    return old is None or new is None or old.metadata.labels != new.metadata.labels


def annotations_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Passes changes of annotations."""
    return old is None or new is None or old.metadata.annotations != new.metadata.annotations


def any_of(*predicates: Predicate[T]) -> Predicate[T]:
    """Returns a predicate that passes the changes that at least one of the given predicates passes."""
    return lambda old, new: any(predicate(old, new) for predicate in predicates)


def meaningful_change(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Passes changes that a user or another controller made: of spec, deletion, finalizers or annotations.

    It does not pass a change of the status only.
    """
    if old is None or new is None:
        return True
    before, after = old.metadata, new.metadata
    return (
        before.generation != after.generation
        or before.deletion_timestamp != after.deletion_timestamp
        or before.finalizers != after.finalizers
        or before.annotations != after.annotations
        or before.uid != after.uid
    )
