"""Finds the secret values in v1 Secrets, and removes those that the API server quotes."""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pilothouse.telemetry.redaction import HIDDEN, Value

# The API server's rule for keys (apimachinery, IsConfigMapKey). An invalid key may be a misplaced value.
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
# The message of an admission webhook or policy is its author's text, which may quote anything.
_DENIED = re.compile(r"(denied (?:the )?request[^:]*: ).*", re.DOTALL)
# apimachinery, util/validation/field: errors that quote the value, and the text after it.
_QUOTING = re.compile(r"((?:Invalid|Unsupported|Duplicate) value|Not found|Internal error)\b.*", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`', re.DOTALL)
# structured-merge-diff: ".stringData.pin: expected string, got &value.valueUnstructured{Value:1234}".
_GOT = re.compile(r"\bgot .*")
# apimachinery, ValidateImmutableField: the end of the text after a quoted value.
_IMMUTABLE = ": field is immutable"
_SUBSCRIPT = re.compile(r"\[([^\]]*)\]")


def values_of(obj: object) -> Iterator[Value]:
    """Yields the secret values in a Secret, in a patch of one, or in a list of them."""
    content = obj if isinstance(obj, bytes) else msgspec.json.encode(obj, enc_hook=_content)
    try:
        secret = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return
    if not isinstance(secret, Mapping):
        return
    for each in _list(secret.get("items")):
        yield from values_of(each)
    for field in ("data", "stringData"):
        yield from _values(secret.get(field))
        for value in _items(secret.get(field)).values():
            if field == "data" and isinstance(value, str):
                yield from _decoded(value)


def refusal(message: str, causes: Sequence[str] = ()) -> str:
    """Returns the API server's message about a Secret without the values that it quotes.

    The fields, the reasons and the name of a denying webhook or policy are kept. Messages that quote only
    names (not found, RBAC, conflict) are returned unchanged.

    Args:
        message: The server's message.
        causes: Its causes by field, without values. They replace the server's own list, in which a value
            could hide the end of a cause.
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
        # The text of an admission policy.
        return "", HIDDEN
    return _SUBSCRIPT.sub(_subscript, field), _unquoted(_GOT.sub(f"got {HIDDEN}", message))


def _unquoted(text: str) -> str:
    # The text after a quoted value is dropped as well, because it may be a part of the value.
    unquoted = _QUOTED.sub(HIDDEN, _QUOTING.sub(rf"\1: {HIDDEN}", text))
    return unquoted + _IMMUTABLE if text.endswith(_IMMUTABLE) and unquoted.endswith(HIDDEN) else unquoted


def _subscript(match: re.Match[str]) -> str:
    return match[0] if _KEY.fullmatch(match[1]) else f"[{HIDDEN}]"


def _values(value: object) -> Iterator[Value]:
    """Yields all texts and numbers in a value that should be a mapping of texts, and invalid keys."""
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


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _decoded(value: str) -> Iterator[bytes]:
    try:
        yield base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        # It is plain text by mistake, and is hidden as such.
        return


def _content(obj: object) -> object:
    """Encodes a view that is not a Struct: Unstructured."""
    return getattr(obj, "content", None)
