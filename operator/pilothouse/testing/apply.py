"""Server-side apply, simplified: who owns which field, and what an apply changes.

An object is looked at as a flat map from paths to plain values. Maps are merged field by field unless they
are in `ATOMIC_MAPS`, the lists in `LIST_KEYS` item by item; every other list is one value. A field's owners
are those who applied it with its present value, and whoever else wrote it last.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import msgspec

from pilothouse.kube import Cause, Conflict
from pilothouse.testing.documents import Json

# A field's name, or the keys of a list's item: (("type", "Ready"),); of an item of a set: (("", "a"),).
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
"""Maps that are one value, by the name of their field: of the kinds of Kubernetes, those with the marker
`+structType=atomic` or `+mapType=atomic` (k8s.io/api); a CRD says x-kubernetes-map-type."""

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
"""Lists that are merged item by item, by the name of their field: the keys of an item; none for a set. A list
of that name whose items lack a key is one value."""

_ATOMIC = {(name,) for name in ATOMIC_MAPS}
# What the server keeps itself; of the rest of the metadata every field has owners.
_UNOWNED = {("apiVersion",), ("kind",)}
_OWNED_METADATA = {"annotations", "finalizers", "labels", "ownerReferences"}


class Manager(NamedTuple):
    """Who owns fields: a name, whether by apply, and through which subresource."""

    name: str
    applies: bool
    subresource: str = ""


class Ownership:
    """Who owns which fields of one object."""

    def __init__(self) -> None:
        self._owned: dict[Manager, set[Path]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ownership) and self._present() == other._present()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _present(self) -> dict[Manager, set[Path]]:
        return {manager: paths for manager, paths in self._owned.items() if paths}

    def managed_fields(self, api_version: str) -> list[Json]:
        """Return `metadata.managedFields`, without the times."""
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
        """Take a create or a patch: what it changed is its manager's alone."""
        before, after = _owned_part(old), _owned_part(new)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        if not changed:
            return
        for paths in self._owned.values():
            paths.difference_update(changed)
        me = Manager(manager, False, subresource)
        self._owned.setdefault(me, set()).update(changed & after.keys())

    def apply(self, manager: str, live: Json, applied: Json, *, force: bool, subresource: str = "") -> Json:
        """Take an apply; return the object that comes of it.

        Raises:
            Conflict: somebody else owns a field and wants another value, and the apply does not force.
        """
        me = Manager(manager, True, subresource)
        now = flat(live)
        # To apply an empty map asks only that there is one.
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
    """Whether one of two different paths leads through the other."""
    short = min(len(one), len(other))
    return one != other and one[:short] == other[:short]


def _conflict(contested: Mapping[Manager, Set[Path]]) -> Conflict:
    causes = tuple(
        Cause(_spelled(path), f'conflict with "{manager.name}"', "FieldManagerConflict")
        for manager, paths in contested.items()
        for path in sorted(paths, key=_spelled)
    )
    count = f"{len(causes)} conflict{'s' if len(causes) != 1 else ''}"
    told = "; ".join(f"{cause.message}: {cause.field}" for cause in causes)
    return Conflict(409, "Conflict", f"Apply failed with {count}: {told}", causes)


def _fields_v1(paths: Iterable[Path]) -> Json:
    """The paths as metav1.FieldsV1."""
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
    """Return an object as a map from paths to plain values, empty maps and lists that are one value."""
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
    """The steps to a list's items; None when the list is one value."""
    keys = LIST_KEYS.get(field) if isinstance(field, str) else None
    if keys is None:
        return None
    if not keys:
        return [(("", item),) for item in items]
    if not all(isinstance(item, dict) and all(key in item for key in keys) for item in items):
        return None
    return [tuple((key, item[key]) for key in keys) for item in items]


def nested(paths: Flat) -> Json:
    """Return the object of a flat map; the opposite of `flat`."""
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
