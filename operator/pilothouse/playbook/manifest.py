"""Manifests: the desired state of an object, compared field by field with the stored one.

With server-side apply (kubernetes.io/docs/reference/using-api/server-side-apply) a field manager states the
fields that it owns. So an object matches a manifest if the manager owns exactly the fields of the manifest,
and each has its value in the object. Other fields belong to other managers. Only the API server knows which
fields belong together, which values are defaults, and how it writes a value. So the comparison here can only
find, without a request, that an object surely matches. What an apply changes is taken from its answer.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import msgspec

from pilothouse.kube import ObjectKey, ObjectMeta, Resource, Unstructured, hide_contents, holds_secrets
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.ownership import OWNER_UID
from pilothouse.playbook.plain import Json, plain, require_identity
from pilothouse.playbook.tasks import TaskFailed
from pilothouse.telemetry import HIDDEN, redacted

INVALID_MANIFEST = "InvalidManifest"

VALUE_LENGTH = 80

_UNOWNED = {"apiVersion", "kind", "metadata"}
_OWNED_METADATA = {"annotations", "finalizers", "labels", "ownerReferences"}


class Difference(NamedTuple):
    """A field that changes.

    Attributes:
        path: The path of the field.
        live: The value before; None: it did not exist.
        desired: The value after; None: it no longer exists.
        rivals: The other field managers that owned the field before. The operator's own is among them if
            another module of the operator wrote the field.
    """

    path: str
    live: Any
    desired: Any
    rivals: tuple[str, ...] = ()

    def line(self, *, hidden: bool = False) -> str:
        """Returns the line of a diff: "spec.replicas: 2 -> 3".

        Args:
            hidden: Whether to hide the values.
        """
        live, desired = _text(self.live, hidden), _text(self.desired, hidden)
        if self.live is None:
            return f"+ {self.path}: {desired}"
        if self.desired is None:
            return f"- {self.path}: {live}"
        return f"{self.path}: {live} -> {desired}"


# Only the API server sets these: it ignores them in an apply, or refuses it as a conflict.
_SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "managedFields",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)


def _require_appliable(manifest: Json, what: str) -> None:
    """Refuses a manifest with fields that an apply cannot set, and removes an empty status.

    Generated manifests have an empty status.

    Raises:
        PlaybookError: The text names the field.
    """
    for name in _SERVER_FIELDS:
        if manifest.get("metadata", {}).get(name) is not None:
            raise PlaybookError(
                f"{what}: metadata.{name} is stated, but only the API server sets it. Remove the field."
            )
    if manifest.pop("status", None):
        raise PlaybookError(
            f"{what}: status is stated, but the API server ignores it in an apply. Remove the field. A task "
            "can set only the status of the play's object, with play.status."
        )


def completed(
    resource: Resource[Any], body: Mapping[str, Any], kind: Resource[Any], owner: ObjectMeta, *, owned: bool
) -> Json:
    """Completes a manifest with kind, name, namespace, and the reference to the owner.

    Args:
        resource: The kind of the object.
        body: The manifest. Default for name and namespace: those of the owner.
        kind: The kind of the owner.
        owner: The metadata of the owner.
        owned: Whether to set an owner reference. If not, the object gets an annotation with the owner's UID.

    Raises:
        PlaybookError: The manifest is not JSON, contradicts the kind, has no namespace, or states the status
            or metadata that only the API server sets. Or the owner cannot own the object.
        TaskFailed: InvalidManifest: The manifest states a field that an apply could not remove later.
    """
    what = f"the manifest of the {resource.kind}"
    # As JSON, to compare it with the answers of the API server.
    manifest = plain(body, what)
    require_identity(resource, manifest, what)
    _require_appliable(manifest, what)
    if holds_secrets(resource):
        # A copy, because `_normalize` changes the manifest.
        hide_contents(resource, {name: manifest.get(name) for name in ("data", "stringData")})
    _normalize(resource, manifest)
    metadata = {"name": owner.name, **manifest.get("metadata", {})}
    if resource.namespaced and not metadata.setdefault("namespace", owner.namespace):
        raise PlaybookError(
            f"{what}: metadata.namespace is missing. State it, because {kind.kind} {owner.name} is "
            "cluster-scoped and has none."
        )
    if owned:
        if owner.namespace and owner.namespace != metadata.get("namespace"):
            where = "in another namespace" if resource.namespaced else "without a namespace"
            key = ObjectKey(metadata.get("namespace", ""), metadata["name"])
            raise PlaybookError(
                f"{kind.kind} {owner.key} cannot own {resource.kind} {key} {where}: use owned=False, and "
                "delete the object in the cleanup"
            )
        reference = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "name": owner.name,
            "uid": owner.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
        metadata["ownerReferences"] = [*(metadata.get("ownerReferences") or ()), reference]
    else:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), OWNER_UID: owner.uid}
    return {**manifest, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _normalize(resource: Resource[Any], body: Json) -> None:
    """Replaces or refuses fields that the API server copies to other fields: an apply could not remove those.

    The API server moves a Secret's `stringData` into `data`. A key that is later dropped from `stringData`
    would stay in `data`, where no manager owns it (issue 108008 of kubernetes/kubernetes).

    Raises:
        TaskFailed: InvalidManifest: The contents of a Secret are not valid, or a pod states `serviceAccount`.
    """
    if holds_secrets(resource):
        _without_string_data(body)
    for path, spec in _pod_specs(body):
        alias = spec.get("serviceAccount")
        if alias and alias != spec.get("serviceAccountName"):
            raise TaskFailed(
                INVALID_MANIFEST,
                f"The manifest of the {resource.kind} states {path}.serviceAccount, an alias that the API "
                "server ignores once serviceAccountName is set. State serviceAccountName instead.",
            )


def completed_patch(resource: Resource[Any], body: Mapping[str, Any]) -> Json:
    """Returns a merge patch in the form in which the API server stores it, and hides the values of a Secret.

    A Secret's `stringData` becomes `data`, because the API server never returns `stringData`: the patch would
    always seem to differ, and None would not remove a key.

    Args:
        resource: The kind of the object.
        body: The patch.

    Raises:
        PlaybookError: The patch is not JSON, contradicts the kind, or states a field that it cannot change.
        TaskFailed: InvalidManifest: The contents of a Secret are not valid.
    """
    what = f"the patch of the {resource.kind}"
    patch = plain(body, what)
    require_identity(resource, patch, what)
    _require_changeable(patch, what)
    if holds_secrets(resource):
        # A copy, because the patch is changed.
        hide_contents(resource, {name: patch.get(name) for name in ("data", "stringData")})
        _without_string_data(patch, patch=True)
    return patch


def _require_changeable(patch: Json, what: str) -> None:
    """Refuses a patch of the status, of the object's identity, or of metadata that only the API server sets.

    Raises:
        PlaybookError: The text names the fields.
    """
    unchangeable = {"name", "namespace", *_SERVER_FIELDS}
    stated = [f"metadata.{name}" for name in patch.get("metadata", {}) if name in unchangeable]
    if "status" in patch:
        stated.insert(0, "status")
    if stated:
        raise PlaybookError(
            f"{what}: {' and '.join(stated)} cannot be changed by a patch. Remove the "
            f"{'field' if len(stated) == 1 else 'fields'}."
        )


def _without_string_data(body: Json, *, patch: bool = False) -> None:
    """Merges `stringData` into `data`, where None is left out, or in a patch removes the key.

    Raises:
        TaskFailed: InvalidManifest: `data` or `stringData` is not a mapping, or a value in `stringData` is
            not text. In a patch `data` may be None, which removes all keys.
    """
    what = "patch" if patch else "manifest"
    for name in ("data", "stringData"):
        removes = patch and name == "data" and "stringData" not in body
        if name in body and not isinstance(body[name], Mapping) and not (removes and body[name] is None):
            shown = "None" if body[name] is None else f"of type {type(body[name]).__name__}"
            raise _invalid_secret(
                what, f"{name} is {shown}, but must be a mapping. Remove it, or state its keys."
            )
    if "stringData" not in body:
        return
    data = dict(body.get("data", {}))
    for name, value in body.pop("stringData").items():
        if value is None:
            if patch:
                data[name] = None
            continue
        if not isinstance(value, str):
            kind = type(value).__name__
            raise _invalid_secret(what, f"a value in stringData has the type {kind}, but must be text.")
        data[name] = base64.b64encode(value.encode()).decode()
    body["data"] = data


def _invalid_secret(what: str, why: str) -> TaskFailed:
    return TaskFailed(INVALID_MANIFEST, f"The {what} of the Secret is not valid: {why}")


def _pod_specs(body: Json) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the pod spec of a workload, with its path."""
    for path in ("spec", "spec.template.spec", "spec.jobTemplate.spec.template.spec"):
        found: Any = body
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and isinstance(found.get("containers"), Sequence):
            yield path, found


def fulfilled(manifest: Mapping[str, Any], live: Unstructured, manager: str) -> bool:
    """Returns whether an object surely matches a manifest, and the manager owns exactly its fields.

    If this returns False, the object may match nevertheless. A value that the API server treats as a whole
    (an atomic map or list, whose entry in managedFields is empty) must be equal, although the API server may
    have added defaults to it. And it may write a value in another form (0.5 as 500m). An apply finds out, and
    then changes nothing.
    """
    return _fulfilled(_stated(manifest), live.content, managed(live, manager))


def changes(
    before: Unstructured, after: Unstructured, manager: str, operation: str = "Apply"
) -> list[Difference]:
    """Returns what a write has changed, or would change, in the fields that have managers.

    Args:
        before: The object before the write.
        after: The answer of the API server.
        manager: The field manager of the write.
        operation: The operation of the write in managedFields: Apply, or Update for a patch.
    """
    trees = [
        Tree(_rival(each, manager, operation) if obj is before else "", each["fieldsV1"])
        for obj in (before, after)
        for each in _entries(obj)
        if "fieldsV1" in each
    ]
    old, new = _stated(before.content), _stated(after.content)
    if not {"f:status"} & managed(after, manager).keys():
        # An apply does not change it, and others write it at any time.
        old.pop("status", None)
        new.pop("status", None)
    found = list(_changes(old, new, trees, ""))
    if not found and managed(before, manager) != managed(after, manager):
        found.append(Difference("metadata.managedFields", None, manager))
    return found


def additions(manifest: Mapping[str, Any]) -> list[Difference]:
    """Returns the fields of an object that is created from a manifest, as differences."""
    stated = _stated(manifest)
    stated.pop("metadata", None)
    return list(_changes({}, stated, (), ""))


def managed(live: Unstructured, manager: str) -> Mapping[str, Any]:
    """Returns the fields (metav1.FieldsV1) that a manager has applied to an object; empty if it never has."""
    for entry in _entries(live):
        if (entry["manager"], entry["operation"], entry.get("subresource", "")) == (manager, "Apply", ""):
            fields: Mapping[str, Any] = entry.get("fieldsV1", {})
            return fields
    return {}


def _entries(obj: Unstructured) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = obj.content.get("metadata", {}).get("managedFields", ())
    return found


def _stated(obj: Mapping[str, Any]) -> Json:
    """Returns the part of an object whose fields have managers."""
    part = {name: value for name, value in obj.items() if name not in _UNOWNED}
    metadata = {name: value for name, value in obj["metadata"].items() if name in _OWNED_METADATA}
    return {"metadata": metadata, **part} if metadata else part


def _fulfilled(desired: Any, live: Any, owned: Mapping[str, Any]) -> bool:
    parts = owned.keys() - {"."}
    if not parts:
        return bool(desired == live)
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        fields = {f"f:{name}": name for name, value in desired.items() if value is not None}
        return parts == fields.keys() and all(
            _fulfilled(desired[name], live.get(name), owned[field]) for field, name in fields.items()
        )
    if isinstance(desired, Sequence) and isinstance(live, Sequence) and len(parts) == len(desired):
        return all(_item_fulfilled(item, live, owned, parts) for item in desired)
    return False


def _item_fulfilled(desired: Any, live: Sequence[Any], owned: Mapping[str, Any], parts: Set[str]) -> bool:
    """Returns whether an item is in a list that is merged by keys or as a set."""
    if not isinstance(desired, Mapping):
        return desired in live and any(
            field.startswith("v:") and msgspec.json.decode(field[2:]) == desired for field in parts
        )
    # A key that the manifest leaves out has the default of its schema, which only the API server knows.
    keys = {field: _key(field) for field in parts if field.startswith("k:")}
    known = [
        field
        for field, key in keys.items()
        if _has(key, {name: desired.get(name, key[name]) for name in key})
    ]
    if len(known) != 1:
        return False
    held = next((item for item in live if _has(item, keys[known[0]])), None)
    return _fulfilled(desired, held, owned[known[0]])


class Tree(NamedTuple):
    """The part of a field that a manager owns (metav1.FieldsV1).

    Attributes:
        rival: The name of the manager; empty for the entry of the write, and for fields owned after it. It is
            the operator's own name for fields that the operator wrote with another operation.
        fields: The owned subfields; empty if the manager owns the whole field.
    """

    rival: str
    fields: Mapping[str, Any]

    def below(self, name: str) -> "Tree | None":
        """Returns the owned part of a subfield; None if the manager does not own it."""
        if not self.fields:
            return self
        return Tree(self.rival, self.fields[name]) if name in self.fields else None


def _rival(entry: Mapping[str, Any], manager: str, operation: str) -> str:
    """Returns the manager of an entry of managedFields; empty if the entry is that of the write."""
    name = str(entry.get("manager", ""))
    return "" if (name, entry.get("operation")) == (manager, operation) else name


def _changes(old: Any, new: Any, trees: Sequence[Tree], path: str) -> Iterator[Difference]:
    """Compares two values of a field.

    Args:
        old: The value before.
        new: The value after.
        trees: The parts of it that managers own, which show how the API server merges its lists.
        path: The path of the field.
    """
    if old == new:
        return
    if isinstance(new, Mapping) and (isinstance(old, Mapping) or (new and old is None)):
        before = old or {}
        for name in {**before, **new}:
            below = _below(trees, f"f:{name}")
            yield from _changes(before.get(name), new.get(name), below, _join(path, name))
    elif isinstance(new, list) and isinstance(old, list):
        yield from _item_changes(old, new, trees, path)
    else:
        yield Difference(path, old, new, _rivals(trees))


def _item_changes(
    old: Sequence[Any], new: Sequence[Any], trees: Sequence[Tree], path: str
) -> Iterator[Difference]:
    fields = [field for tree in trees for field in tree.fields]
    if names := next((_key(field).keys() for field in fields if field.startswith("k:")), None):
        before, after = ({_named(item, names): item for item in items} for items in (old, new))
        for name in {**before, **after}:
            item = {**before.get(name, {}), **after.get(name, {})}
            below = [
                Tree(tree.rival, tree.fields[field])
                for tree in trees
                for field in tree.fields
                if _has(item, _key(field))
            ]
            yield from _changes(before.get(name), after.get(name), below, f"{path}[{name}]")
    elif any(field.startswith("v:") for field in fields):
        rivals = _rivals(trees)
        yield from (Difference(path, None, value, rivals) for value in new if value not in old)
        yield from (Difference(path, value, None, rivals) for value in old if value not in new)
    elif len(old) == len(new):
        for number, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(*pair, [tree for tree in trees if not tree.fields], f"{path}[{number}]")
    else:
        yield Difference(path, list(old) or None, list(new) or None, _rivals(trees))


def _below(trees: Iterable[Tree], field: str) -> list[Tree]:
    return [below for tree in trees if (below := tree.below(field)) is not None]


def _rivals(trees: Iterable[Tree]) -> tuple[str, ...]:
    return tuple(sorted({tree.rival for tree in trees if tree.rival}))


def _key(field: str) -> Mapping[str, Any]:
    """Returns the keys of a list item as stated in managedFields; empty for another field."""
    key: Mapping[str, Any] = msgspec.json.decode(field[2:]) if field.startswith("k:") else {}
    return key


def _named(item: Mapping[str, Any], names: Iterable[str]) -> str:
    return ",".join(str(item.get(name)) for name in names)


def _has(item: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
    return bool(key) and all(item.get(name) == value for name, value in key.items())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(value: Any, hidden: bool) -> str:
    if hidden:
        return HIDDEN
    # Redact before truncating: a part of a secret value would not be recognized.
    text = redacted(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def is_secret(resource: Resource[Any], path: str) -> bool:
    """Returns whether a field must not be shown: the data of a Secret, and annotations that may repeat it."""
    return holds_secrets(resource) and path.startswith(("data", "stringData", "metadata.annotations"))
