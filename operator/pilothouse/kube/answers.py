"""Decodes the API server's responses into views: objects, pages, and the lines of a watch.

If an object does not fit its view, a page or watch contains its metadata and the reason instead, and it is
counted in `pilothouse_undecodable_objects_total`. So one invalid object does not hide the others.
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
    """The type of a watch event.

    END_OF_LIST is the bookmark after the last object that existed when a `watch_list` began.
    """

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    END_OF_LIST = "END_OF_LIST"


class Misfit(NamedTuple):
    """An object that does not fit the view.

    Attributes:
        metadata: The readable part of its metadata.
        why: Which field does not fit, and why.
    """

    metadata: ObjectMeta
    why: str


class Page(NamedTuple, Generic[T]):
    """A page of a list: some objects of a collection, and the collection's version, the same for all pages.

    Attributes:
        items: The objects.
        resource_version: The version of the collection.
        misfits: The objects that do not fit the view.
    """

    items: list[T]
    resource_version: str
    misfits: tuple[Misfit, ...] = ()


class WatchEvent(NamedTuple, Generic[T]):
    """An event of a watch.

    Attributes:
        type: The type of the event.
        object: The object. None for a bookmark, and for an object that does not fit the view.
        resource_version: The version that the stream has reached.
        misfit: Set instead of `object` for an object that does not fit the view. A store keeps the object's
            last known state until it is corrected or DELETED.
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
    """Decodes an object.

    Raises:
        Undecodable: The object does not fit the view.
    """
    decode: Callable[[bytes], T] = codec.codec(resource.view).object
    try:
        return decode(body)
    except Exception as error:  # a view's own checks may raise anything
        refused = codec.undecodable(resource, body, error)
        # The decoder's error may quote a value, and tracebacks include the cause of an error.
        raise refused from (None if holds_secrets(resource) else error)


def read_page(resource: Resource[T], body: bytes) -> tuple[Page[T], str]:
    """Decodes a page of a list.

    Returns:
        The page, and the continue token of the next one. The token is empty after the last page.

    Raises:
        Undecodable: The response is not a list, or an object in it has no name.
    """
    try:
        read = codec.codec(resource.view).list(body)
    except Exception:  # decoded again, object by object
        return _page_with_misfits(resource, body)
    items = read.items or []
    if not all(each.metadata.name for each in items):
        raise _nameless(resource)
    return Page(items, read.metadata.resource_version), read.metadata.continue_


def event_reader(resource: Resource[T]) -> Callable[[bytes], WatchEvent[T]]:
    """Returns a function that decodes a line of a watch.

    The function raises the ApiError for an ERROR event, and Undecodable for a line that is not an event of a
    known type for an object with a name.
    """
    decode = codec.codec(resource.view).event

    def read(line: bytes) -> WatchEvent[T]:
        # Bookmarks and errors contain no object of the kind.
        if not line.startswith((_BOOKMARK, _ERROR)):
            try:
                event = decode(line)
                metadata = event.object.metadata
                if metadata.name:
                    return WatchEvent(_CHANGES[event.type], event.object, metadata.resource_version)
            except Exception:  # noqa: S110 - the line is decoded again below
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
    """Returns the event of a line without a readable object: a bookmark, or an object that does not fit.

    Raises:
        ApiError: The line is an ERROR event.
        Undecodable: The line is not a valid event.
    """
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
    return Undecodable(f"the API server sent an object of {resource} without metadata.name")


def _misfit(resource: Resource[T], metadata: ObjectMeta, error: Undecodable) -> Misfit:
    metrics.UNDECODABLE_OBJECTS.labels(str(resource)).inc()
    # At level debug, because the object may change many times a second. The store logs a warning once.
    log.debug("Ignoring the object until it is corrected: %s", error)
    return Misfit(metadata, error.problem)
