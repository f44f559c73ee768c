"""Simplified server-side apply: field ownership, and the result of an apply.

An object is represented as a flat map from paths to plain values. Maps are merged field by field unless they
are in `ATOMIC_MAPS`. The lists in `LIST_KEYS` are merged item by item; any other list is one value. The
owners of a field are the managers that applied its current value, and the manager that last wrote it in
another way.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pilothouse.kube import Cause, Conflict
from pilothouse.testing.documents import Json

# The name of a field, or the keys of a list item: (("type", "Ready"),). For an item of a set: (("", "a"),).
Step: TypeAlias = str | tuple[tuple[str, Any], ...]
Path: TypeAlias = tuple[Step, ...]
Flat: TypeAlias = dict[Path, Any]

ATOMIC_MAPS = {
    "clientIPConfig",
    "configMapKeyRef",
    "dataSource",
    "fieldRef",
    "labelSelector",
    "namespaceSelector",
    "nodeSelector",
    "podSelector",
    "resourceFieldRef",
    "roleRef",
    "scaleTargetRef",
    "secretKeyRef",
    "selector",
}
"""Names of the fields whose maps are one value. In Kubernetes these have the marker `+structType=atomic` or
`+mapType=atomic` (k8s.io/api), or x-kubernetes-map-type in a CRD."""

LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "finalizers": (),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "protocol"),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Field name -> keys of the items, for lists that are merged item by item. A set has no keys. A list is one
value if an item lacks a key."""

_ATOMIC = {(name,) for name in ATOMIC_MAPS}
# Fields without owners: the server sets them itself. Of the metadata, only the fields below have owners.
_UNOWNED = {("apiVersion",), ("kind",)}
_OWNED_METADATA = {"annotations", "finalizers", "labels", "ownerReferences"}


class Manager(NamedTuple):
    """An owner of fields: the name, whether it applies, and the subresource."""

    name: str
    applies: bool
    subresource: str = ""


class Ownership:
    """The owners of the fields of one object."""

    def __init__(self) -> None:
        self._owned: dict[Manager, set[Path]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ownership) and self._present() == other._present()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def _present(self) -> dict[Manager, set[Path]]:
        return {manager: paths for manager, paths in self._owned.items() if paths}

    def managed_fields(self, api_version: str) -> list[Json]:
        """Returns `metadata.managedFields`, without the times."""
        return [
            {
                "manager": manager.name,
                "operation": "Apply" if manager.applies else "Update",
                "apiVersion": api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": _fields_v1(paths),
                **({"subresource": manager.subresource} if manager.subresource else {}),
            }
            for manager, paths in self._present().items()
        ]

    def update(self, manager: str, old: Json, new: Json, *, subresource: str = "") -> None:
        """Records a create or a patch: its manager becomes the only owner of the changed fields."""
        before, after = _owned_part(old), _owned_part(new)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        if not changed:
            return
        for paths in self._owned.values():
            paths.difference_update(changed)
        me = Manager(manager, False, subresource)
        self._owned.setdefault(me, set()).update(changed & after.keys())

    def apply(self, manager: str, live: Json, applied: Json, *, force: bool, subresource: str = "") -> Json:
        """Records an apply and returns the resulting object.

        Raises:
            Conflict: The apply changes a field that another manager owns, and `force` is not set.
        """
        me = Manager(manager, True, subresource)
        now = flat(live)
        # Applying an empty map only requires that the map exists.
        wanted = {
            path: value
            for path, value in _owned_part(applied).items()
            if value != {} or not any(len(own) > len(path) and _overlap(path, own) for own in now)
        }
        contested = {
            other: {path for path in paths if _differs(path, now, wanted)}
            for other, paths in self._owned.items()
            if other != me
        }
        if not force and any(contested.values()):
            raise _conflict(contested)
        for other, paths in contested.items():
            self._owned[other] -= paths
        given_up = self._owned.get(me, set()) - wanted.keys()
        others: Set[Path] = set().union(*(paths for other, paths in self._owned.items() if other != me))
        self._owned[me] = set(wanted)
        kept = {
            path: value
            for path, value in now.items()
            if path in wanted or not (path in given_up - others or any(_overlap(path, own) for own in wanted))
        }
        return nested(kept | wanted)


def _differs(path: Path, now: Flat, wanted: Flat) -> bool:
    if path in wanted:
        return bool(now.get(path) != wanted[path])
    return any(_overlap(path, own) for own in wanted)


def _overlap(one: Path, other: Path) -> bool:
    """Returns whether one of two different paths is a prefix of the other."""
    short = min(len(one), len(other))
    return one != other and one[:short] == other[:short]


def _conflict(contested: Mapping[Manager, Set[Path]]) -> Conflict:
    causes = tuple(
        Cause(_spelled(path), f'conflict with "{manager.name}"', "FieldManagerConflict")
        for manager, paths in contested.items()
        for path in sorted(paths, key=_spelled)
    )
    count = f"{len(causes)} conflict{'s' if len(causes) != 1 else ''}"
    details = "; ".join(f"{cause.message}: {cause.field}" for cause in causes)
    return Conflict(409, "Conflict", f"Apply failed with {count}: {details}", causes)


def _fields_v1(paths: Iterable[Path]) -> Json:
    """Returns the paths as metav1.FieldsV1."""
    root: Json = {}
    for path in paths:
        node = root
        for step in path:
            field = _field_v1(step)
            node = node.setdefault(field, {".": {}} if field.startswith("k:") else {})
    return root


def _field_v1(step: Step) -> str:
    if isinstance(step, str):
        return f"f:{step}"
    keys = dict(step)
    kind, written = ("v", keys[""]) if "" in keys else ("k", keys)
    return f"{kind}:{msgspec.json.encode(written, order='sorted').decode()}"


def _spelled(path: Path) -> str:
    return "".join(f".{step}" if isinstance(step, str) else f"[{_keys(step)}]" for step in path)


def _keys(step: tuple[tuple[str, Any], ...]) -> str:
    return ",".join(f'{name}="{value}"' if name else f'="{value}"' for name, value in step)


def _owned_part(obj: Json) -> Flat:
    return {
        path: value
        for path, value in flat(obj).items()
        if path not in _UNOWNED
        and not (path[0] == "metadata" and path[1:2] and path[1] not in _OWNED_METADATA)
    }


def flat(obj: Json) -> Flat:
    """Returns an object as a map from paths to plain values, empty maps, and lists that are one value."""
    return dict(_leaves(obj, ())) if obj else {}


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and path[-1:] not in _ATOMIC:
        for name, each in value.items():
            yield from _leaves(each, (*path, name))
    elif isinstance(value, list) and value and (steps := _steps(path[-1], value)) is not None:
        for step, each in zip(steps, value, strict=True):
            yield from _leaves(each, (*path, step))
    else:
        yield path, value


def _steps(field: Step, items: list[Any]) -> list[Step] | None:
    """Returns the steps to the items of a list; None if the list is one value."""
    keys = LIST_KEYS.get(field) if isinstance(field, str) else None
    if keys is None:
        return None
    if not keys:
        return [(("", item),) for item in items]
    if not all(isinstance(item, dict) and all(key in item for key in keys) for item in items):
        return None
    return [tuple((key, item[key]) for key in keys) for item in items]


def nested(paths: Flat) -> Json:
    """Returns the object for a flat map: the inverse of `flat`."""
    root: Json = {}
    for path, value in paths.items():
        node: Any = root
        for step, following in pairwise(path):
            node = _child(node, step, [] if isinstance(following, tuple) else {})
        if isinstance(node, list):
            node.append(value)
        else:
            node[path[-1]] = value
    return root


def _child(node: Any, step: Step, empty: Any) -> Any:
    if isinstance(step, str):
        if not node.get(step):
            node[step] = empty
        return node[step]
    for item in node:
        if all(item.get(name) == value for name, value in step):
            return item
    node.append(dict(step))
    return node[-1]
