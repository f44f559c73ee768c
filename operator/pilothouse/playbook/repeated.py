"""Describes writes that repeat, for people: which tasks make them, and which tasks undo each other's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from pilothouse.controller.written import APPLY, DELETE, PATCH, Written
from pilothouse.playbook.arguments import enumerated

NAMED = 3
# Of one object, only so many different writes are compared with each other.
COMPARED = 16

# Preconditions and identity, which are no content.
_IDENTITY = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "resourceVersion"),
    ("metadata", "uid"),
}

Path = tuple[str, ...]


class Opposed(NamedTuple):
    """Writes of the operator's own tasks that undo each other.

    Attributes:
        target: The object: "configmaps default/web".
        tasks: The names of the tasks. Only one if a task undoes its own writes.
        fields: The paths of the fields; empty if the whole object is created and deleted.
    """

    target: str
    tasks: Sequence[str]
    fields: Sequence[str]

    @property
    def what(self) -> str:
        """The fields and the object: "data.greeting of configmaps default/web"."""
        return f"{different(self.fields)} of {self.target}" if self.fields else self.target


def named(writes: Iterable[Written]) -> str:
    """Returns the writes with their tasks: "apply configmaps default/web by the task 'greet'"."""
    return different(
        [f"{each.what} by the task {each.task!r}" if each.task else each.what for each in writes]
    )


def different(names: Iterable[str]) -> str:
    """Returns the first different names, and the number of the others."""
    return enumerated(list(dict.fromkeys(names)), NAMED)


def opposed(writes: Iterable[Written]) -> Opposed | None:
    """Returns the first object that tasks write with contents that undo each other, or None."""
    by_object: dict[str, dict[tuple[str, bytes], Written]] = {}
    for each in writes:
        if each.task and each.where and each.verb in (APPLY, PATCH, DELETE):
            target = f"{str(each.target).partition('/')[0]} {each.where}"
            compared = by_object.setdefault(target, {})
            if len(compared) < COMPARED:
                compared.setdefault((each.task, each.digest), each)
    for target, compared in by_object.items():
        tasks: dict[str, None] = {}
        fields: dict[str, None] = {}
        for one, other in combinations(compared.values(), 2):
            found = _undone(one, other)
            if found is not None:
                tasks |= dict.fromkeys((one.task, other.task))
                fields |= dict.fromkeys(found)
        if tasks:
            return Opposed(target, list(tasks), list(fields))
    return None


def _undone(one: Written, other: Written) -> Sequence[str] | None:
    """Returns the fields in which two writes undo each other; None if they do not.

    A delete undoes an apply as a whole, which has no fields.
    """
    verbs = {one.verb, other.verb}
    if DELETE in verbs:
        return () if APPLY in verbs else None
    if not (isinstance(one.body, Mapping) and isinstance(other.body, Mapping)):
        return None
    left, right = dict(_leaves(one.body, ())), dict(_leaves(other.body, ()))
    paths = {path for path in {**left, **right} if left.get(path) != right.get(path)}
    if verbs != {APPLY}:
        # A patch changes only the fields that it states, and what is below them.
        paths = {path for path in paths if _within(path, left) and _within(path, right)}
    # An apply also removes the fields that the last one of the same manager stated.
    return sorted(".".join(path) for path in paths) or None


def _within(path: Path, leaves: Mapping[Path, object]) -> bool:
    """Returns whether a field, or one that contains it, is among the given ones."""
    return any(path[:length] in leaves for length in range(1, len(path) + 1))


def _leaves(value: object, path: Path) -> Iterator[tuple[Path, object]]:
    """Yields the fields of a manifest or a patch with their values, without its identity."""
    if path in _IDENTITY:
        return
    if isinstance(value, Mapping) and (value or not path):
        for name, each in value.items():
            yield from _leaves(each, (*path, name))
    else:
        yield path, value
