"""What the server answers, read into views: objects, pages, and the lines of a watch.

Of an object that does not fit its view, pages and watches have only its metadata and the reason, with a count
in `pilothouse_undecodable_objects_total`: one bad object must not hide the others.
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

import msgspec

from pilothouse.kube import codec
from pilothouse.kube.errors import Status, Undecodable, api_error
from pilothouse.kube.objects import KubeObject, ObjectMeta
from pilothouse.kube.resource import Resource
from pilothouse.kube.secrets import holds_secrets
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# k8s.io/apimachinery, meta/v1 InitialEventsAnnotationKey.
_END_OF_LIST = "k8s.io/initial-events-end"


class EventType(StrEnum):
    """What a line of a watch says.

    END_OF_LIST is the bookmark after the last of the objects that were there when a `watch_list` began.
    """

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    END_OF_LIST = "END_OF_LIST"


class Misfit(NamedTuple):
    """An object that does not fit the view.

    Attributes:
        metadata: What can be read of its metadata.
        why: Which field does not fit, and why.
    """

    metadata: ObjectMeta
    why: str


class Page(NamedTuple, Generic[T]):
    """Some objects of a collection, and the version of the collection that all its pages show.

    `misfits` are there, too, and do not fit the view.
    """

    items: list[T]
    resource_version: str
    misfits: tuple[Misfit, ...] = ()


class WatchEvent(NamedTuple, Generic[T]):
    """A change. A bookmark has no object: it only says how far the stream has come.

    `misfit` is in the place of an object that does not fit the view. Whoever holds the object keeps what was
    last known of it, until it is corrected or DELETED.
    """

    type: EventType
    object: T | None
    resource_version: str
    misfit: Misfit | None = None


# The server writes the type first.
_BOOKMARK = b'{"type":"BOOKMARK"'
_ERROR = b'{"type":"ERROR"'
_CHANGES = {each.value: each for each in (EventType.ADDED, EventType.MODIFIED, EventType.DELETED)}


def read_object(resource: Resource[T], body: bytes) -> T:
    """Return an object.

    Raises:
        Undecodable: it does not fit the view.
    """
    decode: Callable[[bytes], T] = codec.codec(resource.view).object
    try:
        return decode(body)
    except Exception as error:  # a view's own checks may raise anything
        refused = codec.undecodable(resource, body, error)
        # The decoder's error may quote a value, and a traceback shows what an error was raised from.
        raise refused from (None if holds_secrets(resource) else error)


def read_page(resource: Resource[T], body: bytes) -> tuple[Page[T], str]:
    """Return a page of a list, and where the next one starts; empty after the last.

    Raises:
        Undecodable: it is not a list, or an object in it has no name.
    """
    try:
        read = codec.codec(resource.view).list(body)
    except Exception:  # found out object by object
        return _page_with_misfits(resource, body)
    items = read.items or []
    if not all(each.metadata.name for each in items):
        raise _nameless(resource)
    return Page(items, read.metadata.resource_version), read.metadata.continue_


def event_reader(resource: Resource[T]) -> Callable[[bytes], WatchEvent[T]]:
    """Return a function that reads a line of a watch.

    It raises an ApiError for a line that carries one, and Undecodable for a line that is not an event of a
    known type about an object with a name.
    """
    decode = codec.codec(resource.view).event

    def read(line: bytes) -> WatchEvent[T]:
        # Lines of these two carry no object of the kind.
        if not line.startswith((_BOOKMARK, _ERROR)):
            try:
                event = decode(line)
                metadata = event.object.metadata
                if metadata.name:
                    return WatchEvent(_CHANGES[event.type], event.object, metadata.resource_version)
            except Exception:  # noqa: S110 - a line that needs a closer look
                pass
        return _without_object(resource, line)

    return read


def _page_with_misfits(resource: Resource[T], body: bytes) -> tuple[Page[T], str]:
    items, misfits = [], []
    try:
        raw = codec.raw_list(body)
    except Exception as error:
        raise codec.unreadable(f"the list of {resource}", body, error) from error
    for each in raw.items or ():
        metadata = codec.metadata_of(bytes(each))
        if not metadata.name:
            raise _nameless(resource)
        try:
            items.append(read_object(resource, bytes(each)))
        except Undecodable as error:
            misfits.append(_misfit(resource, metadata, error))
    return Page(items, raw.metadata.resource_version, tuple(misfits)), raw.metadata.continue_


def _without_object(resource: Resource[T], line: bytes) -> WatchEvent[T]:
    """Return the event of a line that carries no readable object: a bookmark, an error, or a misfit."""
    try:
        event = codec.raw_event(line)
        status = msgspec.json.decode(event.object, type=Status) if event.type == "ERROR" else None
    except Exception as error:
        raise codec.unreadable(f"a line of the watch of {resource}", line, error) from error
    body = bytes(event.object)
    if status is not None:
        raise api_error(status.code or 500, body)
    metadata = codec.metadata_of(body)
    if event.type == EventType.BOOKMARK:
        listed = metadata.annotations.get(_END_OF_LIST) == "true"
        kind = EventType.END_OF_LIST if listed else EventType.BOOKMARK
        return WatchEvent(kind, None, metadata.resource_version)
    if event.type not in _CHANGES:
        raise Undecodable(f"the watch of {resource} sent an event of an unknown type: {event.type[:50]!r}")
    if not metadata.name:
        raise _nameless(resource)
    try:
        read_object(resource, body)
    except Undecodable as error:
        misfit = _misfit(resource, metadata, error)
    else:
        misfit = Misfit(metadata, "its event cannot be read")
    return WatchEvent(_CHANGES[event.type], None, metadata.resource_version, misfit)


def _nameless(resource: Resource[T]) -> Undecodable:
    return Undecodable(f"the server sent an object of {resource} without metadata.name")


def _misfit(resource: Resource[T], metadata: ObjectMeta, error: Undecodable) -> Misfit:
    metrics.UNDECODABLE_OBJECTS.labels(str(resource)).inc()
    # Whoever keeps the object logs it as a warning, once: the object may change many times a second.
    log.debug("%s; it is left out until it is corrected", error)
    return Misfit(metadata, str(error))
