"""The indexes that a watch declares: mistakes in them, and lookups that would miss an object."""

from collections.abc import Collection, Hashable, Mapping
from typing import Any

from pilothouse.informer import Store
from pilothouse.kube import ObjectKey, Resource
from pilothouse.playbook.arguments import require_plain_function, require_text, shown
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.tasks import TaskFailed

INDEX_FAILED = "IndexFailed"
"""The reason of the condition Ready and of Events: an index function failed for an object."""


def require_indexes(where: str, indexes: object) -> None:
    """Refuses indexes that are not functions of an object, by name.

    Args:
        where: What declares them, for the error: "the Secondary of secrets".
        indexes: The indexes.

    Raises:
        PlaybookError: The text names the index.
    """
    if not isinstance(indexes, Mapping):
        raise PlaybookError(
            f"{where}: indexes is {shown(indexes)}, but must be a mapping from names to functions: "
            'indexes={"secret": function}'
        )
    for name, values in indexes.items():
        require_text(name, f"{where}: the name of an index")
        require_plain_function(values, f"{where}: the index {name!r}", "an object")


def require_index(resource: Resource[Any], index: object, known: Collection[str], declare: str) -> None:
    """Refuses the name of an index that does not exist.

    Args:
        resource: The kind.
        index: The name.
        known: The names of the kind's indexes.
        declare: How to declare it: "Secondary(CONFIG_MAP, indexes={...})".

    Raises:
        PlaybookError: There is no such index. The text names those that exist.
    """
    if isinstance(index, str) and index in known:
        return
    names = ", ".join(map(repr, sorted(known))) or "none"
    raise PlaybookError(
        f"the watch has no index {shown(index)} of {resource}. Its indexes are: {names}. Correct the name, "
        f"or declare the index: {declare}."
    )


def require_hashable(value: object, index: str) -> None:
    """Refuses a value that no index can contain, such as a list.

    Raises:
        PlaybookError: The value is not hashable.
    """
    if not isinstance(value, Hashable):
        raise PlaybookError(
            f"the value for the index {index!r} is {shown(value)}, but must be one value, such as text"
        )


def require_complete(resource: Resource[Any], index: str, store: Store[Any]) -> None:
    """Refuses to read an index that lacks an object, because its function failed.

    Raises:
        TaskFailed: IndexFailed: There is such an object.
    """
    for key in store.index_failures(index):
        raise TaskFailed(INDEX_FAILED, _incomplete(resource, index, key, store))


def index_failure(resource: Resource[Any], key: ObjectKey, store: Store[Any]) -> TaskFailed | None:
    """Returns the failure to report on an object that an index lacks; None if all indexes have it."""
    for index in store.indexes:
        if key in store.index_failures(index):
            # The function depends on the object alone, so it fails again until the object changes.
            return TaskFailed(INDEX_FAILED, _incomplete(resource, index, key, store), permanent=True)
    return None


def _incomplete(resource: Resource[Any], index: str, key: ObjectKey, store: Store[Any]) -> str:
    return (
        f"The index {index!r} lacks {resource.kind} {key}, because the index function failed for it: "
        f"{store.index_failures(index)[key]}. The operator's log has the details. Correct the function: it "
        "must return a list of values for every object."
    )
