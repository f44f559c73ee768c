"""The cluster as the modules of a play use it: the API, the stores of the watch, and the memory of objects.

The modules that use it are in `pilothouse.playbook.apply` and `pilothouse.playbook.actions`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from pilothouse.controller import Fence
from pilothouse.informer import Informer, Store
from pilothouse.kube import Api, KubeObject, Misfit, ObjectKey, ObjectMeta, Resource, pod_log
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.contention import Contention
from pilothouse.playbook.indexes import require_complete, require_hashable, require_index
from pilothouse.playbook.memory import Memory
from pilothouse.playbook.ownership import controller_of, owner_uid
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

Wrote: TypeAlias = Callable[[ObjectKey, Informer[Any], Any], None]

OWNER = "owner"
"""The index of the watched kinds by the UID of the owner."""

# The length of a chain of controllers: a Pod of a CronJob needs two. The limit also ends a circle.
_CONTROLLERS = 5


class Cluster:
    """The part of the cluster that the modules of all plays of a playbook share.

    Attributes:
        api: The client for the API server. The fence guards its writes.
        fence: Stops changes of outside systems once this process may have lost its Lease.
        owner: The kind that the playbook reconciles.
        manager: The field manager of all applies: the name of the operator.
        namespaces: The namespaces that the operator watches; empty: all.
        memory: The manifests that objects were last seen to match.
        contention: The fights with other clients over objects.
        wrote: Called after each write for an object, with the key of the object, the informer of the written
            kind, and the result of the write.

    Args:
        api: The client for the API server.
        fence: The fence of this process.
        owner: The kind that the playbook reconciles.
        manager: The field manager.
        informers: The informers of the kinds that the playbook reads and changes.
        namespaces: The namespaces that the operator watches; empty: all.
        wrote: The attribute of this name. `OwnWrites.wrote_secondary` also makes the key wait until the watch
            has shown the write. Default: the informer's store takes the written object.
        owners: The store of the reconciled kind, which shows whether an object was deleted with its owner.
    """

    def __init__(
        self,
        api: Api,
        fence: Fence,
        owner: Resource[Any],
        *,
        manager: str,
        informers: Sequence[Informer[Any]] = (),
        namespaces: Sequence[str] = (),
        wrote: Wrote | None = None,
        owners: Store[Any] | None = None,
    ) -> None:
        self.api = api
        self.fence = fence
        self.owner = owner
        self.manager = manager
        self.namespaces = namespaces
        self.memory = Memory()
        self.contention = Contention()
        self.wrote: Wrote = wrote or _observe
        self._owners = owners
        if owners is not None:
            owners.add_handler(self._owner_gone)
        self._informers = {_kind(informer.resource): informer for informer in informers}
        for informer in self._informers.values():
            informer.add_handler(partial(self._forget, str(informer.resource)))

    def store(self, resource: Resource[K]) -> Store[K]:
        """Returns the store of a kind that the watch declares.

        Raises:
            PlaybookError: The watch does not declare the kind.
        """
        return self.informer(resource).store

    def by_index(self, resource: Resource[K], index: str, value: object) -> Sequence[K]:
        """Returns the objects of a kind that have a value in an index.

        Raises:
            PlaybookError: The watch does not declare the kind or the index, or the value cannot be one.
            TaskFailed: IndexFailed: The index function failed for an object of the kind.
        """
        store = self.store(resource)
        require_index(resource, index, store.indexes, "Secondary(..., indexes={...})")
        require_hashable(value, index)
        require_complete(resource, index, store)
        return store.by_index(index, value)

    def require_readable(self, resource: Resource[Any], concerns: Callable[[ObjectMeta], bool]) -> None:
        """Refuses to read a kind while an object that concerns the caller does not match the view.

        The last known state of the object is out of date. A task that took it for missing could create or
        delete objects that belong to it.

        Args:
            resource: The kind.
            concerns: Returns whether an object with this metadata concerns the caller.

        Raises:
            TaskFailed: Undecodable: There is such an object.
        """
        for misfit in self.store(resource).misfits:
            if concerns(misfit.metadata):
                raise unreadable(resource, misfit)

    def seen(self, resource: Resource[Any], key: ObjectKey) -> ObjectMeta | None:
        """Returns the last seen metadata of an object; None if the watch does not show the object.

        An object that does not match the view is shown, too.

        Raises:
            PlaybookError: The watch does not declare the kind.
        """
        store = self.store(resource)
        if misfit := store.misfit(key):
            return misfit.metadata
        found = store.get(key)
        return None if found is None else found.metadata

    def may_hide(self, resource: Resource[Any], key: ObjectKey) -> bool:
        """Returns whether an object may exist although the watch does not show it.

        The watch shows only the objects that its selectors match, in the watched namespaces.
        """
        informer = self.informer(resource)
        return bool(informer.label_selector or informer.field_selector) or not self.watches(resource, key)

    def watches(self, resource: Resource[Any], key: ObjectKey) -> bool:
        """Returns whether an object is in a watched namespace, or its kind has no namespace."""
        return not (resource.namespaced and self.namespaces) or key.namespace in self.namespaces

    def informer(self, resource: Resource[K]) -> Informer[K]:
        """Returns the informer of a kind that the watch declares.

        Raises:
            PlaybookError: The watch does not declare the kind.
        """
        informer = self._informers.get(_kind(resource))
        if informer is None:
            raise PlaybookError(
                f"the Watch of {self.owner} does not declare {resource}: add it to `owns` or `watches`"
            )
        return cast("Informer[K]", informer)

    def declares(self, group: str, kind: str) -> bool:
        """Returns whether the watch declares a kind."""
        return (group, kind) in self._informers

    def belongs(self, metadata: ObjectMeta, owner: ObjectMeta) -> bool:
        """Returns whether an object belongs to another one, directly or through other objects.

        A Pod that is controlled by a ReplicaSet belongs to the owner of the Deployment that controls the
        ReplicaSet, if the watch declares ReplicaSets and Deployments.
        """
        for _ in range(_CONTROLLERS):
            if owner_uid(metadata) == owner.uid:
                return True
            controller = self._controller(metadata)
            if controller is None:
                return False
            metadata = controller
        return False

    def _controller(self, metadata: ObjectMeta) -> ObjectMeta | None:
        """Returns the metadata of an object's controller, if it is in a store."""
        reference = controller_of(metadata)
        if reference is None:
            return None
        informer = self._informers.get((reference.api_version.rpartition("/")[0], reference.kind))
        if informer is None:
            return None
        namespace = metadata.namespace if informer.resource.namespaced else ""
        found = self.seen(informer.resource, ObjectKey(namespace, reference.name))
        return found if found is not None and found.uid == reference.uid else None

    async def pod_log(self, key: ObjectKey, *, container: str, tail_lines: int | None) -> str:
        """Reads the log of a pod's container.

        Raises:
            KubeError: The container has not started, or the API server refused the request or is unreachable.
        """
        return await pod_log(self.api, key, container=container, tail_lines=tail_lines)

    def _forget(self, kind: str, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        """Forgets a deleted object. A handler of an informer."""
        if new is None and old is not None:
            if not self._has_owner(old.metadata):
                # The garbage collector or the cleanup has deleted it together with its owner.
                self.memory.forget(kind, old.metadata.key)
            self.memory.gone(kind, old.metadata.key)
            self.memory.forget(f"{kind}/scale", old.metadata.key)

    def _owner_gone(self, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        if new is None and old is not None:
            self.memory.owner_gone(old.metadata.uid)

    def _has_owner(self, metadata: ObjectMeta) -> bool:
        """Returns whether an object's controller exists and is not being deleted, as far as is known."""
        controller = controller_of(metadata)
        if controller is None or self._owners is None or controller.kind != self.owner.kind:
            return True
        namespace = metadata.namespace if self.owner.namespaced else ""
        owner = self._owners.get(ObjectKey(namespace, controller.name))
        if owner is None or owner.metadata.uid != controller.uid:
            return False
        return bool(owner.metadata.deletion_timestamp is None)


def unreadable(resource: Resource[Any], misfit: Misfit) -> TaskFailed:
    """Returns the failure for an object that does not match the view."""
    what = f"{resource.kind} {misfit.metadata.key}"
    return TaskFailed("Undecodable", f"The operator cannot read {what}: {misfit.why}.")


def _observe(key: ObjectKey, informer: Informer[Any], written: Any) -> None:
    informer.store.observe(written)


def _kind(resource: Resource[Any]) -> tuple[str, str]:
    return resource.group, resource.kind
