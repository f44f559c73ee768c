"""Decoding of JSON into views, and encoding.

A decoder is built once per view, because building it takes a millisecond and decoding only microseconds.
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

# The end of msgspec's error message: the path of the wrong value.
_PLACE = re.compile(r" - at `[^`]*`$")

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def encodable(text: str) -> str:
    """Returns the text with each lone surrogate, which JSON cannot encode, replaced by a question mark."""
    return text if text.isascii() else text.encode(errors="replace").decode()


class ListMeta(msgspec.Struct, rename="camel"):
    """metav1.ListMeta: the version of the collection, and the continue token of the next page."""

    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class ObjectList(msgspec.Struct, Generic[T]):
    """A page of a list as the API server sends it."""

    metadata: ListMeta
    # Required, so that a response that is not a list is not decoded as an empty one. Go may write null.
    items: list[T] | None


class RawList(msgspec.Struct):
    """A page whose objects are decoded one by one, because one of them does not fit the view."""

    metadata: ListMeta
    items: list[msgspec.Raw] | None


class Event(msgspec.Struct, Generic[E], gc=False):
    """A line of a watch."""

    type: str
    object: E


class Head(msgspec.Struct):
    """The readable part of an object that does not fit its view."""

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
    """Returns the metadata of an object that does not fit its view, without malformed fields.

    If the name is empty, the object cannot be identified.
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
    """Returns the error for a response that is not what the API server should send."""
    hint = ""
    if body.lstrip()[:1] == b"<":
        hint = "; it is an HTML page, probably from a proxy or a login page: check the API server's address"
    return Undecodable(shorten(redacted(f"{what} cannot be read: {error}{hint}"), MESSAGE_LIMIT))


@lru_cache(maxsize=256)
def codec(view: type[T]) -> Codec[T]:
    """Returns the decoders of a view."""

    def decoder(kind: Any) -> Callable[[bytes], Any]:
        return msgspec.json.Decoder(kind, dec_hook=_unstructured).decode

    # The views are known only at run time.
    return Codec(decoder(view), decoder(ObjectList[view]), decoder(Event[view]))  # type: ignore[valid-type]


def _unstructured(kind: type, value: Any) -> Any:
    """Decodes `Unstructured`, the only view that is not a Struct. msgspec checks all other values."""
    return Unstructured(value) if kind is Unstructured and isinstance(value, dict) else value


def undecodable(resource: Resource[Any], body: bytes, error: Exception) -> Undecodable:
    """Returns the error for an object that does not fit its view, with the object's name if it has one.

    For a Secret, it contains only the path of the field, because the decoder's error may quote a value.
    """
    metadata = metadata_of(body)
    what = f"{resource} {metadata.key if metadata.name else '(unnamed)'}"
    if secrets.holds_secrets(resource):
        place = _PLACE.search(str(error))
        problem = f"it does not fit the view{place[0] if place else ''}"
    elif not metadata.name:
        return unreadable(what, body, error)
    else:
        problem = redacted(str(error))
    message = shorten(f"{what} cannot be read: {problem}", MESSAGE_LIMIT)
    return Undecodable(message, shorten(problem, MESSAGE_LIMIT) if metadata.name else "")
