"""Delete, scale, evict and patch: modules that act on existing objects of the owner."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from pilothouse.kube import (
    Conflict,
    Forbidden,
    Invalid,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PartialObjectMetadata,
    PatchType,
    Resource,
    Unstructured,
    evict,
    scale_of,
)
from pilothouse.kube.answers import read_object
from pilothouse.playbook.apply import NOT_SELECTED, unstructured
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.manifest import Difference, changes
from pilothouse.playbook.ownership import controller_of, not_owned
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)


class Actions:
    """Acts on existing objects of the object that is reconciled, the owner.

    The object in the store is the one to act on. The store may lag behind by a moment. So an object that does
    not seem to belong to the owner is read from the API server before it is refused. Every change carries a
    precondition, so that another object that has the name by then is not changed.

    An object that does not match the view exists, and its metadata suffices to delete, scale and evict it. If
    the watch has selectors, or does not watch the namespace, an object that it does not show is read from the
    API server before it counts as missing.

    Args:
        cluster: The cluster.
        owner: The metadata of the owner.
        owned: Whether to act only on objects that belong to the owner.
        check: Whether to change nothing.
    """

    def __init__(self, cluster: Cluster, owner: ObjectMeta, *, owned: bool, check: bool) -> None:
        self._cluster = cluster
        self._owner = owner
        self._owned = owned
        self._check = check

    async def delete(self, resource: Resource[Any], key: ObjectKey, *, propagation: str) -> bool:
        """Deletes an object unless it is being deleted, and returns whether there was one to delete.

        Raises:
            TaskFailed: NotOwned: The object does not belong to the owner.
            Conflict: Another object has the name now. Reconcile again.
            KubeError: The API server refused the request or is unreachable.
        """
        live = await self._find(resource, key)
        if live is None or live.deletion_timestamp is not None:
            return False
        try:
            seen = await self._require_owned(resource, live, "delete")
            if not self._check:
                await self._delete(resource, seen, propagation)
                self._cluster.memory.forget(str(resource), key)
        except NotFound:
            return False
        return True

    async def exists(self, resource: Resource[Any], key: ObjectKey) -> bool:
        """Returns whether an object exists.

        Raises:
            KubeError: The API server refused the request or is unreachable.
        """
        return await self._find(resource, key) is not None

    async def _find(self, resource: Resource[Any], key: ObjectKey) -> ObjectMeta | None:
        """Returns the metadata of an object as last seen; None if it does not exist."""
        seen = self._cluster.seen(resource, key)
        if seen is not None or not self._cluster.may_hide(resource, key):
            return seen
        try:
            return (await self._cluster.api.get(_metadata_of(resource), key)).metadata
        except NotFound:
            return None

    async def _delete(self, resource: Resource[Any], seen: ObjectMeta, propagation: str) -> None:
        api = self._cluster.api
        if not self._owned:
            await api.delete(resource, seen.key, uid=seen.uid, propagation=propagation)
            return
        # The resourceVersion keeps an object that has been taken over by another owner since.
        try:
            await api.delete(
                resource,
                seen.key,
                uid=seen.uid,
                resource_version=seen.resource_version,
                propagation=propagation,
            )
        except Conflict:
            live = await self._read(resource, seen)
            self._refuse_foreign(resource, live, "delete")
            await api.delete(
                resource,
                seen.key,
                uid=seen.uid,
                resource_version=live.resource_version,
                propagation=propagation,
            )

    async def scale(self, resource: Resource[Any], key: ObjectKey, replicas: int) -> int:
        """Sets the desired number of replicas of an object, and returns the previous one.

        Raises:
            TaskFailed: NothingToScale: The object does not exist. NotOwned: It does not belong to the owner.
            Conflict: The object has changed. Reconcile again.
            KubeError: The API server refused the request or is unreachable.
        """
        live = await self._find(resource, key)
        if live is None:
            raise TaskFailed("NothingToScale", f"Cannot scale {resource.kind} {key}: it does not exist.")
        memory, aspect = self._cluster.memory, f"{resource}/scale"
        try:
            seen = await self._require_owned(resource, live, "scale")
            if memory.fulfils(aspect, replicas, live):
                return replicas
            # It had this number before: another client has changed it since.
            corrects = not self._check and memory.fulfilled_before(aspect, replicas, live)
            if corrects and self._cluster.contention.postponed(aspect, key):
                return replicas
            scaled = scale_of(resource)
            scale = await self._cluster.api.get(scaled, key, subresource="scale")
            version, had = scale.metadata.resource_version, scale.spec.replicas
            if self._owned and version != seen.resource_version:
                # The patch carries the resourceVersion of the scale, which is not newer than this read.
                self._refuse_foreign(resource, await self._read(resource, seen), "scale")
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has been deleted: {gone}") from gone
        if had == replicas:
            if live.resource_version == version:
                memory.remember(aspect, replicas, live)
        elif not self._check:
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            stored = await self._cluster.api.patch(
                scaled,
                key,
                body,
                type=PatchType.MERGE,
                subresource="scale",
                field_manager=self._cluster.manager,
            )
            memory.remember(aspect, replicas, stored.metadata)
            change = Difference("spec.replicas", had, replicas)
            self._cluster.contention.changed(aspect, key, [change])
            if corrects:
                what, manager = f"{resource.kind} {key}", self._cluster.manager
                self._cluster.contention.corrected(aspect, key, what, [change], manager)
        return had

    async def evict(self, resource: Resource[Any], key: ObjectKey, *, grace_seconds: int | None) -> bool:
        """Evicts a pod unless it is being deleted, and returns whether there was one to evict.

        Raises:
            TaskFailed: NotOwned: The pod does not belong to the owner.
            Conflict: Another pod has the name now. Reconcile again.
            KubeError: A disruption budget does not allow the eviction now, or the API server refused the
                request or is unreachable.
        """
        live = await self._find(resource, key)
        if live is None or live.deletion_timestamp is not None:
            return False
        try:
            seen = await self._require_owned(resource, live, "evict")
            if not self._check:
                await evict(self._cluster.api, key, uid=seen.uid, grace_seconds=grace_seconds)
                self._cluster.memory.forget(str(resource), key)
        except NotFound:
            return False
        return True

    async def patch(
        self, resource: Resource[K], key: ObjectKey, patch: Mapping[str, Any]
    ) -> tuple[K, Sequence[Difference]]:
        """Changes some fields of the object that the store shows, with a merge patch (RFC 7386).

        Returns:
            The object as stored, in check mode as it is; and the fields that changed, or would change.

        Raises:
            TaskFailed: NothingToPatch: The object does not exist. NotOwned: It does not belong to the owner.
                Immutable: The patch changes a field that cannot be changed. Undecodable: The object does not
                match the view. NotSelected: The selectors or namespaces of the watch exclude the object.
            Conflict: The object has changed since it was seen. Reconcile again.
            KubeError: The API server refused the request or is unreachable.
        """
        informer, memory = self._cluster.informer(resource), self._cluster.memory
        self._cluster.require_readable(resource, lambda misfit: misfit.key == key)
        live = informer.store.get(key)
        if live is None:
            if await self.exists(resource, key):
                raise _not_selected(resource, key)
            raise TaskFailed("NothingToPatch", f"Cannot patch {resource.kind} {key}: it does not exist.")
        kind, fields, desired = str(resource), _fields(patch), hash(msgspec.json.encode(patch))
        try:
            await self._require_owned(resource, live.metadata, "patch")
            if memory.has_patch(kind, fields, desired, live.metadata):
                return live, ()
            corrects = not self._check and memory.patched_before(kind, fields, desired, live.metadata)
            if corrects and self._cluster.contention.postponed(f"{kind}/patch", key):
                return live, ()
            before = await self._cluster.api.get(unstructured(resource), key)
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has been deleted: {gone}") from gone
        if before.metadata.resource_version != live.metadata.resource_version:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has changed since it was seen")
        if not _differs(before.content, patch):
            memory.remember_patch(kind, fields, desired, before.metadata)
            return live, ()
        after = await self._patch(resource, before, patch)
        manager = self._cluster.manager
        found = changes(before, after, manager, "Update")
        if self._check:
            return live, found
        shown = read_object(resource, msgspec.json.encode(after.content))
        self._cluster.wrote(self._owner.key, informer, shown)
        if found:
            self._cluster.contention.changed(kind, key, found)
        if found and corrects:
            what = f"{resource.kind} {key}"
            self._cluster.contention.corrected(f"{kind}/patch", key, what, found, manager)
        # Even if the API server has stored the fields in another form: it would do so again.
        memory.remember_patch(kind, fields, desired, shown.metadata)
        return shown, found

    async def _patch(
        self, resource: Resource[Any], before: Unstructured, patch: Mapping[str, Any]
    ) -> Unstructured:
        seen = before.metadata
        metadata = {**patch.get("metadata", {}), "uid": seen.uid, "resourceVersion": seen.resource_version}
        try:
            return await self._cluster.api.patch(
                unstructured(resource),
                seen.key,
                {**patch, "metadata": metadata},
                type=PatchType.MERGE,
                field_manager=self._cluster.manager,
                dry_run=self._check,
            )
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"{resource.kind} {seen.key} has been deleted: {gone}") from gone
        except Invalid as invalid:
            # Rarely needed, so only then imported.
            from pilothouse.playbook.immutable import immutable

            failure = immutable(resource, invalid, patch, before, self._cluster.manager)
            if failure is None:
                raise
            raise failure from invalid

    async def _require_owned(self, resource: Resource[Any], seen: ObjectMeta, action: str) -> ObjectMeta:
        """Returns the metadata of an object that the module may act on.

        Raises:
            TaskFailed: NotOwned: The object does not belong to the owner.
            NotFound: The object no longer exists.
            Conflict: Another object has the name now.
        """
        if not self._owned or self._cluster.belongs(seen, self._owner):
            return seen
        try:
            live = await self._read(resource, seen)
        except Forbidden:
            live = seen  # The operator's role allows it to list the kind, but not to get an object.
        self._refuse_foreign(resource, live, action)
        return live

    def _refuse_foreign(self, resource: Resource[Any], live: ObjectMeta, action: str) -> None:
        if self._cluster.belongs(live, self._owner):
            return
        hint, controller = "", controller_of(live)
        if controller is not None:
            group, kind = controller.api_version.rpartition("/")[0], controller.kind
            if not self._cluster.declares(group, kind) and kind != self._cluster.owner.kind:
                hint = f" If your object owns the {kind}, declare the kind {kind} in the Watch."
        raise not_owned(resource, live, self._cluster.owner, self._owner, action=action, hint=hint)

    async def _read(self, resource: Resource[Any], seen: ObjectMeta) -> ObjectMeta:
        """Reads the metadata of the object that was seen from the API server.

        Raises:
            NotFound: The object no longer exists.
            Conflict: Another object has the name now.
        """
        live = (await self._cluster.api.get(_metadata_of(resource), seen.key)).metadata
        if live.uid != seen.uid:
            raise Conflict(409, "Conflict", f"{resource.kind} {seen.key} was replaced by another object")
        return live


def _metadata_of(resource: Resource[Any]) -> Resource[PartialObjectMetadata]:
    """Returns a kind whose objects are decoded as metadata only, which also fits undecodable objects."""
    return replace(resource, view=PartialObjectMetadata)


def _not_selected(resource: Resource[Any], key: ObjectKey) -> TaskFailed:
    return TaskFailed(
        NOT_SELECTED,
        f"Cannot patch {resource.kind} {key}: the selectors or namespaces of the watch exclude it, so the "
        "operator would not notice its changes. Change its labels, or the watch.",
    )


def _fields(patch: Mapping[str, Any], path: str = "") -> str:
    """Returns the paths of the fields that a patch states, without their values."""
    parts = [
        _fields(value, f"{path}.{name}") if isinstance(value, Mapping) and value else f"{path}.{name}"
        for name, value in sorted(patch.items())
    ]
    return " ".join(parts)


def _differs(live: Any, patch: Mapping[str, Any]) -> bool:
    """Returns whether a merge patch would change a document."""
    if not isinstance(live, Mapping):
        return True
    for name, value in patch.items():
        if isinstance(value, Mapping):
            if _differs(live.get(name), value):
                return True
        elif live.get(name) != value:
            return True
    return False
