"""The failure of a change that the API server does not allow on an existing object.

The API server answers a change of a Pod with a dump of both specs, which is long and may contain secrets. The
failure names only the fields.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pilothouse.api import Quantity
from pilothouse.kube import Invalid, Resource, Unstructured
from pilothouse.playbook.arguments import enumerated
from pilothouse.playbook.manifest import managed
from pilothouse.playbook.tasks import TaskFailed

IMMUTABLE = "Immutable"

# How the validation of Kubernetes, and by convention the rules of CRDs, word the refusal of such a change.
_REFUSED = re.compile(
    r"immutable|unchangeable|read-?only"
    r"|(?:may|must|should|can|is|are) ?n[o']t (?:allowed to |permitted to )?(?:be )?"
    r"(?:change|modif|update|alter|replace|edit|add or remove|unset)"
    r"|can ?not be less than (?:previous|status)"
    r"|(?:updates?|changes?|changing|updating|modifying) .*(?:forbidden|not (?:allowed|permitted|possible))"
    # A transition rule of a CRD without a message of its own.
    r"|failed rule: .*\boldSelf\b",
    re.IGNORECASE,
)
# apimachinery, util/validation/field: errors that quote the value before the reason.
_QUOTING = re.compile(r"(?:Invalid|Unsupported|Duplicate) value: ")
_JSON = json.JSONDecoder()
# The fields of an existing Pod that can be changed.
_CHANGED_IN_A_POD = re.compile(
    r"spec\.(?:containers|initContainers)\[[^\]]*\]\.image|spec\.activeDeadlineSeconds|spec\.tolerations.*"
)
# The number of fields that the message names.
_NAMED = 5
_HOLDS_DATA = {"PersistentVolumeClaim", "PersistentVolume", "Namespace"}


def immutable(
    resource: Resource[Any],
    refusal: Invalid,
    desired: Mapping[str, Any],
    live: Unstructured,
    manager: str,
) -> TaskFailed | None:
    """Returns the failure of a change of fields that cannot be changed.

    Args:
        resource: The kind of the object.
        refusal: The answer of the API server.
        desired: The manifest or the patch.
        live: The object.
        manager: The field manager that applied the manifest.

    Returns:
        The failure; None if the refusal has another cause.
    """
    causes = [cause for cause in refusal.causes if _REFUSED.search(_reason(cause.message))]
    if not causes:
        return None
    fields = {cause.field: None for cause in causes if cause.field not in ("", "spec")}
    if not fields:
        pod = (resource.group, resource.kind) == ("", "Pod")
        fields = {
            path: None
            for path in _differing(desired, live.content, managed(live, manager), "")
            if path.startswith("spec.") and not (pod and _CHANGED_IN_A_POD.fullmatch(path))
        }
    names = list(fields) or ["spec"]
    what = f"{enumerated(names, _NAMED)} of {resource.kind} {live.metadata.key}"
    loss = " Its data is deleted with it." if resource.kind in _HOLDS_DATA else ""
    return TaskFailed(
        IMMUTABLE,
        f"Cannot change {what}: the API server does not accept this change of an existing "
        f"{resource.kind}. Undo the change, or delete the {resource.kind} so that it is created again.{loss}",
        permanent=True,
    )


def _reason(message: str) -> str:
    """Returns the reason of a refusal without the value that the API server quotes.

    A value, such as the template of a Job, may contain any word.
    """
    quoting = _QUOTING.match(message)
    if quoting is None:
        # A dump of the two specs follows on further lines.
        return message.partition("\n")[0]
    try:
        _, end = _JSON.raw_decode(message, quoting.end())
    except ValueError:
        # The value is a Go literal, or its middle was left out.
        return message.rpartition(": ")[2]
    return message[end:]


def _differing(desired: Any, live: Any, owned: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yields the fields that an apply would change.

    Only the API server knows defaults and notations. So this may yield a field too many, which is acceptable
    in a message for people.

    Args:
        desired: The desired value of a field.
        live: Its current value.
        owned: The part of it that the manager owns (metav1.FieldsV1).
        path: The path of the field.
    """
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        for name, value in desired.items():
            at = f"{path}.{name}" if path else name
            yield from _differing(value, live.get(name), owned.get(f"f:{name}", {}), at)
        for field in owned:
            name = field.removeprefix("f:")
            if field.startswith("f:") and name not in desired and name in live:
                yield f"{path}.{name}" if path else name
    elif _is_keyed(desired) and _is_keyed(live):
        yield from _items_differing(desired, live, owned, path)
    elif isinstance(desired, list) and isinstance(live, list):
        if not _covers(live, desired):
            yield path
    elif not _same(desired, live):
        yield path


def _items_differing(
    desired: Sequence[Mapping[str, Any]],
    live: Sequence[Mapping[str, Any]],
    owned: Mapping[str, Any],
    path: str,
) -> Iterator[str]:
    held = {item["name"]: item for item in live}
    below = {
        msgspec.json.decode(field[2:]).get("name"): tree
        for field, tree in owned.items()
        if field.startswith("k:")
    }
    for item in desired:
        at = f"{path}[{item['name']}]"
        if item["name"] in held:
            yield from _differing(item, held[item["name"]], below.get(item["name"], {}), at)
        else:
            yield at
    names = {item["name"] for item in desired}
    yield from (f"{path}[{name}]" for name in below if name in held and name not in names)


def _is_keyed(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value)


def _covers(live: Any, desired: Any) -> bool:
    """Returns whether a value is the desired one, possibly with added defaults."""
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        return all(_covers(live.get(name), value) for name, value in desired.items())
    if isinstance(desired, list) and isinstance(live, list):
        return len(desired) <= len(live) and all(map(_covers, live, desired))
    return _same(desired, live)


def _same(desired: Any, live: Any) -> bool:
    if desired == live or (live is None and not desired):
        return True
    if not (isinstance(desired, int | str) and isinstance(live, int | str)):
        return False
    try:
        return Quantity.parse(desired) == Quantity.parse(live)
    except ValueError:
        return False
