"""The rules of the API server for objects in memory: versions, generations, finalizers, owners, history.

It does not set defaults, does not validate (set `validate`), does not check permissions, and deletes Pods
without a grace period. Contract tests compare it with the real API server.
"""

import copy
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pilothouse.kube import (
    AlreadyExists,
    Cause,
    EventType,
    NotFound,
    ObjectKey,
    PatchType,
    Resource,
    ServerError,
)
from pilothouse.testing import strategy
from pilothouse.testing.apply import Ownership
from pilothouse.testing.collection import Change, Collection
from pilothouse.testing.documents import Json
from pilothouse.testing.patches import json_patched, merged
from pilothouse.testing.refusals import (
    check_applied_uid,
    check_namespace,
    check_terminating,
    check_version,
    conflict,
    invalid,
)

Validate: TypeAlias = Callable[[Resource[Any], Json, Json | None], Sequence[Cause]]
"""Called with the kind, the new object and the stored object, if there is one. Returns the problems."""

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_FINALIZERS = {"Foreground": FOREGROUND, "Orphan": ORPHAN}


def _anything(resource: Resource[Any], new: Json, old: Json | None) -> Sequence[Cause]:
    return ()


class ModelServer:
    """Objects in memory with the rules of the API server. Do not modify the returned objects.

    Attributes:
        version: The version of the last change.
        validate: Returns the problems of an object before it is stored. By default there are none.
        changed: Functions that are called after every change.
    """

    def __init__(self) -> None:
        self.version = 100
        self.validate: Validate = _anything
        self.changed: list[Callable[[], None]] = []
        self._collections: dict[str, Collection] = {}
        self._named = 0

    def collection(self, resource: Resource[Any]) -> Collection:
        """Returns the collection of a kind."""
        name = str(resource)
        if name not in self._collections:
            self._collections[name] = Collection(resource)
        return self._collections[name]

    def collections(self) -> list[Collection]:
        """Returns the collections of all kinds that have been used."""
        return list(self._collections.values())

    def get(self, resource: Resource[Any], key: ObjectKey) -> Json:
        """Returns an object with its managedFields."""
        return self._shown(resource, key, self._found(resource, key))

    def _found(self, resource: Resource[Any], key: ObjectKey) -> Json:
        found = self.collection(resource).objects.get(key)
        if found is None:
            raise NotFound(404, "NotFound", f'{resource} "{key.name}" not found')
        return found

    def create(self, resource: Resource[Any], namespace: str, body: Json, *, manager: str) -> Json:
        """Stores a new object."""
        obj = copy.deepcopy(body)
        metadata = obj.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            # The real API server detects this only in its storage, so the status is not 400.
            raise ServerError(500, "", "resourceVersion should not be set on objects to be created")
        check_namespace(resource, namespace, metadata)
        if not metadata.get("name") and metadata.get("generateName"):
            self._named += 1
            metadata["name"] = f"{metadata['generateName']}{self._named:05x}"
        key = ObjectKey(namespace if resource.namespaced else "", metadata.get("name", ""))
        if not key.name:
            raise invalid(
                resource, "", [Cause("metadata.name", "Required value: name or generateName is required")]
            )
        if key in self.collection(resource).objects:
            raise AlreadyExists(409, "AlreadyExists", f'{resource} "{key.name}" already exists')
        self._check_terminating(resource, key)
        return self._insert(resource, key, obj, manager)

    def patch(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        body: Any,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str,
        manager: str,
        force: bool,
        dry_run: bool = False,
    ) -> Json:
        """Patches an object and returns it. A dry run only returns the result."""
        if dry_run:
            return self._tried(
                resource,
                key,
                lambda server: server.patch(
                    resource, key, body, type=type, subresource=subresource, manager=manager, force=force
                ),
            )
        stored = self._patch(resource, key, body, type, subresource, manager, force)
        return self._shown(resource, key, stored)

    def _patch(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        body: Any,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str,
        manager: str,
        force: bool,
    ) -> Json:
        collection = self.collection(resource)
        if type is PatchType.APPLY:
            check_applied_uid(resource, key, collection.objects.get(key), body)
        if type is PatchType.APPLY and key not in collection.objects and not subresource:
            return self._create_applied(resource, key, body, manager)
        old = self._found(resource, key)
        owners = collection.owners.setdefault(key, Ownership())
        if type is PatchType.APPLY:
            check_version(resource, key, old, body)
            applied = strategy.for_apply(resource, body, subresource)
            tried = copy.deepcopy(owners)
            new = tried.apply(manager, old, applied, force=force, subresource=subresource)
            # The owners of the fields are part of the object.
            stored = self._update(resource, key, old, new, subresource, touched=tried != owners)
            if key in collection.owners:
                collection.owners[key] = tried
            return stored
        new = merged(old, body) if type is PatchType.MERGE else json_patched(old, body)
        check_version(resource, key, old, new)
        stored = self._update(resource, key, old, new, subresource)
        owners.update(manager, old, stored, subresource=subresource)
        return stored

    def delete(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
    ) -> Json:
        """Deletes an object immediately, or when its finalizers have been removed."""
        old = self._found(resource, key)
        for name, wanted in (("uid", uid), ("resourceVersion", resource_version)):
            if wanted and wanted != old["metadata"][name]:
                raise conflict(resource, key, f"Precondition failed: {name} is {old['metadata'][name]}")
        finalizers = list(old["metadata"].get("finalizers", ()))
        extra = _FINALIZERS.get(propagation)
        deleting = "deletionTimestamp" in old["metadata"]
        if extra and extra not in finalizers and not deleting:
            finalizers.append(extra)
        if not finalizers:
            return self._drop(resource, key, old)
        if deleting:
            return old
        return self._store(resource, key, strategy.for_delete(old, finalizers), old)

    def bind(self, resource: Resource[Any], key: ObjectKey, node: str) -> Json:
        """Binds a Pod to a node.

        Raises:
            Conflict: The Pod is already bound.
        """
        old = self._found(resource, key)
        if old.get("spec", {}).get("nodeName"):
            raise conflict(resource, key, f"pod {key.name} is already assigned to a node")
        return self._store(resource, key, {**old, "spec": {**old.get("spec", {}), "nodeName": node}}, old)

    def put(self, resource: Resource[Any], key: ObjectKey, fields: Json, metadata: Json) -> Json:
        """Creates an object or sets fields of it, including the status. The generation is updated."""
        old = self.collection(resource).objects.get(key)
        if old is None:
            obj = {"metadata": {"name": key.name, **metadata}, **copy.deepcopy(fields)}
            return self._insert(resource, key, obj, "user", status=True)
        new = {**old, **copy.deepcopy(fields), "metadata": {**old["metadata"], **metadata}}
        new = strategy.decoded(resource, new)
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        stored = self._store(resource, key, new, old)
        self.collection(resource).owners.setdefault(key, Ownership()).update("user", old, stored)
        return stored

    def forget(self) -> None:
        """Forgets the history, so that watches from an old version get 410 (Expired)."""
        for collection in self.collections():
            collection.forget(self.version)

    def _shown(self, resource: Resource[Any], key: ObjectKey, obj: Json) -> Json:
        """Returns an object as it is in a response."""
        owners = self.collection(resource).owners.get(key)
        managed = owners.managed_fields(resource.api_version) if owners is not None else []
        return {**obj, "metadata": {**obj["metadata"], "managedFields": managed}} if managed else obj

    def _tried(
        self, resource: Resource[Any], key: ObjectKey, change: Callable[["ModelServer"], Json]
    ) -> Json:
        """Returns the result of a change that is made on a copy."""
        copied, here = ModelServer(), self.collection(resource)
        copied.version, copied.validate = self.version, self.validate
        there = copied.collection(resource)
        if "namespaces" in self._collections:
            copied._collections.setdefault("namespaces", self._collections["namespaces"])
        there.made[key] = -1  # No real object has the UID of an object from a dry run.
        if key in here.objects:
            there.objects[key] = here.objects[key]
            there.owners[key] = copy.deepcopy(here.owners.get(key, Ownership()))
        answer = change(copied)
        metadata = {name: value for name, value in answer["metadata"].items() if name != "resourceVersion"}
        if key in here.objects:
            # Nothing is stored, so there is no new version.
            metadata["resourceVersion"] = here.objects[key]["metadata"]["resourceVersion"]
        return {**answer, "metadata": metadata}

    def _create_applied(self, resource: Resource[Any], key: ObjectKey, body: Json, manager: str) -> Json:
        obj = copy.deepcopy(body)
        obj.setdefault("metadata", {})["name"] = key.name
        # Only the version of an existing object is compared.
        obj["metadata"].pop("resourceVersion", None)
        owners = Ownership()
        owners.apply(manager, {}, strategy.for_apply(resource, obj, ""), force=False)
        self._check_terminating(resource, key)
        stored = self._insert(resource, key, obj, "")
        self.collection(resource).owners[key] = owners
        return stored

    def _check_terminating(self, resource: Resource[Any], key: ObjectKey) -> None:
        namespaces = self._collections.get("namespaces")
        if namespaces is not None and resource.namespaced:
            stored = namespaces.objects.get(ObjectKey("", key.namespace))
            check_terminating(resource, key.name, key.namespace, stored)

    def _insert(
        self, resource: Resource[Any], key: ObjectKey, obj: Json, manager: str, *, status: bool = False
    ) -> Json:
        made = self.collection(resource).made
        made[key] += 1
        # The same in all runs: derived from the name and the number of earlier objects with that name.
        uid = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{resource}/{key}/{made[key]}"))
        obj = strategy.for_create(resource, key, obj, uid, status=status)
        self._validate(resource, key, obj, None)
        owners = self.collection(resource).owners[key] = Ownership()
        owners.update(manager, {}, obj)
        return self._store(resource, key, obj, None)

    def _update(
        self,
        resource: Resource[Any],
        key: ObjectKey,
        old: Json,
        new: Json,
        subresource: str,
        *,
        touched: bool = False,
    ) -> Json:
        new = strategy.for_update(resource, key, old, new, subresource)
        if new == old and not touched:
            return old
        self._validate(resource, key, new, old)
        if "deletionTimestamp" in new["metadata"] and not new["metadata"].get("finalizers"):
            return self._drop(resource, key, new)
        return self._store(resource, key, new, old)

    def _store(self, resource: Resource[Any], key: ObjectKey, new: Json, old: Json | None) -> Json:
        new = self._versioned(new)
        self.collection(resource).objects[key] = new
        self._note(resource, EventType.MODIFIED if old else EventType.ADDED, new, old)
        return new

    def _drop(self, resource: Resource[Any], key: ObjectKey, last: Json) -> Json:
        collection = self.collection(resource)
        before = collection.objects.pop(key)
        collection.owners.pop(key, None)
        self._note(resource, EventType.DELETED, self._versioned(last), before)
        # The response has the previous version. Only watches get the version of the deletion.
        return last

    def _versioned(self, obj: Json) -> Json:
        self.version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}

    def _note(self, resource: Resource[Any], change: EventType, new: Json, old: Json | None) -> None:
        self.collection(resource).note(Change(self.version, change, new, old))
        for changed in self.changed:
            changed()

    def _validate(self, resource: Resource[Any], key: ObjectKey, new: Json, old: Json | None) -> None:
        if causes := self.validate(resource, new, old):
            raise invalid(resource, key.name, causes)
