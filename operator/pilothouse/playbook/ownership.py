"""Ownership: which objects a playbook may change, one rule for all modules.

An object belongs to the object that is reconciled if that object is its controller (the owner reference with
`controller: true`), or if it has no controller and its annotation `pilothouse.dev/owner-uid` holds the UID of
that object. UIDs are never reused: an object that belonged to an earlier object of the same name belongs to
no object until a playbook takes it over.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pilothouse.controller import Mapper, owner_mapper
from pilothouse.informer import Store
from pilothouse.kube import KubeObject, ObjectKey, ObjectMeta, OwnerReference, Resource
from pilothouse.playbook.tasks import TaskFailed

OWNER_UID = "pilothouse.dev/owner-uid"
"""The annotation of an object that outlives its owner: the UID of that owner."""

CREATED_FROM = "pilothouse.dev/created-from"
"""The annotation of an object that `create` created: a digest of the manifest with the owner's UID."""

NAME_TAKEN = "NameTaken"
NOT_OWNED = "NotOwned"

# The index of the reconciled kind that finds an object by its UID.
_UID = "uid"


def controller_of(metadata: ObjectMeta) -> OwnerReference | None:
    """Returns the reference to the object that controls this one; None if there is none."""
    return next((each for each in metadata.owner_references if each.controller), None)


def owner_uid(metadata: ObjectMeta) -> str:
    """Returns the UID of the object that this one belongs to; empty if it belongs to none."""
    controller = controller_of(metadata)
    return metadata.annotations.get(OWNER_UID, "") if controller is None else controller.uid


def refers_to_owner(metadata: ObjectMeta, uid: str) -> bool:
    """Returns whether an object belongs to the object with a UID, or has an owner reference to it."""
    return owner_uid(metadata) == uid or any(each.uid == uid for each in metadata.owner_references)


def owner_uids(obj: KubeObject) -> tuple[str, ...]:
    """Returns the values of an object in the index OWNER: the UID of its owner."""
    uid = owner_uid(obj.metadata)
    return (uid,) if uid else ()


def owners_of(resource: Resource[Any], store: Store[Any]) -> Mapper[Any]:
    """Returns the mapper from an object to its owner.

    Args:
        resource: The kind of the owner.
        store: The store of the owners, to find the one with the UID of an annotation.
    """
    by_reference = owner_mapper(resource)

    def owners(obj: KubeObject) -> Iterable[ObjectKey]:
        uid = obj.metadata.annotations.get(OWNER_UID)
        if not uid or controller_of(obj.metadata) is not None:
            return by_reference(obj)
        # Added at the first annotated object, because most operators have none: it costs memory per owner.
        with suppress(ValueError):
            store.add_index(_UID, lambda owner: (owner.metadata.uid,))
        return [owner.metadata.key for owner in store.by_index(_UID, uid)]

    return owners


def name_taken(
    resource: Resource[Any], live: ObjectMeta, kind: Resource[Any], owner: ObjectMeta
) -> TaskFailed:
    """Returns the failure of a module that would have to change an object of another owner.

    Args:
        resource: The kind of the object.
        live: Its metadata.
        kind: The kind of the object that is reconciled.
        owner: The metadata of that object.
    """
    return TaskFailed(
        NAME_TAKEN,
        f"{resource.kind} {live.key} already exists and {whose(live, kind, owner)}. Delete it, or "
        f"use another name for the {kind.kind}.",
    )


def not_owned(
    resource: Resource[Any],
    live: ObjectMeta,
    kind: Resource[Any],
    owner: ObjectMeta,
    *,
    action: str,
    hint: str = "",
) -> TaskFailed:
    """Returns the failure of a module that acts only on owned objects.

    Args:
        resource: The kind of the object.
        live: Its metadata.
        kind: The kind of the object that is reconciled.
        owner: The metadata of that object.
        action: The verb of the module, such as "delete".
        hint: Another sentence on what to do.
    """
    if live.uid == owner.uid:
        return TaskFailed(
            NOT_OWNED,
            f"play.{action} of {resource.kind} {live.key} needs owned=False, because it is the object that "
            "is reconciled, which does not own itself.",
        )
    return TaskFailed(
        NOT_OWNED,
        f"Cannot {action} {resource.kind} {live.key}: it {whose(live, kind, owner)}. "
        f"{action.capitalize()} it manually, or use another name for the {kind.kind}.{hint}",
    )


def whose(live: ObjectMeta, kind: Resource[Any], owner: ObjectMeta) -> str:
    """Returns to whom an object belongs that does not belong to the owner: "is controlled by Widget web".

    Args:
        live: The metadata of the object.
        kind: The kind of the owner.
        owner: The metadata of the owner.
    """
    controller = controller_of(live)
    if controller is not None:
        if (controller.kind, controller.name) == (kind.kind, owner.name):
            return f"is controlled by an earlier {kind.kind} {owner.name} (UID {controller.uid})"
        return f"is controlled by {controller.kind} {controller.name}"
    if uid := live.annotations.get(OWNER_UID):
        return f"belongs to another object, which may no longer exist (annotation {OWNER_UID}: {uid})"
    return "is not managed by any object"
