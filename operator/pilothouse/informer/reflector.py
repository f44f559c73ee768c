"""The reflector: lists, then watches. After an error it continues where it was, or lists again.

If the API server can stream lists, the list and the first watch are one request. Otherwise the list is read
in pages.

::

               the list is complete
    ┌─> LISTING ─────────────> WATCHING <┐
    │    ^  │ any error,        │    │   │ the stream ended (each does within a minute) or broke;
    │    └──┘ after a pause     │    └───┘ any other error, after a pause: from the last version
    └───────────────────────────┘
      after a pause: the version is ahead of the server (etcd was restored) or invalid (400),
      the kind does not exist (404), the stream contains anything but events, or an unexpected error;
      immediately: the version has expired (410), or the list had no version

A kind that cannot be watched (405) is listed every 30 s instead. No error ends a reflector.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum, auto
from typing import Generic, Protocol, TypedDict, TypeVar

from pilothouse.kube import (
    Api,
    ApiError,
    BadRequest,
    EventType,
    Expired,
    Forbidden,
    KubeError,
    KubeObject,
    MethodNotAllowed,
    Misfit,
    NotFound,
    ObjectMeta,
    Page,
    Resource,
    Undecodable,
    Unreachable,
    WatchEvent,
    WatchListUnsupported,
)
from pilothouse.kube.resource import not_served
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)
T_contra = TypeVar("T_contra", bound=KubeObject, contravariant=True)

# client-go, tools/cache/reflector.go: 800 ms, doubled up to 30 s, plus a jitter of up to 100 %. client-go
# resets the pause only after 2 healthy minutes. So from the third restart of an API server in a row, it sees
# changes up to a minute late. We reset the pause after every useful watch.
FIRST_PAUSE = 0.8
LONGEST_PAUSE = 30.0
# client-go's VeryShortWatchError: a stream that ends this soon without an event is an error.
SHORT_WATCH_SECONDS = 1.0
# The pause after a stream that ended this soon with an event. Without it, requests would follow immediately.
BREATH_SECONDS = 0.1
# After this many incomplete streamed lists in a row, the next list is read in pages. A server that ignores
# the parameter and stays silent cannot be distinguished from a broken one.
STREAM_TRIES = 2
# The pause between two lists of a kind that cannot be watched, such as OLM's PackageManifest.
POLL_SECONDS = 30.0


class Selectors(TypedDict):
    """The selection of objects that a reflector requests."""

    namespace: str
    label_selector: str
    field_selector: str


class Sink(Protocol[T_contra]):
    """The receiver of a reflector's objects and events. `Store` documents the methods."""

    def begin_list(self, scope: str) -> None:
        """A list begins."""

    def listed(self, obj: T_contra, scope: str) -> None:
        """The list contains an object."""

    def keep(self, misfit: Misfit, scope: str) -> None:
        """An object exists, but does not fit the view."""

    def end_list(self, resource_version: str, scope: str) -> None:
        """The list is complete."""

    def upsert(self, obj: T_contra, scope: str) -> None:
        """An object appeared or changed."""

    def remove(self, metadata: ObjectMeta, scope: str) -> None:
        """An object was deleted."""

    def bookmark(self, resource_version: str, scope: str) -> None:
        """The watch has reached a version."""


class State(Enum):
    """The state of a reflector. The module's docstring shows the transitions."""

    LISTING = auto()
    WATCHING = auto()


class Backoff:
    """The pause before the next attempt: exponential with jitter, and reset after a useful watch."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self, asked_for: float = 0.0) -> float:
        """Returns the seconds to wait now.

        Args:
            asked_for: The seconds that the API server requested (Retry-After). Limited to LONGEST_PAUSE, so
                that a wrong value does not stop the watch for long. A busy server will request it again.
        """
        pause = self._pause * random.uniform(1, 2)  # noqa: S311 - spreads load, not used for security
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return max(pause, min(asked_for, LONGEST_PAUSE))

    def reset(self) -> None:
        """Resets the pause to the shortest one."""
        self._pause = FIRST_PAUSE


class Reflector(Generic[T]):
    """Keeps one scope of a sink (a namespace, or all namespaces) in sync with the API server.

    Args:
        client: The client that lists and watches.
        resource: The kind.
        sink: The receiver of objects and events.
        namespace: The scope. Empty: all namespaces.
        label_selector: The label selector of the objects.
        field_selector: The field selector of the objects.
    """

    def __init__(
        self,
        client: Api,
        resource: Resource[T],
        sink: Sink[T],
        *,
        namespace: str,
        label_selector: str,
        field_selector: str,
    ) -> None:
        self._client = client
        self._resource = resource
        self._sink = sink
        self._namespace = namespace
        self._selectors = Selectors(
            namespace=namespace, label_selector=label_selector, field_selector=field_selector
        )
        # Whether the server streams lists, as far as is known, and the number of attempts for this list.
        self._streams = True
        self._stream_tries = 0
        # The requested version has expired, and nothing has been read since.
        self._expired = False
        self._backoff = Backoff()
        self._resource_version = ""
        # Whether the list had a version. Without one, changes between the list and the watch can be missed.
        self._versioned = True
        # Whether the stream contained anything other than events, and whether polling has been logged.
        self._stream_broken = False
        self._polled = False
        self.state = State.LISTING
        self.listed = asyncio.Event()
        self.failing = ""
        self._gauge = metrics.WATCH_FAILING.labels(resource=str(resource))

    def feed(self, resource: Resource[T], sink: Sink[T]) -> None:
        """Sets another view and another sink. Call it before `run`."""
        self._resource = resource
        self._sink = sink

    async def run(self) -> None:
        """Lists and watches until it is cancelled."""
        while True:
            try:
                if self.state is State.WATCHING:
                    await self._watch()
                elif self._streams and self._stream_tries < STREAM_TRIES:
                    await self._stream()
                else:
                    await self._list()
            except WatchListUnsupported as error:
                log.debug("Listing %s in pages: %s", self, error)
                self._streams = False
            except KubeError as error:
                if isinstance(error, MethodNotAllowed) and self.state is State.WATCHING:
                    await self._poll(error)
                    continue
                self._stream_broken |= isinstance(error, Undecodable) and self.state is State.WATCHING
                self.state = self._state_after(error)
                if self._is_routine(error):
                    continue
                self._fail(_explain(error, self._resource))
                asked_for = error.retry_after if isinstance(error, ApiError) else None
                await asyncio.sleep(self._backoff.next(asked_for or 0.0))
            except Exception as error:
                # A defect. Other kinds are not affected; this kind is listed again.
                self.state = State.LISTING
                self._stream_broken = True
                if self._fail(f"unexpected {type(error).__name__}: {error}; please report this as a bug"):
                    log.error("Traceback of the unexpected error", exc_info=error)
                await asyncio.sleep(self._backoff.next())

    async def _stream(self) -> None:
        """Lists and watches in one stream (KEP-3157). Neither side has to hold the whole list in memory."""
        self._stream_tries += 1
        self._sink.begin_list(self._namespace)
        try:
            await self._follow(self._client.watch_list(self._resource, **self._selectors))
        except MethodNotAllowed as error:
            if self.state is State.LISTING:
                raise WatchListUnsupported(str(error)) from error
            raise
        self._after_stream()

    async def _list(self) -> None:
        """Lists in pages. If the continue token expires, lists again without pages.

        This is FullListIfExpired of client-go's tools/pager: with a slow server, pages would expire again.
        """
        self._resource_version = ""
        try:
            await self._read(self._client.pages(self._resource, **self._selectors))
        except Expired as error:
            if not self._resource_version:
                raise
            log.info("Listing %s again, without pages: %s", self, error)
            await self._read(self._client.pages(self._resource, **self._selectors, limit=0))
        self._end_list()

    async def _read(self, pages: AsyncGenerator[Page[T], None]) -> None:
        self._sink.begin_list(self._namespace)
        async for page in pages:
            for obj in page.items:
                self._sink.listed(obj, self._namespace)
            for misfit in page.misfits:
                self._sink.keep(misfit, self._namespace)
            self._resource_version = page.resource_version

    async def _watch(self) -> None:
        await self._follow(
            self._client.watch(self._resource, resource_version=self._resource_version, **self._selectors)
        )
        self._after_stream()

    def _after_stream(self) -> None:
        """Switches to listing if the stream cannot be continued, because the list had no version."""
        if not self._versioned:
            self.state = State.LISTING

    async def _poll(self, error: MethodNotAllowed) -> None:
        """Waits before the next list of a kind that cannot be watched."""
        if not self._polled:
            log.warning("Cannot watch %s; listing every %g s instead: %s", self, POLL_SECONDS, error)
            self._polled = True
        self.state = State.LISTING
        self._heal()
        await asyncio.sleep(POLL_SECONDS)

    async def _follow(self, stream: AsyncGenerator[WatchEvent[T], None]) -> None:
        """Processes a stream until it ends, or breaks after it had been useful, which is routine.

        A connection may be cut at any time. A pause then would delay changes without need: if the server is
        down, the next attempt fails. After a stream that contained anything other than events, the first
        event does not count as recovery, because it only means that the server accepted the watch.
        """
        loop = asyncio.get_running_loop()
        started, events = loop.time(), 0
        failure = Unreachable("the API server ended the watch immediately, without an event", maybe_sent=True)
        try:
            async with aclosing(stream):
                async for event in stream:
                    if events == int(self._stream_broken) and self.state is State.WATCHING:
                        self._recovered()
                    events += 1
                    self._take(event)
            if events:
                self._recovered()
        except Unreachable as error:
            log.debug("Watch of %s broke: %s", self, error)
            failure = error
        short = loop.time() - started < SHORT_WATCH_SECONDS
        if self.state is State.LISTING or not events or (short and events == 1):
            raise failure
        self._backoff.reset()
        self._expired = False
        if short:
            await asyncio.sleep(BREATH_SECONDS)

    def _take(self, event: WatchEvent[T]) -> None:
        self._resource_version = event.resource_version or self._resource_version
        shown = event.misfit if event.object is None else event.object
        if event.type is EventType.END_OF_LIST:
            self._resource_version = event.resource_version
            self._end_list()
        elif shown is None:
            self._sink.bookmark(event.resource_version, self._namespace)
        elif event.type is EventType.DELETED:
            self._sink.remove(shown.metadata, self._namespace)
        elif isinstance(shown, Misfit):
            self._sink.keep(shown, self._namespace)
            self._sink.bookmark(event.resource_version, self._namespace)
        elif self.state is State.LISTING:
            self._sink.listed(shown, self._namespace)
        else:
            self._sink.upsert(shown, self._namespace)

    def _end_list(self) -> None:
        self._sink.end_list(self._resource_version, self._namespace)
        self.state = State.WATCHING
        self._versioned = bool(self._resource_version)
        if not self._stream_broken:
            self._stream_tries = 0
            self._heal()
        self.listed.set()

    def _state_after(self, error: KubeError) -> State:
        match error:
            case Expired() | NotFound() | BadRequest() | Undecodable():
                return State.LISTING
            case _ if not self._versioned:
                return State.LISTING
            case ApiError() if any(cause.reason == "ResourceVersionTooLarge" for cause in error.causes):
                return State.LISTING
        return self.state

    def _is_routine(self, error: KubeError) -> bool:
        """Whether the error is an expired version after a disconnection. Listing again fixes it.

        If that list, or the watch after it, expires as well, the error is not routine.
        """
        if not isinstance(error, Expired) or self._expired:
            return False
        self._expired = True
        log.info("Listing %s again: %s", self, error)
        return True

    def _fail(self, why: str) -> bool:
        """Reports that the kind cannot be read. Returns whether the reason is new."""
        sentence = f"{self} cannot be read: {why}; retrying"
        is_news = sentence != self.failing
        if is_news:
            log.warning("%s", sentence)
        if not self.failing:
            self._gauge.inc()
        self.failing = sentence
        return is_news

    def _recovered(self) -> None:
        """Records that the watch works."""
        self._stream_broken = self._polled = False
        self._heal()

    def _heal(self) -> None:
        if self.failing:
            log.info("%s can be read again", self)
            self.failing = ""
            self._gauge.dec()

    def __str__(self) -> str:
        return f"{self._resource} in namespace {self._namespace}" if self._namespace else str(self._resource)


def _explain(error: KubeError, resource: Resource[T]) -> str:
    match error:
        case NotFound():
            return not_served(resource)
        case Forbidden():
            return f"the service account needs permission to list and watch {resource}: {error}"
    return str(error)
