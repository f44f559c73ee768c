"""Server-side apply: makes an object fulfil a manifest.

The rules are those of kubernetes.io/docs/reference/using-api/server-side-apply.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

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
)
from pilothouse.kube.answers import read_object
from pilothouse.kube.selectors import matcher
from pilothouse.playbook.cluster import Cluster
from pilothouse.playbook.contention import CONTENDED, Contended
from pilothouse.playbook.immutable import immutable
from pilothouse.playbook.manifest import Difference, Json, additions, changes, fulfilled, is_secret
from pilothouse.playbook.ownership import controller_of, name_taken, owner_uid
from pilothouse.playbook.tasks import TaskFailed

K = TypeVar("K", bound=KubeObject)

FIELD_CONFLICT = "FieldConflict"
NOT_SELECTED = "NotSelected"


class Applied(NamedTuple, Generic[K]):
    """What an apply did.

    Attributes:
        object: The object as stored; in check mode as it is, or as it would be created.
        created: It was not there.
        diff: What has changed, a line per field; empty when nothing has. What somebody else changed between
            the read and the write is among it.
        contended: The fight with another client over the object, if there is one.
    """

    object: K
    created: bool
    diff: Sequence[str]
    contended: Contended | None = None


class Apply(Generic[K]):
    """An apply of a manifest to an object, under the operator's name.

    Args:
        cluster: Where.
        resource: The kind; the watch declares it, or LookupError.
        manifest: What is stated of the object, completed (`pilothouse.playbook.manifest`).
        owner: The metadata of the object that is played.
        adopt: Take over an existing object that does not belong to the owner.
        force: Take fields over from other managers.
        check: Change nothing.
    """

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
        """Makes the object fulfil the manifest.

        What is not known to fulfil it is read live, whether the store shows it or not: a store is a moment
        behind, and one with a selector does not show all. Whether a difference is one, the server alone
        knows: it is asked by the apply itself, which changes nothing where there is none; in check mode by a
        dry run of it.

        Raises:
            TaskFailed: The name is taken, a field of an existing object cannot be changed, another manager
                wants the same field, another client keeps deleting the object, or the store would never show
                the object.
            Conflict: The object is not the one that was read: play again.
            KubeError: The API server cannot be reached or refused.
        """
        live = self._informer.store.get(self._key)
        if live is not None and self._cluster.memory.fulfils(self._aspect, self._desired, live.metadata):
            return Applied(live, False, (), self._contended())
        if live is not None and self._corrects(live.metadata) and self._postponed():
            return Applied(live, False, (), self._contended())
        self._require_watched()
        before = await self._read()
        if before is not None and not self._owns(before.metadata):
            if not self._adopt:
                raise name_taken(self._resource, before.metadata, self._cluster.owner, self._owner)
            if not self._check and self._postponed():
                return Applied(self._shown(before), False, (), self._contended())
        self._require_selected(before)
        return await (self._create() if before is None else self._change(before))

    async def _read(self) -> Unstructured | None:
        try:
            return await self._cluster.api.get(unstructured(self._resource), self._key)
        except NotFound:
            return None

    async def _create(self) -> Applied[K]:
        diff = self._told(additions(self._manifest)) or (f"+ {self._resource.kind} {self._key}",)
        if self._check:
            return Applied(self._viewed(self._manifest), True, diff)
        recreates = self._cluster.memory.lost(self._aspect, self._desired, self._key)
        if recreates and self._postponed() and (contended := self._contended()):
            raise TaskFailed(CONTENDED, contended.message, retry_after=contended.pause)
        # An apply cannot say that there must be none (and a POST would leave the fields to another owner than
        # all later applies have). Without force it is a Conflict if somebody has made one since and states a
        # field otherwise; if not, the two are merged.
        made = await self._patch(self._manifest, force=self._adopt and self._force)
        if recreates:
            self._cluster.contention.recreated(self._aspect, self._key, self._what)
        return Applied(self._remembered(made), True, diff, self._contended())

    async def _change(self, before: Unstructured) -> Applied[K]:
        after = before
        if not fulfilled(self._manifest, before, self._cluster.manager):
            after = await self._patch_the_very(await self._released(before))
        found = changes(before, after, self._cluster.manager)
        if self._check:
            return Applied(self._shown(before), False, self._told([*found, *self._handed_over(before)]))
        if not self._owns(before.metadata):
            self._cluster.contention.taken_over(self._aspect, self._key, self._what)
        elif found and self._corrects(before.metadata):
            self._cluster.contention.corrected(self._aspect, self._key, self._what, found)
        return Applied(self._remembered(after), False, self._told(found), self._contended())

    def _owns(self, live: ObjectMeta) -> bool:
        return owner_uid(live) == self._owner.uid

    def _handed_over(self, before: Unstructured) -> Sequence[Difference]:
        """Return the change of the controller that check mode does not try on the server."""
        controller = controller_of(before.metadata)
        if controller is None or self._owns(before.metadata):
            return ()
        owned = self._manifest["metadata"].get("ownerReferences")
        new = f"{self._cluster.owner.kind} {self._owner.name}" if owned else None
        return (Difference("metadata.ownerReferences", f"{controller.kind} {controller.name}", new),)

    async def _released(self, before: Unstructured) -> Unstructured:
        """Remove the reference to another controller, because the server accepts one controller at most.

        An apply cannot do that: it leaves the references of other managers in place.
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

    async def _patch_the_very(self, before: Unstructured) -> Unstructured:
        # With the UID the server refuses to make anew what has been deleted since.
        metadata = {**self._manifest["metadata"], "uid": before.metadata.uid}
        if self._check and controller_of(before.metadata) and not self._owns(before.metadata):
            # The other controller is still there, and the server would refuse a second one.
            metadata.pop("ownerReferences", None)
        try:
            return await self._patch({**self._manifest, "metadata": metadata}, force=self._force)
        except Conflict as conflict:
            if any(cause.reason == "FieldManagerConflict" for cause in conflict.causes):
                raise TaskFailed(
                    FIELD_CONFLICT, f"Another manager wants fields of {self._what}: {conflict}"
                ) from conflict
            raise
        except Invalid as invalid:
            # What the server says of a UID where another object has taken the name meanwhile.
            if any(cause.field == "metadata.uid" for cause in invalid.causes):
                why = f"{self._resource.kind} {self._key} is another one by now"
                raise Conflict(409, "Conflict", why) from invalid
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
        """Whether the object fulfilled this very manifest before: another client has changed it since."""
        return not self._check and self._cluster.memory.fulfilled_before(self._aspect, self._desired, seen)

    def _postponed(self) -> bool:
        return self._cluster.contention.postponed(self._aspect, self._key)

    def _contended(self) -> Contended | None:
        return self._cluster.contention.state(self._aspect, self._key)

    # What is refused before anything is asked for.

    def _require_watched(self) -> None:
        """Refuses what lies outside of the watched namespaces, where a Role may not even let it be read.

        Raises:
            TaskFailed: It does.
        """
        watched = self._cluster.namespaces
        if self._resource.namespaced and watched and self._key.namespace not in watched:
            raise TaskFailed(
                NOT_SELECTED,
                f"{self._resource.kind} {self._key} is not applied: the operator watches the namespaces "
                f"{', '.join(watched)} alone and would not see it.",
            )

    def _require_selected(self, live: Unstructured | None) -> None:
        """Refuses what the watch of its kind would not show: nobody would be told when it changes or goes.

        Raises:
            TaskFailed: It is so.
        """
        stated = self._manifest["metadata"]
        held = live.content if live is not None else {"metadata": {}}
        labels = {**held["metadata"].get("labels", {}), **(stated.get("labels") or {})}
        would_be = {**self._manifest, **held}
        would_be["metadata"] = {**stated, **held["metadata"], "labels": labels}
        selectors = self._informer.label_selector, self._informer.field_selector
        if not matcher(*selectors)(would_be):
            selected = " and ".join(filter(None, selectors))
            raise TaskFailed(
                NOT_SELECTED,
                f"{self._resource.kind} {self._key} is not applied: its watch selects {selected!r}, which "
                f"would not show it with the labels {labels}: state what is selected, or select what is "
                "stated.",
            )

    # How the object is shown.

    def _remembered(self, obj: Unstructured) -> K:
        """The object, which fulfils the manifest, in its kind's view; remembered as such."""
        shown = self._shown(obj)
        self._cluster.memory.remember(self._aspect, self._desired, shown.metadata)
        return shown

    def _shown(self, obj: Unstructured) -> K:
        """The object in its kind's view: the very one of the store, where that has come as far."""
        live = self._informer.store.get(obj.metadata.key)
        if live is not None and live.metadata.resource_version == obj.metadata.resource_version:
            return live
        return self._viewed(obj.content)

    def _viewed(self, content: Mapping[str, Any]) -> K:
        return read_object(self._resource, msgspec.json.encode(content))

    def _told(self, found: Sequence[Difference]) -> Sequence[str]:
        return [each.told(hidden=is_secret(self._resource, each.path)) for each in found]


def unstructured(resource: Resource[Any]) -> Resource[Unstructured]:
    """Return a kind whose objects are read as JSON has them."""
    whole: Resource[Unstructured] = replace(resource, view=Unstructured)
    return whole
