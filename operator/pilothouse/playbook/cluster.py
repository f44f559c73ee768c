"""The cluster as a play's modules reach it: read from stores, changed by server-side apply and deletion."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from pilothouse.controller import Api, Fence
from pilothouse.informer import Informer, Store
from pilothouse.kube import (
    Conflict,
    Invalid,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    Unstructured,
    evict,
    pod_log,
    scale_of,
)
from pilothouse.kube.answers import read_object
from pilothouse.kube.selectors import matcher
from pilothouse.playbook.manifest import Difference, Json, additions, changes, fulfilled, is_secret
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

OWNER = "owner"
"""The index of the watched kinds by the UID of the object that controls them."""

NAME_TAKEN = "NameTaken"
FIELD_CONFLICT = "FieldConflict"
NOT_SELECTED = "NotSelected"


class Applied(NamedTuple):
    """What an apply did.

    Attributes:
        object: The object as stored; in check mode as it is, or as it would be created.
        created: It was not there.
        diff: What has changed, a line per field; empty when nothing has. What somebody else changed between
            the read and the write is among it.
    """

    object: Any
    created: bool
    diff: Sequence[str]


class Fulfilled(NamedTuple):
    """A manifest, by its hash, that an object was once seen to fulfil, and the object's metadata then."""

    manifest: int
    metadata: ObjectMeta

    def still(self, manifest: int, live: ObjectMeta) -> bool:
        """Whether the object fulfils the manifest without being looked at again.

        A generation grows with the spec: as long as it stays, only the status has changed. Kinds without one
        (ConfigMap, Secret, Service) have their version alone.
        """
        then = self.metadata
        if self.manifest != manifest or then.uid != live.uid:
            return False
        return then.resource_version == live.resource_version or (
            0 < live.generation == then.generation
            and then.labels == live.labels
            and then.annotations == live.annotations
            and then.finalizers == live.finalizers
            and then.owner_references == live.owner_references
        )


class Cluster:
    """What the modules of a playbook's plays share.

    Attributes:
        fence: Lets changes of outside systems through.
        wrote: Takes what a write for an object returned: its key, the informer of the written kind, and what
            was written. A controller's `wrote_secondary` also has the key wait until the watch has come as
            far.

    Args:
        api: Reaches the API server, behind the same fence.
        fence: See there.
        owner: The kind that is played.
        manager: The name under which fields are applied: the operator's.
        informers: Of the kinds that the plays read and change.
        namespaces: Those that the operator watches; empty: all.
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
    ) -> None:
        self.fence = fence
        self._api = api
        self._owner = owner
        self._manager = manager
        self._namespaces = namespaces
        self._informers = {_kind(informer.resource): informer for informer in informers}
        self.wrote: Callable[[ObjectKey, Informer[Any], Any], None] = _observe
        # What each object was last seen to fulfil: so a play of what is as it should be asks the server
        # nothing.
        self._fulfilled: dict[tuple[str, ObjectKey], Fulfilled] = {}
        for informer in self._informers.values():
            informer.add_handler(partial(self._observe, str(informer.resource)))

    def store(self, resource: Resource[K]) -> Store[K]:
        """The store of a kind that the watch declares.

        Raises:
            LookupError: The watch does not.
        """
        return cast("Store[K]", self._informer(resource).store)

    def manifest(
        self, resource: Resource[Any], body: Mapping[str, Any], owner: ObjectMeta, *, owned: bool
    ) -> Json:
        """A body completed: kind, name and namespace (the owner's unless given), and the owner reference.

        Raises:
            ValueError: The owner cannot own it.
        """
        # As the server reads it, to be compared with what it answers.
        asked: Json = msgspec.json.decode(msgspec.json.encode(body))
        metadata = {"name": owner.name, **asked.get("metadata", {})}
        if not metadata["name"]:
            raise ValueError(f"{resource} to be applied has an empty name: leave it out, or give one")
        if resource.namespaced:
            metadata.setdefault("namespace", owner.namespace)
        if owned:
            if owner.namespace and owner.namespace != metadata.get("namespace"):
                raise ValueError(
                    f"{self._owner.kind} {owner.key} cannot own {resource} {metadata['name']} elsewhere than "
                    "in its namespace: apply it with owned=False, and delete it in the cleanup"
                )
            reference = {
                "apiVersion": self._owner.api_version,
                "kind": self._owner.kind,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
            metadata["ownerReferences"] = [*metadata.get("ownerReferences", ()), reference]
        return {**asked, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}

    async def apply(
        self,
        resource: Resource[K],
        manifest: Json,
        owner: ObjectMeta,
        *,
        adopt: bool,
        force: bool,
        check: bool,
    ) -> Applied:
        """Makes an object fulfil a manifest.

        What is not known to fulfil it is read live, whether the store shows it or not: a store is a moment
        behind, and one with a selector does not show all. Whether a difference is one, the server alone
        knows: it is asked by the apply itself, which changes nothing where there is none; in check mode by a
        dry run of it.

        Raises:
            TaskFailed: The name is taken, another manager wants the same field, or the store would never show
                the object.
            Conflict: The object is not the one that was read: play again.
            KubeError: The API server cannot be reached or refused.
        """
        key = ObjectKey(manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        live = self.store(resource).get(key)
        sign = hash(msgspec.json.encode(manifest))
        known = self._fulfilled.get((str(resource), key))
        if live is not None and known is not None and known.still(sign, live.metadata):
            return Applied(live, False, ())
        self._require_watched(resource, key)
        before = await self._read(resource, key)
        if before is not None and not adopt:
            _refuse_others(resource, before.metadata, owner)
        self._require_selected(resource, key, manifest, before)
        if before is None:
            diff = _told(resource, additions(manifest)) or (f"+ {resource.kind} {key}",)
            if check:
                return Applied(_viewed(resource, manifest), True, diff)
            # An apply cannot say that there must be none (and a POST would leave the fields to another owner
            # than all later applies have). Without force it is a Conflict if somebody has made one since and
            # states a field otherwise; if not, the two are merged.
            made = await self._patch(resource, key, manifest, owner, force=adopt and force)
            return Applied(self._remembered(resource, sign, made), True, diff)
        after = before
        if not fulfilled(manifest, before, self._manager):
            after = await self._change(resource, key, manifest, owner, before, force=force, check=check)
        diff = _told(resource, changes(before, after, self._manager))
        if check:
            return Applied(self._shown(resource, before), False, diff)
        return Applied(self._remembered(resource, sign, after), False, diff)

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
                await self._api.delete(resource, key, uid=live.metadata.uid, propagation=propagation)
            except NotFound:
                return False
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
        what = (f"{resource}/scale", key)
        known = self._fulfilled.get(what)
        if known is not None and known.still(replicas, live.metadata):
            return replicas
        scaled = scale_of(resource)
        try:
            scale = await self._api.get(scaled, key, subresource="scale")
        except NotFound as gone:
            raise Conflict(409, "Conflict", f"{resource.kind} {key} has been deleted: {gone}") from gone
        version, had = scale.metadata.resource_version, scale.spec.replicas
        if had != replicas and not check:
            body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
            await self._api.patch(
                scaled, key, body, type=PatchType.MERGE, subresource="scale", field_manager=self._manager
            )
        if had == replicas and live.metadata.resource_version == version:
            self._fulfilled[what] = Fulfilled(replicas, live.metadata)
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
                await evict(self._api, key, uid=live.metadata.uid, grace_seconds=grace_seconds)
            except NotFound:
                return False
        return True

    async def pod_log(self, key: ObjectKey, *, container: str, tail_lines: int | None) -> str:
        """What a pod's container has written.

        Raises:
            KubeError: It has not started, or the API server cannot be reached or refused.
        """
        return await pod_log(self._api, key, container=container, tail_lines=tail_lines)

    def _informer(self, resource: Resource[Any]) -> Informer[Any]:
        informer = self._informers.get(_kind(resource))
        if informer is None:
            raise LookupError(
                f"{resource} is not declared: add it to `owns` or `watches` of the Watch of {self._owner}"
            )
        return informer

    async def _read(self, resource: Resource[Any], key: ObjectKey) -> Unstructured | None:
        try:
            return await self._api.get(_unstructured(resource), key)
        except NotFound:
            return None

    async def _change(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        manifest: Json,
        owner: ObjectMeta,
        before: Unstructured,
        *,
        force: bool,
        check: bool,
    ) -> Unstructured:
        # With the UID the server refuses to make anew what has been deleted since.
        manifest = {**manifest, "metadata": {**manifest["metadata"], "uid": before.metadata.uid}}
        try:
            return await self._patch(resource, key, manifest, owner, force=force, check=check)
        except Conflict as conflict:
            if any(cause.reason == "FieldManagerConflict" for cause in conflict.causes):
                raise TaskFailed(
                    FIELD_CONFLICT, f"Another manager wants fields of {resource.kind} {key}: {conflict}"
                ) from conflict
            raise
        except Invalid as invalid:
            # What the server says of a UID where another object has taken the name meanwhile.
            if any(cause.field == "metadata.uid" for cause in invalid.causes):
                raise Conflict(409, "Conflict", f"{resource.kind} {key} is another one by now") from invalid
            raise

    async def _patch(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        manifest: Json,
        owner: ObjectMeta,
        *,
        force: bool,
        check: bool = False,
    ) -> Unstructured:
        answer = await self._api.patch(
            _unstructured(resource),
            key,
            manifest,
            type=PatchType.APPLY,
            field_manager=self._manager,
            force=force,
            dry_run=check,
        )
        if not check:
            self.wrote(owner.key, self._informer(resource), _viewed(resource, answer.content))
        return answer

    def _remembered(self, resource: Resource[K], sign: int, obj: Unstructured) -> K:
        """An object that fulfils a manifest, in its kind's view; remembered as such."""
        shown = self._shown(resource, obj)
        self._fulfilled[str(resource), obj.metadata.key] = Fulfilled(sign, shown.metadata)
        return shown

    def _shown(self, resource: Resource[K], obj: Unstructured) -> K:
        """An object in its kind's view: the very one of the store, where that has come as far."""
        live = self.store(resource).get(obj.metadata.key)
        if live is not None and live.metadata.resource_version == obj.metadata.resource_version:
            return live
        return _viewed(resource, obj.content)

    def _require_selected(
        self, resource: Resource[Any], key: ObjectKey, manifest: Json, live: Unstructured | None
    ) -> None:
        """Refuses what the watch of its kind would not show: nobody would be told when it changes or goes.

        Raises:
            TaskFailed: It is so.
        """
        informer = self._informer(resource)
        held = live.content if live is not None else {"metadata": {}}
        labels = {**held["metadata"].get("labels", {}), **(manifest["metadata"].get("labels") or {})}
        would_be = {**manifest, **held}
        would_be["metadata"] = {**manifest["metadata"], **held["metadata"], "labels": labels}
        selector, field_selector = informer.label_selector, informer.field_selector
        if not matcher(selector, field_selector)(would_be):
            selected = " and ".join(filter(None, (selector, field_selector)))
            raise TaskFailed(
                NOT_SELECTED,
                f"{resource.kind} {key} is not applied: its watch selects {selected!r}, which would not show "
                f"it with the labels {labels}: state what is selected, or select what is stated.",
            )

    def _require_watched(self, resource: Resource[Any], key: ObjectKey) -> None:
        """Refuses what lies outside of the watched namespaces, where a Role may not even let it be read.

        Raises:
            TaskFailed: It does.
        """
        if resource.namespaced and self._namespaces and key.namespace not in self._namespaces:
            raise TaskFailed(
                NOT_SELECTED,
                f"{resource.kind} {key} is not applied: the operator watches the namespaces "
                f"{', '.join(self._namespaces)} alone and would not see it.",
            )

    def _observe(self, kind: str, old: KubeObject | None, new: KubeObject | None, initial: bool) -> None:
        """Forgets what is gone: a handler of an informer."""
        if new is None and old is not None:
            for what in (kind, f"{kind}/scale"):
                self._fulfilled.pop((what, old.metadata.key), None)


def owner_uid(obj: KubeObject) -> tuple[str, ...]:
    """The UID of the object that controls another: what the index OWNER holds."""
    return tuple(each.uid for each in obj.metadata.owner_references if each.controller)


def _unstructured(resource: Resource[Any]) -> Resource[Unstructured]:
    whole: Resource[Unstructured] = replace(resource, view=Unstructured)
    return whole


def _viewed(resource: Resource[K], content: Mapping[str, Any]) -> K:
    return read_object(resource, msgspec.json.encode(content))


def _told(resource: Resource[Any], found: Sequence[Difference]) -> Sequence[str]:
    return [each.told(hidden=is_secret(resource, each.path)) for each in found]


def _observe(key: ObjectKey, informer: Informer[Any], written: Any) -> None:
    informer.store.observe(written)


def _kind(resource: Resource[Any]) -> tuple[str, str]:
    return resource.group, resource.kind


def _refuse_others(resource: Resource[Any], live: ObjectMeta, owner: ObjectMeta) -> None:
    controllers = [each for each in live.owner_references if each.controller]
    if any(each.uid == owner.uid for each in controllers):
        return
    whose = f"belongs to {controllers[0].kind} {controllers[0].name}" if controllers else "belongs to nobody"
    raise TaskFailed(
        NAME_TAKEN, f"There is a {resource.kind} {live.key} already, which {whose}: rename or delete it."
    )
