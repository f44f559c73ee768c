"""Manifests as plain JSON: what an author states, with the mistakes that JSON would hide or that stop it.

msgspec would write NaN as null, a set in any order and a key that is a number as text. The object would then
differ from what the author means, without an error.
"""

import inspect
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

import msgspec

from pilothouse.kube import Resource, can_be_name, encodable
from pilothouse.playbook.arguments import shown
from pilothouse.playbook.awaited import PlaybookError

Json = dict[str, Any]

# The API server has no larger integers.
_INTEGER_BITS = 63
# So many digits in a document may belong to a larger integer. With `_DIGITS`, which replaces each digit by a
# zero, they are found in a tenth of the time that a regular expression takes.
_LONG = b"0" * 19
_DIGITS = bytes(0x30 if 0x30 <= each <= 0x39 else 0x20 for each in range(256))

# Types that msgspec would convert, but in a way that the author may not mean; and how to write the value.
_FIXES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((set, frozenset), "Write a list, such as sorted(...): a set has no order."),
    (
        (bytes, bytearray, memoryview),
        "Write text: value.decode(), or base64.b64encode(value).decode() in the data of a Secret.",
    ),
    (datetime, 'Write text, such as value.strftime("%Y-%m-%dT%H:%M:%SZ").'),
    ((date, time), "Write text, such as value.isoformat()."),
    (timedelta, "Write the text or number that the field expects, such as value.total_seconds()."),
    (type, "Write a value instead of a class."),
)


def plain(body: object, what: str) -> Json:
    """Returns a manifest or a patch as plain JSON: dicts, lists, text, numbers, booleans and None.

    Args:
        body: The manifest, as an author states it. Structs, Enums, UUIDs and Decimals are converted.
        what: What it is, for the errors: "the manifest of the ConfigMap".

    Raises:
        PlaybookError: It is not a mapping, or has a value that JSON cannot express. The text names the field.
    """
    if not isinstance(body, Mapping):
        raise PlaybookError(
            f"{what} is {_described(body)}, but must be a mapping, such as {{'spec': {{...}}}}"
        )
    try:
        encoded = msgspec.json.encode(body)
        document: Json = msgspec.json.decode(encoded)
        if document == body and _LONG not in encoded.translate(_DIGITS):
            return document
    except Exception:  # noqa: S110 - the slow way finds out which value it is
        pass
    try:
        found: Json = _plain(body, "", what)
    except RecursionError:
        raise PlaybookError(f"{what} is nested too deeply: it probably contains itself") from None
    return found


def require_identity(resource: Resource[Any], manifest: Json, what: str) -> None:
    """Refuses a manifest that contradicts the kind, and metadata of the wrong types.

    Raises:
        PlaybookError: The text names the field and the value.
    """
    for name, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        stated = manifest.get(name, expected)
        if stated != expected:
            raise PlaybookError(
                f"{what}: {name} is {shown(stated)}, but the Resource that is passed with it has "
                f"{expected!r}. Remove {name} from the manifest, or pass the Resource of {shown(stated)}."
            )
    metadata = manifest.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise PlaybookError(f"{what}: metadata is {shown(metadata)}, but must be a mapping")
    if "generateName" in metadata:
        raise PlaybookError(
            f"{what}: metadata.generateName would create another object in each reconcile. State "
            "metadata.name instead; see child_name."
        )
    for name in ("name", "namespace"):
        value = metadata.get(name, "")
        if name in metadata and (not isinstance(value, str) or not value):
            raise PlaybookError(
                f"{what}: metadata.{name} is {shown(value)}, but must be text that is not empty. Remove "
                "the field, or set it."
            )
        if not can_be_name(value):
            raise PlaybookError(
                f"{what}: metadata.{name} is {value!r}, but a {name} must not contain '/' or '%', or be "
                "'.' or '..'"
            )
    if metadata.get("namespace") and not resource.namespaced:
        raise PlaybookError(
            f"{what}: metadata.namespace is {metadata['namespace']!r}, but the kind is cluster-scoped. "
            "Remove the field."
        )
    for name in ("labels", "annotations"):
        _require_texts(metadata.get(name), f"{what}: metadata.{name}")
    for name in ("ownerReferences", "finalizers"):
        if metadata.get(name) is not None and not isinstance(metadata[name], list):
            raise PlaybookError(f"{what}: metadata.{name} is {shown(metadata[name])}, but must be a list")
    for number, each in enumerate(metadata.get("ownerReferences") or ()):
        if not isinstance(each, Mapping):
            raise PlaybookError(
                f"{what}: metadata.ownerReferences[{number}] is {shown(each)}, but must be a mapping"
            )


def _require_texts(values: object, what: str) -> None:
    if values is None:
        return
    if not isinstance(values, Mapping):
        raise PlaybookError(f"{what} is {shown(values)}, but must be a mapping")
    for name, value in values.items():
        if value is not None and not isinstance(value, str):
            raise PlaybookError(f"{what}.{name} is {shown(value)}, but must be text: write it in quotes")


def _plain(value: Any, path: str, what: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, path, what)
    if isinstance(value, str):
        if encodable(value) != value:
            raise _refused(path, what, "text with a lone surrogate", "Use text that UTF-8 can encode.")
        return value
    if isinstance(value, int):
        if value.bit_length() > _INTEGER_BITS and value != -(2**_INTEGER_BITS):
            size = f"an integer of {value.bit_length()} bits"
            raise _refused(path, what, size, "The API server has integers of 64 bits: write text, or less.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(path, what, repr(value), "JSON has no such number: write a finite one.")
        return value
    if isinstance(value, Mapping):
        return {_key(name, path, what): _plain(each, _join(path, name), what) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, f"{path}[{number}]", what) for number, each in enumerate(value)]
    return _converted(value, path, what)


def _key(name: object, path: str, what: str) -> str:
    if isinstance(name, Enum):
        name = name.value
    if not isinstance(name, str):
        place = path or "the top level"
        raise PlaybookError(
            f"{what}: a key in {place} is {_described(name)}, but the keys of a mapping must be text. Write "
            "str(key)."
        )
    return name


def _converted(value: Any, path: str, what: str) -> Any:
    """Converts a value of another type, such as a Struct or a UUID."""
    for types, fix in _FIXES:
        if isinstance(value, types):
            raise _refused(path, what, _described(value), fix)
    if inspect.iscoroutine(value):
        value.close()
        raise _refused(path, what, "a coroutine", "Write `await` before the call.")
    if callable(value):
        raise _refused(path, what, shown(value), "Call the function, and state what it returns.")
    try:
        converted = msgspec.to_builtins(value)
    except Exception:
        converted = value
    if type(converted) is type(value):
        raise _refused(path, what, _described(value), "Write text, a number, a list or a mapping.")
    return _plain(converted, path, what)


def _refused(path: str, what: str, value: str, fix: str) -> PlaybookError:
    return PlaybookError(f"{what}: {path} is {value}, which a manifest cannot contain. {fix}")


def _described(value: object) -> str:
    """Returns a value for an error. Bytes and text may be secret, so only their type is shown."""
    if isinstance(value, str):
        return "text"
    if inspect.iscoroutine(value):
        value.close()
        return "a coroutine that was not awaited"
    return shown(value)


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)
