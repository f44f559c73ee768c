"""Manifests: what is asked of an object, compared with what the server holds, field by field.

Server-side apply (kubernetes.io/docs/reference/using-api/server-side-apply) lets a manager state the fields
that it cares about. So a manifest is fulfilled when each of its fields has its value in the live object, and
when the manager owns no field that it does not state any more; the rest belongs to others.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from pilothouse.kube import KubeObject, ObjectMeta, Resource

Json = dict[str, Any]

VALUE_LENGTH = 80
# A label's value, and the name of a Service or of a Job with its Pods, has 63 characters at most.
NAME_LENGTH = 63
DIGEST_LENGTH = 8


class ManagedFields(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """metav1.ManagedFieldsEntry: what one manager owns."""

    manager: str = ""
    operation: str = ""
    subresource: str = ""
    fields_v1: Mapping[str, Any] = {}


class ManagedMeta(ObjectMeta, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """Metadata with who owns which fields."""

    managed_fields: tuple[ManagedFields, ...] = ()


class Difference(NamedTuple):
    """A field that is not as it is asked for. None: it is not there."""

    path: str
    live: Any
    desired: Any

    def told(self, *, hidden: bool = False) -> str:
        """A line for people: "spec.replicas: 2 -> 3".

        Args:
            hidden: The values are nobody's business.
        """
        live, desired = _told(self.live, hidden), _told(self.desired, hidden)
        if self.live is None:
            return f"+ {self.path}: {desired}"
        if self.desired is None:
            return f"- {self.path}: {live}"
        return f"{self.path}: {live} -> {desired}"


@lru_cache(maxsize=256)
def full_view(resource: Resource[Any], fields: tuple[str, ...]) -> Resource[Any]:
    """A resource whose view holds some top-level fields as they are, and who manages what."""
    names = [f"field_{number}" for number in range(len(fields))]
    view = msgspec.defstruct(
        f"Full{resource.kind}",
        [("metadata", ManagedMeta), *((name, Any, None) for name in names)],
        rename=dict(zip(names, fields, strict=True)),
        omit_defaults=True,
    )
    return replace(resource, view=view)


def differences(manifest: Mapping[str, Any], live: KubeObject | None, manager: str) -> list[Difference]:
    """What keeps a live object from being as a manifest asks; None: there is none.

    Lists are compared as the server merges them where it says how (by keys, as sets), else as a whole. What
    the server writes in another way than it was asked (quantities such as 0.5 and 500m) counts as different.

    Args:
        manifest: What is asked for.
        live: The object, in a `full_view`.
        manager: Whose fields count as no longer asked for when the manifest leaves them out.
    """
    asked = {name: value for name, value in manifest.items() if name not in ("apiVersion", "kind")}
    if live is None:
        return list(_differences({**asked, "metadata": None}, None, {}, ""))
    return list(_differences(asked, msgspec.to_builtins(live), managed(live, manager), ""))


def managed(live: KubeObject, manager: str) -> Mapping[str, Any]:
    """The fields (metav1.FieldsV1) that a manager has applied to a live object; empty when it never did."""
    for entry in getattr(live.metadata, "managed_fields", ()):
        if (entry.manager, entry.operation, entry.subresource) == (manager, "Apply", ""):
            fields: Mapping[str, Any] = entry.fields_v1
            return fields
    return {}


def _differences(desired: Any, live: Any, owned: Mapping[str, Any], path: str) -> Iterator[Difference]:
    if isinstance(desired, Mapping) and isinstance(live, Mapping | None):
        yield from _fields(desired, live or {}, owned, path)
    elif isinstance(desired, list | tuple) and isinstance(live, list | tuple | None):
        yield from _items(desired, live or (), owned, path)
    elif desired is not None and desired != live:
        yield Difference(path, live, desired)


def _fields(
    desired: Mapping[str, Any], live: Mapping[str, Any], owned: Mapping[str, Any], path: str
) -> Iterator[Difference]:
    for name, value in desired.items():
        yield from _differences(value, live.get(name), owned.get(f"f:{name}", {}), _join(path, name))
    for field in owned:
        name = field[2:]
        if field.startswith("f:") and desired.get(name) is None:
            yield Difference(_join(path, name), live.get(name, "?"), None)


def _items(
    desired: Sequence[Any], live: Sequence[Any], owned: Mapping[str, Any], path: str
) -> Iterator[Difference]:
    keyed = {field: msgspec.json.decode(field[2:]) for field in owned if field.startswith("k:")}
    values = [msgspec.json.decode(field[2:]) for field in owned if field.startswith("v:")]
    if keyed:
        yield from _keyed_items(desired, live, owned, keyed, path)
    elif values:
        for value in desired:
            if value not in live:
                yield Difference(path, None, value)
        for value in values:
            if value not in desired:
                yield Difference(path, value, None)
    elif len(desired) != len(live):
        yield Difference(path, list(live) or None, list(desired) or None)
    else:
        for number, (wanted, held) in enumerate(zip(desired, live, strict=True)):
            yield from _differences(wanted, held, {}, f"{path}[{number}]")


def _keyed_items(
    desired: Sequence[Any],
    live: Sequence[Any],
    owned: Mapping[str, Any],
    keyed: Mapping[str, Mapping[str, Any]],
    path: str,
) -> Iterator[Difference]:
    names = next(iter(keyed.values())).keys()
    asked: set[str] = set()
    for wanted in desired:
        # A key that the manifest leaves out has the default of its schema, which only the server knows.
        known = {name: wanted[name] for name in names if name in wanted}
        held = next((each for each in live if _has(each, known)), None)
        field = next((field for field, key in keyed.items() if _has(key, known)), "")
        asked.add(field)
        here = f"{path}[{','.join(map(str, known.values()))}]"
        yield from _differences(wanted, held, owned.get(field, {}), here)
    for field, key in keyed.items():
        if field not in asked:
            yield Difference(f"{path}[{','.join(map(str, key.values()))}]", "?", None)


def _has(item: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    return all(item.get(name) == value for name, value in fields.items())


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _told(value: Any, hidden: bool) -> str:
    if hidden:
        return "(hidden)"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= VALUE_LENGTH else f"{text[: VALUE_LENGTH - 3]}..."


def is_secret(resource: Resource[Any], path: str) -> bool:
    """Whether a field must not be shown: the contents of a Secret, and what somebody else noted of them."""
    if resource.group or resource.kind != "Secret":
        return False
    return path.startswith(("data", "stringData", "metadata.annotations"))


def digest(content: object) -> str:
    """A few letters that stand for a content: the same for the same, in any process."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()[:DIGEST_LENGTH]


def child_name(*parts: str) -> str:
    """A name made of parts, the same for the same parts, that fits where Kubernetes takes names.

    Joined by hyphens; one that were too long is cut and ends in a digest of the whole.
    """
    name = re.sub(r"[^a-z0-9.-]+", "-", "-".join(parts).lower()).strip("-.")
    if len(name) <= NAME_LENGTH:
        return name
    return f"{name[: NAME_LENGTH - DIGEST_LENGTH - 1].rstrip('-.')}-{digest(name)}"
