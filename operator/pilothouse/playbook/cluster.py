"""The cluster as a play's modules reach it: read from stores, changed by deletion, scaling and eviction.

Server-side apply is a matter of its own: `pilothouse.playbook.apply`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar, cast

from pilothouse.controller import Fence
from pilothouse.informer import Informer, Store
from pilothouse.kube import (
    Api,
    Conflict,
    KubeObject,
    NotFound,
    ObjectKey,
    PatchType,
    Resource,
    evict,
    pod_log,
    scale_of,
)
from pilothouse.playbook.contention import Contention
from pilothouse.playbook.memory import Memory
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

Wrote: TypeAlias = Callable[[ObjectKey, Informer[Any], Any], None]

OWNER = "owner"
"""The index of the watched kinds by the UID of the object that controls them."""


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
    ) -> None:
        self.api = api
        self.fence = fence
        self.owner = owner
        self.manager = manager
        self.namespaces = namespaces
        self.memory = Memory()
        self.contention = Contention()
        self.wrote: Wrote = wrote or _observe
        self._informers = {_kind(informer.resource): informer for informer in informers}
        for informer in self._informers.values():
            informer.add_handler(partial(self._forget, str(informer.resource)))

    def store(self, resource: Resource[K]) -> Store[K]:
        """The store of a kind that the watch declares.

        Raises:
            LookupError: The watch does not.
        """
        return self.informer(resource).store

    def informer(self, resource: Resource[K]) -> Informer[K]:
        """The informer of a kind that the watch declares.

        Raises:
            LookupError: The watch does not.
        """
        informer = self._informers.get(_kind(resource))
        if informer is None:
            raise LookupError(
                f"{resource} is not declared: add it to `owns` or `watches` of the Watch of {self.owner}"
            )
        return cast("Informer[K]", informer)

    async def delete(self, resource: Resource[K], key: ObjectKey, *, propagation: str, check: bool) -> bool:
        """Deletes the very object that the store shows; returns whether there was one to delete.

        Raises:
            Conflict: There is another one of that name by now: play again.
            KubeError: The API server cannot be reached or refused.
        """
        live = self.store(resource).get(key)
        if live is None or live.metadata.deletion_timestamp is not None:
            return False
        if not check:
            try:
                await self.api.delete(resource, key, uid=live.metadata.uid, propagation=propagation)
            except NotFound:
                return False
            self.memory.forget(str(resource), key)
        return True

    async def scale(self, resource: Resource[Any], key: ObjectKey, replicas: int, *, check: bool) -> int:
        """Makes an object have so many replicas; returns how many it should have had before.

        Raises:
            TaskFailed: There is no such object.
            Conflict: It changed meanwhile: play again.
            KubeError: The API server cannot be reached or refused.
        """
        live = self.store(resource).get(key)
        if live is None:
            raise TaskFailed("NothingToScale", f"There is no {resource.kind} {key} to scale.")
        aspect = f"{resource}/scale"
        if self.memory.fulfils(aspect, replicas, live.metadata):
            return replicas
        scaled = scale_of(resource)
        try:
            scale = await self.api.get(scaled, key, subresource="scale")
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has been deleted: {gone}") from gone
        version, had = scale.metadata.resource_version, scale.spec.replicas
        if had != replicas and not check:
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            await self.api.patch(
                scaled, key, body, type=PatchType.MERGE, subresource="scale", field_manager=self.manager
            )
        if had == replicas and live.metadata.resource_version == version:
            self.memory.remember(aspect, replicas, live.metadata)
        return had

    async def evict(
        self, resource: Resource[Any], key: ObjectKey, *, grace_seconds: int | None, check: bool
    ) -> bool:
        """Asks the very pod that the store shows to go; returns whether there was one to ask.

        Raises:
            Conflict: There is another one of that name by now: play again.
            KubeError: A disruption budget holds it up, or the API server cannot be reached or refused.
        """
        live = self.store(resource).get(key)
        if live is None or live.metadata.deletion_timestamp is not None:
            return False
        if not check:
            try:
                await evict(self.api, key, uid=live.metadata.uid, grace_seconds=grace_seconds)
            except NotFound:
                return False
            self.memory.forget(str(resource), key)
        return True

    async def pod_log(self, key: ObjectKey, *, container: str, tail_lines: int | None) -> str:
        """What a pod's container has written.

        Raises:
            KubeError: It has not started, or the API server cannot be reached or refused.
        """
        return await pod_log(self.api, key, container=container, tail_lines=tail_lines)

    def _forget(self, kind: str, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        """Forgets what is gone: a handler of an informer."""
        if new is None and old is not None:
            self.memory.gone(kind, old.metadata.key)
            self.memory.forget(f"{kind}/scale", old.metadata.key)


def owner_uid(obj: KubeObject) -> tuple[str, ...]:
    """The UID of the object that controls another: what the index OWNER holds."""
    return tuple(each.uid for each in obj.metadata.owner_references if each.controller)


def _observe(key: ObjectKey, informer: Informer[Any], written: Any) -> None:
    informer.store.observe(written)


def _kind(resource: Resource[Any]) -> tuple[str, str]:
    return resource.group, resource.kind
