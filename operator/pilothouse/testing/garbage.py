"""The garbage collector of the model, which deletes dependents after their owners. Runs only when called."""

from collections.abc import Iterator
from typing import Any

from pilothouse.kube import ObjectKey, PatchType, Resource
from pilothouse.testing.documents import Json
from pilothouse.testing.server import FOREGROUND, ORPHAN, ModelServer


def collect(server: ModelServer) -> None:
    """Does what the garbage collector of a cluster does in the background, until there is nothing to do."""
    while _step(server):
        pass


def _step(server: ModelServer) -> bool:
    """Does one step, and returns whether there was one to do."""
    objects = list(_all(server))
    alive = {obj["metadata"]["uid"] for _, _, obj in objects}
    for resource, key, obj in objects:
        metadata = obj["metadata"]
        owners = metadata.get("ownerReferences", ())
        deleting = "deletionTimestamp" in metadata
        if owners and not deleting and not any(owner["uid"] in alive for owner in owners):
            server.delete(resource, key)
            return True
        finalizers = metadata.get("finalizers", ()) if deleting else ()
        dependents = [each for each in objects if _owned_by(each[2], metadata["uid"])]
        if ORPHAN in finalizers:
            for each in dependents:
                _disown(server, *each, metadata["uid"])
            _release(server, resource, key, obj, ORPHAN)
            return True
        if FOREGROUND in finalizers:
            living = [each for each in dependents if "deletionTimestamp" not in each[2]["metadata"]]
            for its_resource, its_key, _ in living:
                server.delete(its_resource, its_key)
            if not any(_blocks(each[2], metadata["uid"]) for each in dependents):
                _release(server, resource, key, obj, FOREGROUND)
                return True
            if living:
                return True
    return False


def _all(server: ModelServer) -> Iterator[tuple[Resource[Any], ObjectKey, Json]]:
    for collection in server.collections():
        for key, obj in collection.objects.items():
            yield collection.resource, key, obj


def _owned_by(obj: Json, uid: str) -> bool:
    return any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences", ()))


def _blocks(obj: Json, uid: str) -> bool:
    owners = obj["metadata"].get("ownerReferences", ())
    return any(owner["uid"] == uid and owner.get("blockOwnerDeletion") for owner in owners)


def _disown(server: ModelServer, resource: Resource[Any], key: ObjectKey, obj: Json, uid: str) -> None:
    others = [owner for owner in obj["metadata"]["ownerReferences"] if owner["uid"] != uid]
    _set_metadata(server, resource, key, ownerReferences=others)


def _release(server: ModelServer, resource: Resource[Any], key: ObjectKey, obj: Json, finalizer: str) -> None:
    left = [each for each in obj["metadata"]["finalizers"] if each != finalizer]
    _set_metadata(server, resource, key, finalizers=left)


def _set_metadata(server: ModelServer, resource: Resource[Any], key: ObjectKey, **fields: Any) -> None:
    server.patch(
        resource,
        key,
        {"metadata": fields},
        type=PatchType.MERGE,
        subresource="",
        manager="garbage-collector",
        force=False,
        dry_run=False,
    )
