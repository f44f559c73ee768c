"""JSON to views and back.

A decoder is built once per view: building costs a millisecond, decoding microseconds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from pilothouse.kube.errors import MESSAGE_LIMIT, Undecodable, shorten
from pilothouse.kube.objects import KubeObject, ObjectMeta, Unstructured

T = TypeVar("T", bound=KubeObject)
E = TypeVar("E")

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
    items: list[T] | None = None


class RawList(msgspec.Struct):
    """A page whose objects are looked at one by one, because one of them does not fit the view."""

    metadata: ListMeta
    items: list[msgspec.Raw]


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
head: Callable[[bytes], Head] = msgspec.json.Decoder(Head).decode


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


def undecodable(resource: object, body: bytes, error: msgspec.DecodeError) -> Undecodable:
    """Return the error for an object that does not fit its view, naming the object if it can."""
    try:
        key = str(head(body).metadata.key)
    except msgspec.DecodeError:
        key = "(unnamed)"
    return Undecodable(shorten(f"{resource} {key} cannot be read: {error}", MESSAGE_LIMIT))
