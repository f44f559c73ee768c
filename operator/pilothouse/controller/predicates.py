"""Which changes of an object are worth a sync.

Predicates speak of changes: an object that appears or vanishes passes each of them. A controller does not ask
about the end of its own kind's objects: what has to be done before it is what finalizers are for.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from pilothouse.kube import KubeObject

T = TypeVar("T", bound=KubeObject)

Predicate: TypeAlias = Callable[[T | None, T | None], bool]
"""Told the old and the new version of an object (None: not there yet, deleted), says whether to sync it."""


def any_change(old: KubeObject | None, new: KubeObject | None) -> bool:
    """Whatever happened."""
    return True


def generation_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """What changes metadata.generation: the spec, and the request to delete; for kinds that count it."""
    return old is None or new is None or old.metadata.generation != new.metadata.generation


def labels_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """A change of labels."""
    return old is None or new is None or old.metadata.labels != new.metadata.labels


def annotations_changed(old: KubeObject | None, new: KubeObject | None) -> bool:
    """A change of annotations."""
    return old is None or new is None or old.metadata.annotations != new.metadata.annotations


def any_of(*predicates: Predicate[T]) -> Predicate[T]:
    """Return the predicate that passes what one of these passes."""
    return lambda old, new: any(predicate(old, new) for predicate in predicates)


def meaningful_change(old: KubeObject | None, new: KubeObject | None) -> bool:
    """What a person, or another controller, changed: spec, deletion, finalizers or annotations.

    A write of status alone changes none of them.
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
