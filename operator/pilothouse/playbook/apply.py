"""Server-side apply of a manifest.

The rules are those of kubernetes.io/docs/reference/using-api/server-side-apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from pilothouse.kube import (
    ApiError,
    Conflict,
    Invalid,
    KubeObject,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    Unstructured,
)
from pilothouse.kube.answers import read_object
from pilothouse.kube.selectors import matcher
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.contention import CONTENDED, Contended
from pilothouse.playbook.manifest import Difference, additions, changes, fulfilled, is_secret
from pilothouse.playbook.ownership import CREATED_FROM, controller_of, name_taken, owner_uid
from pilothouse.playbook.plain import Json
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

# A resourceVersion that no object has, because etcd's first write has the revision 2. The API server compares
# it only with that of an existing object: an apply with it creates an object or is a Conflict.
NO_VERSION = "1"

FIELD_CONFLICT = "FieldConflict"
NOT_SELECTED = "NotSelected"


class Applied(NamedTuple, Generic[K]):
    """The result of an apply.

    Attributes:
        object: The object as stored; in check mode as it is, or as it would be created.
        created: Whether the object was created.
        diff: What changed, one line per field; empty if nothing did. It includes changes by other clients
            between the read and the write.
        unchecked: In check mode: the answer with which the API server declined to check the object; see
            `why_unchecked`. None if it has checked it.
        contended: The fight with another client over the object; None if there is none.
    """

    object: K
    created: bool
    diff: Sequence[str]
    contended: Contended | None = None
    unchecked: ApiError | None = None


class Apply(Generic[K]):
    """An apply of one manifest, with the operator as field manager.

    Args:
        cluster: The cluster.
        resource: The kind, which the watch declares.
        manifest: The completed manifest (`pilothouse.playbook.manifest.completed`).
        owner: The metadata of the object that is reconciled.
        adopt: Whether to take over an existing object that does not belong to the owner.
        force: Whether to take fields over from other managers.
        check: Whether to change nothing.

    Raises:
        PlaybookError: The watch does not declare the kind.
    """

    _module = "play.apply"

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource[K],
        manifest: Json,
        owner: ObjectMeta,
        *,
        check: bool,
        adopt: bool = False,
        force: bool = True,
    ) -> None:
        self._cluster = cluster
        self._resource = resource
        self._manifest = manifest
        self._owner = owner
        self._adopt = adopt
        self._force = force
        self._check = check
        self._informer = cluster.informer(resource)
        self._aspect = str(resource)
        self._key = ObjectKey(manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"])
        self._desired = hash(msgspec.json.encode(manifest))

    async def run(self) -> Applied[K]:
        """Applies the manifest, if the object is not known to match it.

        Unless the object is known to match, it is read from the API server: the store may lag behind, and may
        have a selector that excludes the object. Only the API server knows whether a difference is real. So
        the manifest is applied, which changes nothing if it is not; in check mode as a dry run.

        Raises:
            PlaybookError: The object is the one that is reconciled, and the call does not have `owned=False`
                and `adopt=True`.
            TaskFailed: The object belongs to another owner, the manifest changes a field that cannot be
                changed, another manager owns a field, another client keeps deleting the object, or the watch
                excludes the object.
            Conflict: The object is not the one that was read. Reconcile again.
            KubeError: The API server refused the request or is unreachable.
        """
        live = self._stored()
        if live is not None and self._cluster.memory.fulfils(self._aspect, self._desired, live.metadata):
            return Applied(live, False, (), self._contended())
        if live is not None and self._corrects(live.metadata) and self._postponed():
            return Applied(live, False, (), self._contended())
        self._require_watched()
        before = await self._read()
        if before is not None and not self._takes_itself_over():
            self._require_another(before.metadata)
        if before is not None and not self._owns(before.metadata):
            if not self._adopt:
                raise name_taken(self._resource, before.metadata, self._cluster.owner, self._owner)
            if not self._check and self._postponed():
                return Applied(self._shown(before), False, (), self._contended())
        self._require_selected(before)
        return await (self._create() if before is None else self._change(before))

    def _stored(self) -> K | None:
        """Returns the object in the store; None if it is not there, or only in an out-of-date state."""
        store = self._informer.store
        return None if store.misfit(self._key) else store.get(self._key)

    async def _read(self) -> Unstructured | None:
        try:
            return await self._cluster.api.get(unstructured(self._resource), self._key)
        except NotFound:
            return None

    async def _create(self) -> Applied[K]:
        diff = self._additions()
        if self._check:
            return await self._tried(diff)
        recreates = self._cluster.memory.lost(self._aspect, self._desired, self._key)
        if recreates and self._postponed() and (contended := self._contended()):
            raise TaskFailed(CONTENDED, contended.message, retry_after=contended.pause)
        created = await self._patch_new()
        if recreates:
            self._cluster.contention.recreated(self._aspect, self._key, self._what)
        return Applied(self._remembered(created), True, diff, self._contended())

    async def _patch_new(self) -> Unstructured:
        """Creates the object. An existing one is a Conflict, because it has another version."""
        # A POST would make another field manager entry than all later applies.
        metadata = {**self._manifest["metadata"], "resourceVersion": NO_VERSION}
        return await self._patch({**self._manifest, "metadata": metadata}, force=False)

    async def _tried(self, diff: Sequence[str]) -> Applied[K]:
        """Returns the object as a dry run creates it: with defaults, after admission and validation.

        Raises:
            ApiError: The API server refused the object.
        """
        try:
            return Applied(await self._dry_run(), True, diff)
        except ApiError as error:
            # Rarely needed, so only then imported.
            from pilothouse.playbook.dry_run import why_unchecked

            if not why_unchecked(self._resource, error):
                raise
            return Applied(self._viewed(self._manifest), True, diff, unchecked=error)

    async def _dry_run(self) -> K:
        return self._viewed((await self._patch_new()).content)

    async def _change(self, before: Unstructured) -> Applied[K]:
        after = before
        if not fulfilled(self._kept(before), before, self._cluster.manager):
            after = await self._patch_existing(await self._released(before))
        found = changes(before, after, self._cluster.manager)
        if self._check:
            return Applied(self._shown(before), False, self._lines([*found, *self._handed_over(before)]))
        if found:
            self._cluster.contention.changed(self._aspect, self._key, found)
        if not self._owns(before.metadata):
            self._cluster.contention.taken_over(self._aspect, self._key, self._what)
        elif found and self._corrects(before.metadata):
            manager = self._cluster.manager
            self._cluster.contention.corrected(self._aspect, self._key, self._what, found, manager)
        return Applied(self._remembered(after), False, self._lines(found), self._contended())

    def _owns(self, live: ObjectMeta) -> bool:
        return owner_uid(live) == self._owner.uid

    def _handed_over(self, before: Unstructured) -> Sequence[Difference]:
        """Returns the change of the controller, which the dry run of check mode leaves out."""
        controller = controller_of(before.metadata)
        if controller is None or self._owns(before.metadata):
            return ()
        owned = self._manifest["metadata"].get("ownerReferences")
        new = f"{self._cluster.owner.kind} {self._owner.name}" if owned else None
        return (Difference("metadata.ownerReferences", f"{controller.kind} {controller.name}", new),)

    async def _released(self, before: Unstructured) -> Unstructured:
        """Removes the reference to another controller, because the API server accepts only one.

        An apply keeps the references of other managers.
        """
        controller = controller_of(before.metadata)
        if controller is None or self._owns(before.metadata) or self._check:
            return before
        references = before.content["metadata"]["ownerReferences"]
        metadata = {
            "resourceVersion": before.metadata.resource_version,
            "ownerReferences": [each for each in references if each["uid"] != controller.uid],
        }
        return await self._cluster.api.patch(
            unstructured(self._resource),
            self._key,
            {"metadata": metadata},
            type=PatchType.MERGE,
            field_manager=self._cluster.manager,
        )

    def _kept(self, before: Unstructured) -> Json:
        """Returns the manifest with the annotation of `create`, which the apply would otherwise remove.

        `create` recognizes the object by it in each reconcile.
        """
        created_from = before.metadata.annotations.get(CREATED_FROM)
        if not created_from or not self._owns(before.metadata):
            return self._manifest
        metadata = self._manifest["metadata"]
        annotations = {**(metadata.get("annotations") or {}), CREATED_FROM: created_from}
        return {**self._manifest, "metadata": {**metadata, "annotations": annotations}}

    async def _patch_existing(self, before: Unstructured) -> Unstructured:
        manifest = self._kept(before)
        # With the UID, the API server refuses to create an object that has been deleted since.
        metadata = {**manifest["metadata"], "uid": before.metadata.uid}
        if self._check and controller_of(before.metadata) and not self._owns(before.metadata):
            # The other controller is still there, and the server would refuse a second one.
            metadata.pop("ownerReferences", None)
        try:
            return await self._patch({**manifest, "metadata": metadata}, force=self._force)
        except Conflict as conflict:
            if any(cause.reason == "FieldManagerConflict" for cause in conflict.causes):
                raise TaskFailed(
                    FIELD_CONFLICT,
                    f"Another field manager owns fields of {self._what}: {conflict}",
                ) from conflict
            raise
        except Invalid as invalid:
            # The API server reports the UID as invalid if another object has the name now.
            if any(cause.field == "metadata.uid" for cause in invalid.causes):
                why = f"{self._resource.kind} {self._key} was replaced by another object"
                raise Conflict(409, "Conflict", why) from invalid
            # Rarely needed, so only then imported.
            from pilothouse.playbook.immutable import immutable

            manager = self._cluster.manager
            if failure := immutable(self._resource, invalid, self._manifest, before, manager):
                raise failure from invalid
            raise

    async def _patch(self, manifest: Json, *, force: bool) -> Unstructured:
        answer = await self._cluster.api.patch(
            unstructured(self._resource),
            self._key,
            manifest,
            type=PatchType.APPLY,
            field_manager=self._cluster.manager,
            force=force,
            dry_run=self._check,
        )
        if not self._check:
            self._cluster.wrote(self._owner.key, self._informer, self._viewed(answer.content))
        return answer

    # Whether another client fights over the object.

    @property
    def _what(self) -> str:
        return f"{self._resource.kind} {self._key}"

    def _corrects(self, seen: ObjectMeta) -> bool:
        """Returns whether the object matched this manifest before, so that another client changed it."""
        return not self._check and self._cluster.memory.fulfilled_before(self._aspect, self._desired, seen)

    def _postponed(self) -> bool:
        return self._cluster.contention.postponed(self._aspect, self._key)

    def _contended(self) -> Contended | None:
        return self._cluster.contention.state(self._aspect, self._key)

    # Checks before the first request.

    def _require_watched(self) -> None:
        """Refuses an object outside the watched namespaces, where a Role may not even allow to read it.

        Raises:
            TaskFailed: NotSelected: The object is in another namespace.
        """
        if not self._cluster.watches(self._resource, self._key):
            raise TaskFailed(
                NOT_SELECTED,
                f"Cannot apply {self._resource.kind} {self._key}: the operator watches only the namespaces "
                f"{', '.join(self._cluster.namespaces)} and would not notice its changes. Add the namespace "
                "to WATCH_NAMESPACE, or use another namespace.",
            )

    def _takes_itself_over(self) -> bool:
        """Returns whether the call may apply the object that is reconciled, with no reference to itself."""
        references = self._manifest["metadata"].get("ownerReferences") or ()
        return self._adopt and all(each.get("uid") != self._owner.uid for each in references)

    def _require_another(self, live: ObjectMeta) -> None:
        """Refuses the object that is reconciled.

        Raises:
            PlaybookError: It is the object that is reconciled.
        """
        if live.uid == self._owner.uid:
            raise PlaybookError(
                f"{self._module} cannot own {self._what}, because it is the object that is reconciled. To "
                "change it, use play.patch(..., owned=False)."
            )

    def _require_selected(self, live: Unstructured | None) -> None:
        """Refuses an object that the selectors of its watch exclude: its changes would not be noticed.

        Raises:
            TaskFailed: NotSelected: The selectors exclude the object.
        """
        stated = self._manifest["metadata"]
        held = live.content if live is not None else {"metadata": {}}
        labels = {**held["metadata"].get("labels", {}), **(stated.get("labels") or {})}
        resulting = {**self._manifest, **held}
        resulting["metadata"] = {**stated, **held["metadata"], "labels": labels}
        selectors = self._informer.label_selector, self._informer.field_selector
        if not matcher(*selectors)(resulting):
            selected = " and ".join(filter(None, selectors))
            raise TaskFailed(
                NOT_SELECTED,
                f"Cannot apply {self._resource.kind} {self._key}: the watch selects {selected!r}, which "
                f"excludes the labels {labels}. Change the labels in the manifest, or the selector of the "
                "watch.",
            )

    # The returned object.

    def _remembered(self, obj: Unstructured) -> K:
        """Returns the object in the view of its kind, and remembers that it matches the manifest."""
        shown = self._shown(obj)
        self._cluster.memory.remember(self._aspect, self._desired, shown.metadata)
        return shown

    def _shown(self, obj: Unstructured) -> K:
        """Returns the object in the view of its kind: the instance in the store, if it has this version."""
        live = self._informer.store.get(obj.metadata.key)
        if live is not None and live.metadata.resource_version == obj.metadata.resource_version:
            return live
        return self._viewed(obj.content)

    def _viewed(self, content: Mapping[str, Any]) -> K:
        return read_object(self._resource, msgspec.json.encode(content))

    def _additions(self) -> Sequence[str]:
        """Returns the diff of a creation."""
        return self._lines(additions(self._manifest)) or (f"+ {self._what}",)

    def _lines(self, found: Sequence[Difference]) -> Sequence[str]:
        return [each.line(hidden=is_secret(self._resource, each.path)) for each in found]


def unstructured(resource: Resource[Any]) -> Resource[Unstructured]:
    """Returns a kind whose objects are decoded as plain JSON."""
    whole: Resource[Unstructured] = replace(resource, view=Unstructured)
    return whole
