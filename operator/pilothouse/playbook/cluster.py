"""The cluster as a play's modules reach it: the stores of what the watch declares, and what is known of them.

What the modules do with it: `pilothouse.playbook.apply` and `pilothouse.playbook.actions`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from pilothouse.controller import Fence
from pilothouse.informer import Informer, Store
from pilothouse.kube import Api, KubeObject, ObjectKey, ObjectMeta, Resource, pod_log
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.contention import Contention
from pilothouse.playbook.memory import Memory
from pilothouse.playbook.ownership import controller_of, owner_uid
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

Wrote: TypeAlias = Callable[[ObjectKey, Informer[Any], Any], None]

OWNER = "owner"
"""The index of the watched kinds by the UID of the object that they belong to."""

# A Pod of a CronJob is two controllers away from it; a reference cannot be followed in a circle for ever.
_CONTROLLERS = 5


class Cluster:
    """What the modules of a playbook's plays share.

    Attributes:
        api: Reaches the API server, behind the fence.
        fence: Lets changes of outside systems through.
        owner: The kind that is played.
        manager: The name under which fields are applied: the operator's.
        namespaces: Those that the operator watches; empty: all.
        memory: What the objects were last seen to fulfil.
        contention: The fights with other clients over objects.
        wrote: Takes what a write for an object returned: the object's key, the informer of the written kind,
            and what the write returned.

    Args:
        api: See the attribute.
        fence: See the attribute.
        owner: See the attribute.
        manager: See the attribute.
        informers: The informers of the kinds that the plays read and change.
        namespaces: See the attribute.
        wrote: See the attribute; `OwnWrites.wrote_secondary` also lets the key wait until the watch has come
            as far. Unless given, the informer's store takes the object.
        owners: The objects of the played kind; shows whether an object was deleted together with its owner.
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
        """The store of a kind that the watch declares.

        Raises:
            PlaybookError: The watch does not.
        """
        return self.informer(resource).store

    def require_readable(self, resource: Resource[Any], concerns: Callable[[ObjectMeta], bool]) -> None:
        """Raises TaskFailed if an object does not fit the view, and its metadata concerns the caller.

        What was last known of it is out of date, and a task that took it for missing would create or delete
        what belongs to it.
        """
        for misfit in self.store(resource).misfits:
            if concerns(misfit.metadata):
                what = f"{resource.kind} {misfit.metadata.key}"
                raise TaskFailed("Undecodable", f"The operator cannot read {what}: {misfit.why}.")

    def informer(self, resource: Resource[K]) -> Informer[K]:
        """The informer of a kind that the watch declares.

        Raises:
            PlaybookError: The watch does not.
        """
        informer = self._informers.get(_kind(resource))
        if informer is None:
            raise PlaybookError(
                f"{resource} is not declared: add it to `owns` or `watches` of the Watch of {self.owner}"
            )
        return cast("Informer[K]", informer)

    def declares(self, group: str, kind: str) -> bool:
        """Return whether the watch declares a kind."""
        return (group, kind) in self._informers

    def belongs(self, metadata: ObjectMeta, owner: ObjectMeta) -> bool:
        """Return whether an object belongs to another, directly or through objects that belong to it.

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
        """Return the metadata of an object's controller, if a store has it."""
        reference = controller_of(metadata)
        if reference is None:
            return None
        informer = self._informers.get((reference.api_version.rpartition("/")[0], reference.kind))
        if informer is None:
            return None
        namespace = metadata.namespace if informer.resource.namespaced else ""
        found = informer.store.get(ObjectKey(namespace, reference.name))
        if found is None or found.metadata.uid != reference.uid:
            return None
        known: ObjectMeta = found.metadata
        return known

    async def pod_log(self, key: ObjectKey, *, container: str, tail_lines: int | None) -> str:
        """What a pod's container has written.

        Raises:
            KubeError: It has not started, or the API server cannot be reached or refused.
        """
        return await pod_log(self.api, key, container=container, tail_lines=tail_lines)

    def _forget(self, kind: str, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        """Forgets what is gone: a handler of an informer."""
        if new is None and old is not None:
            if not self._has_owner(old.metadata):
                # The garbage collector, or the cleanup, deletes it with its owner.
                self.memory.forget(kind, old.metadata.key)
            self.memory.gone(kind, old.metadata.key)
            self.memory.forget(f"{kind}/scale", old.metadata.key)

    def _owner_gone(self, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        if new is None and old is not None:
            self.memory.owner_gone(old.metadata.uid)

    def _has_owner(self, metadata: ObjectMeta) -> bool:
        """Return whether an object's controller exists and is not being deleted, as far as that is known."""
        controller = controller_of(metadata)
        if controller is None or self._owners is None or controller.kind != self.owner.kind:
            return True
        namespace = metadata.namespace if self.owner.namespaced else ""
        owner = self._owners.get(ObjectKey(namespace, controller.name))
        if owner is None or owner.metadata.uid != controller.uid:
            return False
        return bool(owner.metadata.deletion_timestamp is None)


def _observe(key: ObjectKey, informer: Informer[Any], written: Any) -> None:
    informer.store.observe(written)


def _kind(resource: Resource[Any]) -> tuple[str, str]:
    return resource.group, resource.kind
