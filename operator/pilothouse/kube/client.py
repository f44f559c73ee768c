"""The typed client: objects are read into the view that their `Resource` declares."""

import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from enum import StrEnum
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

import msgspec

from pilothouse.kube import codec
from pilothouse.kube.config import ClientConfig
from pilothouse.kube.errors import Status, Undecodable, api_error
from pilothouse.kube.objects import KubeObject, ObjectKey
from pilothouse.kube.resource import Resource
from pilothouse.kube.transport import DEADLINE, IDLE_SECONDS, Transport
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

# client-go, tools/cache/reflector.go: watches last 5 to 10 minutes, so that they do not renew in step.
WATCH_SECONDS = (300, 600)

T = TypeVar("T", bound=KubeObject)


class PatchType(StrEnum):
    """How a patch is to be understood; the value is its content type."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"
    APPLY = "application/apply-patch+yaml"


class EventType(StrEnum):
    """What a line of a watch says."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class Page(NamedTuple, Generic[T]):
    """Some objects of a collection, and the version of the collection that all its pages show."""

    items: list[T]
    resource_version: str


class WatchEvent(NamedTuple, Generic[T]):
    """A change. A BOOKMARK has no object: it only says how far the stream has come."""

    type: EventType
    object: T | None
    resource_version: str


class Client:
    """Speaks to one API server.

    An async context manager; all methods raise `KubeError`s and nothing else of their own.

    Args:
        config: the server and the credentials.
        user_agent: `program/version`; the part before the slash is the field manager of server-side applies.
        connections: requests in flight at most; watches come on top.
    """

    def __init__(self, config: ClientConfig, *, user_agent: str, connections: int = 32) -> None:
        self.config = config
        self._field_manager = user_agent.partition("/")[0]
        self._transport = Transport(config, user_agent=user_agent, connections=connections)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, traceback)

    async def get(self, resource: Resource[T], key: ObjectKey) -> T:
        """Return the object as it is now, from the server.

        Raises:
            NotFound: there is none of that name, or the kind is unknown.
        """
        return _object(resource, await self._transport.request("GET", resource.path(*key)))

    async def pages(
        self,
        resource: Resource[T],
        *,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> AsyncGenerator[Page[T], None]:
        """List a collection, page by page; all pages show it at one moment.

        An object that does not fit the view is left out, with a warning in the log and a count in
        `pilothouse_undecodable_objects_total`: one bad object must not hide the others.

        Args:
            resource: the kind.
            namespace: empty for all.
            label_selector: such as `app=web,tier!=cache`.
            field_selector: such as `metadata.name=web`.
            limit: objects per page.

        Raises:
            Expired: listing took so long that the server forgot the moment (5 min); start again.
        """
        params = _selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            body = await self._transport.request("GET", resource.path(namespace), params=params)
            page = _page(resource, body)
            yield Page(page.items or [], page.metadata.resource_version)
            if not page.metadata.continue_:
                return
            params["continue"] = page.metadata.continue_

    async def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        idle: float = IDLE_SECONDS,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield what changes after `resource_version`, until the server ends the stream (in 5 to 10 minutes).

        The first event is a BOOKMARK at `resource_version`: it says that the server has accepted the watch.
        Silence of `idle` seconds ends the stream as if the server had; go on from the last event's
        `resource_version`.

        Args:
            resource: the kind.
            resource_version: from a list or an earlier event.
            namespace: empty for all.
            label_selector: as in `pages`.
            field_selector: as in `pages`.
            idle: seconds; bookmarks come about each minute.

        Raises:
            Expired: the server no longer knows what followed `resource_version`; list again.
            ApiError: it refused, or ended the stream with an error.
            Unreachable: it could not be reached, or the connection broke.
        """
        params = _selectors(label_selector, field_selector) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads load
        }
        async with self._transport.stream(resource.path(namespace), params=params, idle=idle) as lines:
            yield WatchEvent(EventType.BOOKMARK, None, resource_version)
            decode = codec.codec(resource.view).event
            async for line in lines:
                # The server writes the type first. Lines of these two carry no object of the kind.
                if line.startswith((b'{"type":"BOOKMARK"', b'{"type":"ERROR"')):
                    yield _without_object(resource, line)
                    continue
                try:
                    event = decode(line)
                    yield WatchEvent(
                        EventType(event.type), event.object, event.object.metadata.resource_version
                    )
                except (msgspec.ValidationError, ValueError):
                    yield _without_object(resource, line)

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Create an object and return it as stored.

        Args:
            resource: the kind.
            body: the object: a Struct, a dict, or JSON as bytes; with apiVersion and kind.
            namespace: where, for a namespaced kind.

        Raises:
            AlreadyExists: there is one of that name.
            Invalid: it breaks the schema or a rule; `causes` name the fields.
        """
        answer = await self._transport.request("POST", resource.path(namespace), body=_json(body))
        return _object(resource, answer)

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the API's own word
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> T:
        """Change some fields of an object and return it as stored.

        Args:
            resource: the kind.
            key: the object.
            body: the patch: a Struct, a dict, a list (JSON patch), or JSON as bytes. A
                `metadata.resourceVersion` in a merge patch or an apply makes the server refuse when the
                object has changed since.
            type: what kind of patch it is.
            subresource: such as `status`.
            field_manager: who owns the fields; by default this program.
            force: take fields over from another manager (APPLY only).

        Raises:
            Conflict: the object has changed since it was read, or another manager owns a field.
            NotFound: there is no such object (APPLY creates it instead).
        """
        params = {}
        if field_manager or type is PatchType.APPLY:
            params["fieldManager"] = field_manager or self._field_manager
        if force:
            params["force"] = "true"
        answer = await self._transport.request(
            "PATCH",
            resource.path(*key, subresource),
            params=params,
            body=_json(body),
            content_type=type.value,
        )
        return _object(resource, answer)

    async def replace(
        self, resource: Resource[T], key: ObjectKey, body: object, *, subresource: str = ""
    ) -> T:
        """Replace a whole object (or its subresource) and return it as stored.

        Only for kinds whose every field the caller knows, such as Lease: what the body leaves out is lost.

        Raises:
            Conflict: the body's resourceVersion is not the present one.
        """
        answer = await self._transport.request("PUT", resource.path(*key, subresource), body=_json(body))
        return _object(resource, answer)

    async def delete(
        self,
        resource: Resource[T],
        key: ObjectKey,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Ask for an object's deletion. It is gone once its finalizers are.

        Args:
            resource: the kind.
            key: the object.
            uid: delete this object only, not another that has taken its name.
            resource_version: delete it only as it was read.
            propagation: `Background`, `Foreground` or `Orphan`: what happens to what it owns.
            grace_seconds: for pods; None leaves it to the object.

        Raises:
            NotFound: there is no such object.
            Conflict: a precondition does not hold.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: dict[str, object] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": propagation,
            "preconditions": {name: value for name, value in preconditions.items() if value},
        }
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        await self._transport.request("DELETE", resource.path(*key), body=_json(options))

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
        deadline: float = DEADLINE,
    ) -> bytes:
        """Send any request and return the raw answer: for discovery and odd endpoints.

        Args:
            method: the HTTP verb.
            path: from the server's root, such as `/version`.
            params: the query.
            body: a Struct, a dict, a list, or JSON as bytes; None for none.
            content_type: of the body.
            deadline: seconds for the whole, retries included.
        """
        return await self._transport.request(
            method,
            path,
            params=params,
            body=None if body is None else _json(body),
            content_type=content_type,
            deadline=deadline,
        )


def _json(body: object) -> bytes:
    return body if isinstance(body, bytes) else codec.encode(body)


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in given.items() if value}


def _object(resource: Resource[T], body: bytes) -> T:
    decode: Callable[[bytes], T] = codec.codec(resource.view).object
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        raise codec.undecodable(resource, body, error) from error


def _page(resource: Resource[T], body: bytes) -> codec.ObjectList[T]:
    try:
        return codec.codec(resource.view).list(body)
    except msgspec.ValidationError:
        return _page_without_misfits(resource, body)


def _page_without_misfits(resource: Resource[T], body: bytes) -> codec.ObjectList[T]:
    try:
        raw = codec.raw_list(body)
    except msgspec.DecodeError as error:
        raise Undecodable(f"the list of {resource} cannot be read: {error}") from error
    items = []
    for each in raw.items:
        try:
            items.append(_object(resource, bytes(each)))
        except Undecodable as error:
            _left_out(resource, error)
    return codec.ObjectList(raw.metadata, items)


def _without_object(resource: Resource[T], line: bytes) -> WatchEvent[T]:
    """Return the event of a line that carries no readable object: a bookmark, an error, or a misfit.

    A misfit becomes a bookmark: the stream has come so far, and whoever holds the object keeps what it last
    knew.
    """
    try:
        event = codec.raw_event(line)
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=Status)
            raise api_error(status.code or 500, bytes(event.object))
        head = codec.head(bytes(event.object))
    except msgspec.DecodeError as error:
        raise Undecodable(f"a line of the watch of {resource} cannot be read: {error}") from error
    if event.type != "BOOKMARK":
        try:
            _object(resource, bytes(event.object))
        except Undecodable as error:
            _left_out(resource, error)
    return WatchEvent(EventType.BOOKMARK, None, head.metadata.resource_version)


def _left_out(resource: Resource[T], error: Undecodable) -> None:
    metrics.UNDECODABLE_OBJECTS.labels(str(resource)).inc()
    log.warning("%s; it is left out until it is corrected", error)
