"""Ownership: which objects a playbook may change, one rule for all modules.

An object belongs to the object that is reconciled if that object is its controller (the owner reference with
`controller: true`), or, where it has no controller, if its annotation `pilothouse.dev/owner-uid` holds the
UID of that object. UIDs are never reused: what an earlier object of the same name left behind belongs to no
one until a playbook takes it over.
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

NAME_TAKEN = "NameTaken"
NOT_OWNED = "NotOwned"

# The index of the reconciled kind that finds an object by its UID.
_UID = "uid"


def controller_of(metadata: ObjectMeta) -> OwnerReference | None:
    """Return the reference to the object that controls this one; None when there is none."""
    return next((each for each in metadata.owner_references if each.controller), None)


def owner_uid(metadata: ObjectMeta) -> str:
    """Return the UID of the object that this one belongs to; empty when it belongs to none."""
    controller = controller_of(metadata)
    return metadata.annotations.get(OWNER_UID, "") if controller is None else controller.uid


def owner_uids(obj: KubeObject) -> tuple[str, ...]:
    """Return what the index OWNER holds of an object: the UID of its owner."""
    uid = owner_uid(obj.metadata)
    return (uid,) if uid else ()


def owners_of(resource: Resource[Any], store: Store[Any]) -> Mapper[Any]:
    """Return the mapper from an object to its owner.

    Args:
        resource: The kind of the owner.
        store: The owners, in which an annotation's UID is looked up.
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
    """Return the failure of a module that would have to change an object that it did not make.

    Args:
        resource: The kind of the object.
        live: Its metadata.
        kind: The kind of the object that is reconciled.
        owner: The metadata of that object.
    """
    return TaskFailed(
        NAME_TAKEN,
        f"{resource.kind} {live.key} already exists and {whose(live, kind, owner)}. Delete it, or rename "
        f"the {kind.kind}. A playbook takes it over with adopt=True.",
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
    """Return the failure of a module that acts on owned objects only.

    Args:
        resource: The kind of the object.
        live: Its metadata.
        kind: The kind of the object that is reconciled.
        owner: The metadata of that object.
        action: What the module does: "delete".
        hint: A further sentence on what to do.
    """
    return TaskFailed(
        NOT_OWNED,
        f"Cannot {action} {resource.kind} {live.key}: it {whose(live, kind, owner)}. "
        f"{action.capitalize()} it manually, or rename the {kind.kind}.{hint} A playbook acts on objects of "
        "others with owned=False.",
    )


def whose(live: ObjectMeta, kind: Resource[Any], owner: ObjectMeta) -> str:
    """Return whose object it is that does not belong to the owner: "is controlled by Widget web".

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
        return f"belongs to another object, which may be gone (annotation {OWNER_UID}: {uid})"
    return "is not managed by any object"
