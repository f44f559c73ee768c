"""What must not be shown of v1 Secrets: their values, and what the API server quotes of them."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from pilothouse.kube.resource import Resource
from pilothouse.telemetry.redaction import HIDDEN, Value, hide

# The API server's rule for keys (apimachinery, IsConfigMapKey). What breaks it may be a value.
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_PATH = re.compile(r"/api/v1/(namespaces/[^/]+/)?secrets(/[^/]+)?")
# What an admission webhook or policy says is its author's text, which may quote anything.
_DENIED = re.compile(r"(denied (?:the )?request[^:]*: ).*", re.DOTALL)
# apimachinery, util/validation/field: errors that quote the value, and what follows it.
_QUOTING = re.compile(r"((?:Invalid|Unsupported|Duplicate) value|Not found|Internal error)\b.*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`', re.DOTALL)
# structured-merge-diff: ".stringData.pin: expected string, got &value.valueUnstructured{Value:1234}".
_GOT = re.compile(r"\bgot .*")
_SUBSCRIPT = re.compile(r"\[([^\]]*)\]")


def holds_secrets(resource: Resource[Any]) -> bool:
    """Whether a kind is v1 Secret."""
    return (resource.group, resource.kind) == ("", "Secret")


def is_secret_path(path: str) -> bool:
    """Whether a request's path is that of v1 Secrets."""
    return _PATH.fullmatch(path) is not None


def hide_contents(resource: Resource[Any], obj: object) -> None:
    """Hides the values of a Secret in every text while the present object is worked on.

    Args:
        resource: The kind; other kinds than Secret are ignored.
        obj: The Secret as JSON has it, or in a view of it; not to be changed later.
    """
    if holds_secrets(resource):
        hide(lambda: values_of(obj))


def values_of(obj: object) -> Iterator[Value]:
    """Yields the secret values in a Secret, or in a patch of one."""
    content = obj if isinstance(obj, bytes) else msgspec.json.encode(obj, enc_hook=_content)
    try:
        secret = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return
    if not isinstance(secret, Mapping):
        return
    for field in ("data", "stringData"):
        yield from _values(secret.get(field))
        for value in _items(secret.get(field)).values():
            if field == "data" and isinstance(value, str):
                yield from _decoded(value)


def refusal(message: str, causes: Sequence[str] = ()) -> str:
    """Returns what the API server said of a Secret without the values that it quotes.

    The fields, the reasons and the name of a denying webhook or policy are kept. Sentences that quote only
    names (not found, RBAC, conflict) are returned unchanged.

    Args:
        message: The server's sentence.
        causes: Its parts for the fields, without values. Joined here, no value can blur where one ends.
    """
    denied = _DENIED.sub(rf"\1{HIDDEN}", message)
    if denied != message:
        return denied
    head, invalid, rest = message.partition(" is invalid: ")
    if invalid:
        return f"{head}{invalid}{'; '.join(causes) or cause('spec', rest)[1]}"
    if _GOT.search(message):
        return _SUBSCRIPT.sub(_subscript, _GOT.sub(f"got {HIDDEN}", message))
    return message


def cause(field: str, message: str) -> tuple[str, str]:
    """Returns a cause of a Secret's refusal without the values that it quotes; see `refusal`."""
    if not field:
        # A policy's own text.
        return "", HIDDEN
    return _SUBSCRIPT.sub(_subscript, field), _unquoted(_GOT.sub(f"got {HIDDEN}", message))


def _unquoted(text: str) -> str:
    # What follows a quoted value is not kept either: a value may look like anything.
    return _QUOTED.sub(HIDDEN, _QUOTING.sub(rf"\1: {HIDDEN}", text))


def _subscript(match: re.Match[str]) -> str:
    return match[0] if _KEY.fullmatch(match[1]) else f"[{HIDDEN}]"


def _values(value: object) -> Iterator[Value]:
    """Yields all texts and numbers in what should be a mapping of texts, and keys that cannot be keys."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if not _KEY.fullmatch(name):
                yield name
            yield from _values(each)
    elif isinstance(value, list):
        for each in value:
            yield from _values(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _items(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _decoded(value: str) -> Iterator[bytes]:
    try:
        yield base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        # It was stated as plain text by mistake, and is hidden as such.
        return


def _content(obj: object) -> object:
    """Encodes a view that is not a Struct: Unstructured."""
    return getattr(obj, "content", None)
