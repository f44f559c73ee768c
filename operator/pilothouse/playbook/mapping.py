"""Mappers: which reconciled objects a change of another object concerns, found in the stores of a watch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

from pilothouse.controller import Predicate
from pilothouse.informer import IndexFunc, Informer, Store
from pilothouse.kube import KubeObject, ObjectKey, Resource, hide_contents, holds_secrets
from pilothouse.playbook.arguments import require_plain_function, require_resource, shown
from pilothouse.playbook.awaited import PlaybookError, require_awaited
from pilothouse.playbook.indexes import require_hashable, require_index

K = TypeVar("K", bound=KubeObject)


class Stores:
    """The objects that a watch reads, as its mappers see them: without a request, and as last seen.

    Attributes:
        watched: The kind that is reconciled.

    Args:
        watched: See the attribute.
        store: The objects of that kind.
        indexes: The names of the indexes that the watch declares for it.
        others: The informers of the other kinds.
    """

    def __init__(
        self,
        watched: Resource[Any],
        store: Store[Any],
        indexes: Iterable[str] = (),
        others: Sequence[Informer[Any]] = (),
    ) -> None:
        self.watched = watched
        self._store = store
        self._indexes = frozenset(indexes)
        self._others = {_kind(each.resource): each.store for each in others}

    def get(self, resource: Resource[K], name: str, *, namespace: str = "") -> K | None:
        """Returns an object; None if it does not exist.

        Raises:
            PlaybookError: The watch does not declare the kind.
        """
        require_resource(resource, "stores.get")
        key = ObjectKey(namespace if resource.namespaced else "", name)
        found = self._of(resource, declared=_kind(resource) != _kind(self.watched)).get(key)
        if found is not None:
            hide_contents(resource, found)
        return found

    def list(self, resource: Resource[K], index: str, value: object) -> Sequence[K]:
        """Returns the objects of a kind that have a value in an index of the watch.

        An object for which the index function failed is missing. An Event about that object reports this.

        Raises:
            PlaybookError: The watch does not declare the kind or the index.
        """
        require_resource(resource, "stores.list")
        own = _kind(resource) == _kind(self.watched)
        if own and (index in self._indexes or _kind(resource) not in self._others):
            require_index(resource, index, self._indexes, "Watch(..., indexes={...})")
            store: Store[K] = self._store
        else:
            store = self._of(resource, declared=True)
            require_index(resource, index, store.indexes, "Secondary(..., indexes={...})")
        require_hashable(value, index)
        found = store.by_index(index, cast("Any", value))
        for each in found if holds_secrets(resource) else ():
            hide_contents(resource, each)
        return found

    def _of(self, resource: Resource[K], *, declared: bool) -> Store[K]:
        """The store of the reconciled kind, or of a kind that is declared besides."""
        if not declared:
            return self._store
        store = self._others.get(_kind(resource))
        if store is None:
            raise PlaybookError(
                f"{resource} is not declared. Add it to `owns` or `watches` of the Watch of {self.watched}."
            )
        return store


Mapper: TypeAlias = Callable[[K, Stores], Iterable[ObjectKey]]
"""Returns the keys of the reconciled objects that a change of this object concerns.

It is called with the object and the stores of the watch: of a changed object with the old and the new state,
of a deleted one with the last state. It does not need to find objects that appear later: they are reconciled
when they appear."""


@dataclass(frozen=True)
class ByIndex:
    """The mapper that `by_index` returns.

    Attributes:
        index: The name of an index of the reconciled kind.
    """

    index: str

    def __call__(self, obj: KubeObject, stores: Stores) -> Iterable[ObjectKey]:
        """Returns the keys of the reconciled objects that refer to an object."""
        found = dict.fromkeys(
            each.metadata.key for each in stores.list(stores.watched, self.index, obj.metadata.key)
        )
        namespace = obj.metadata.namespace
        for each in stores.list(stores.watched, self.index, obj.metadata.name):
            if not (namespace and each.metadata.namespace) or each.metadata.namespace == namespace:
                found[each.metadata.key] = None
        return found


def by_index(index: str) -> ByIndex:
    """Returns a mapper from an object to the reconciled objects that refer to it.

    The index holds what each reconciled object refers to: names of objects in its own namespace (or of
    cluster-scoped objects), or an `ObjectKey` for an object in another namespace.

        Watch(
            GREETER,
            PLAYBOOK,
            indexes={"secret": lambda greeter: [greeter.spec.secret_name]},
            watches=[Secondary(SECRET, mapper=by_index("secret"))],
        )

    Args:
        index: The name of an index that the Watch declares in `indexes`.
    """
    return ByIndex(index)


def index_changed(indexes: Mapping[str, IndexFunc[Any]]) -> Predicate[Any]:
    """Returns the predicate that passes a change of what an object refers to.

    A playbook may set that itself, in the status. What it then refers to may have changed before the index
    showed it, when no mapper could find the object.
    """

    def changed(old: KubeObject | None, new: KubeObject | None) -> bool:
        if old is None or new is None:
            return False
        return any(_values(values, old) != _values(values, new) for values in indexes.values())

    return changed


def require_mapper(mapper: Callable[..., Any], resource: Resource[Any]) -> None:
    """Refuses a mapper that cannot be called with an object and the stores.

    Raises:
        PlaybookError: It cannot, or it is an async function.
    """
    what = f"the mapper of the Secondary of {resource}"
    require_plain_function(mapper, what, "the object", "the stores of the watch")


def mapped_keys(found: object, watched: Resource[Any]) -> list[ObjectKey]:
    """Returns the keys that a mapper has found.

    Args:
        found: What the mapper returned.
        watched: The reconciled kind.

    Raises:
        PlaybookError: The mapper returned something else than ObjectKeys.
    """
    require_awaited(found, "what the mapper returned")
    # A text and an ObjectKey can be iterated, too.
    if isinstance(found, Iterable) and not isinstance(found, str | ObjectKey):
        keys = list(found)
        wrong = [each for each in keys if not isinstance(each, ObjectKey)]
        if not wrong:
            return keys
        found = wrong[0]
    raise PlaybookError(
        f"it returned {'a single ObjectKey' if isinstance(found, ObjectKey) else shown(found)}, but must "
        f"return a list of the ObjectKeys of {watched}, such as [ObjectKey(obj.metadata.namespace, name)]."
    )


def _values(values: IndexFunc[Any], obj: KubeObject) -> frozenset[object]:
    try:
        return frozenset(values(obj))
    except Exception:
        return frozenset()  # The store logs it and holds the object under no value.


def _kind(resource: Resource[Any]) -> tuple[str, str]:
    return resource.group, resource.kind
