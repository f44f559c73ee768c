"""JSON to views and back.

A decoder is built once per view: building costs a millisecond, decoding microseconds.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from pilothouse.kube import secrets
from pilothouse.kube.errors import MESSAGE_LIMIT, Undecodable, shorten
from pilothouse.kube.objects import KubeObject, ObjectMeta, Unstructured
from pilothouse.kube.resource import Resource
from pilothouse.telemetry.redaction import redacted

T = TypeVar("T", bound=KubeObject)
E = TypeVar("E")

# Where msgspec found the mistake.
_PLACE = re.compile(r" - at `[^`]*`$")

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def encodable(text: str) -> str:
    """A text with a question mark for what JSON's encoding does not have: lone surrogates."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class ListMeta(msgspec.Struct, rename="camel"):
    """metav1.ListMeta: the version of the collection, and where the next page starts."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectList(msgspec.Struct, Generic[T]):
    """A page as the server sends it."""

    metadata: ListMeta
    # Required: an answer that is not a list must not be read as an empty one. Go writes null for no items.
    items: list[T] | None


class RawList(msgspec.Struct):
    """A page whose objects are looked at one by one, because one of them does not fit the view."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None


class Event(msgspec.Struct, Generic[E], gc=False):
    """A line of a watch."""

    type: str
    object: E


class Head(msgspec.Struct):
    """What can be said of an object that does not fit its view."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


@dataclass(frozen=True)
class Codec(Generic[T]):
    """The decoders of one view."""

    object: Callable[[bytes], T]
    list: Callable[[bytes], ObjectList[T]]
    event: Callable[[bytes], Event[T]]


raw_list: Callable[[bytes], RawList] = msgspec.json.Decoder(RawList).decode
raw_event: Callable[[bytes], Event[Any]] = msgspec.json.Decoder(Event[msgspec.Raw]).decode
_head: Callable[[bytes], Head] = msgspec.json.Decoder(Head).decode
_METADATA = {each.encode_name: each for each in msgspec.structs.fields(ObjectMeta)}


def metadata_of(body: bytes) -> ObjectMeta:
    """Return the metadata of an object that does not fit its view, without the fields that are malformed.

    Without a name, nothing identifies the object.
    """
    try:
        return _head(body).metadata
    except Exception:
        try:
            fields = msgspec.json.decode(body)["metadata"].items()
        except Exception:
            return ObjectMeta()
    known = {}
    for wire, value in fields:
        if (field := _METADATA.get(wire)) is not None:
            with suppress(msgspec.ValidationError):
                known[field.name] = msgspec.convert(value, field.type)
    return ObjectMeta(**known)


def unreadable(what: str, body: bytes, error: Exception) -> Undecodable:
    """Return the error for bytes that are not what the API server should send."""
    hint = ""
    if body.lstrip()[:1] == b"<":
        hint = "; it is an HTML page, so a proxy or a login page answered: check the server's address"
    return Undecodable(shorten(redacted(f"{what} cannot be read: {error}{hint}"), MESSAGE_LIMIT))


@lru_cache(maxsize=256)
def codec(view: type[T]) -> Codec[T]:
    """Return the decoders of a view."""

    def decoder(kind: Any) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(kind, dec_hook=_unstructured).decode

    # What the views are is known at run time only.
    return Codec(decoder(view), decoder(ObjectList[view]), decoder(Event[view]))  # type: ignore[valid-type]


def _unstructured(kind: type, value: Any) -> Any:
    """Reads the one view that is no Struct; msgspec itself checks what else comes here."""
    return Unstructured(value) if kind is Unstructured and isinstance(value, dict) else value


def undecodable(resource: Resource[Any], body: bytes, error: Exception) -> Undecodable:
    """Return the error for an object that does not fit its view, with the object's name if it has one.

    Of a Secret it names the place only: the error may quote a value.
    """
    metadata = metadata_of(body)
    what = f"{resource} {metadata.key if metadata.name else '(unnamed)'}"
    if secrets.holds_secrets(resource):
        place = _PLACE.search(str(error))
        return Undecodable(f"{what} cannot be read: it does not fit the view{place[0] if place else ''}")
    return unreadable(what, body, error)
