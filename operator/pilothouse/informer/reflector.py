"""The reflector: list, then watch, for ever; after any trouble it goes on from where it was, or lists again.

Where the server can stream the list, list and first watch are one request; else the list is read in pages.

::

               all has been read
    ┌─> LISTING ─────────────> WATCHING <┐
    │    ^  │ any error,        │    │   │ the stream ended, as each does within a minute, or broke;
    │    └──┘ after a pause     │    └───┘ any other error, after a pause: from the last version
    └───────────────────────────┘
      after a pause: the version is ahead of the server (etcd was restored) or not understood (400),
      the kind is gone (404), the stream carries what is not an event, or an unexpected error;
      immediately: the version is forgotten (410), or the list had no version

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
from pilothouse.telemetry import metrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)
T_contra = TypeVar("T_contra", bound=KubeObject, contravariant=True)

# client-go, tools/cache/reflector.go: 800 ms, doubled up to 30 s, plus up to as much again. It forgets them
# after 2 minutes of health only: from the third restart of a server in a row, it is blind for a minute each.
FIRST_PAUSE = 0.8
LONGEST_PAUSE = 30.0
# client-go's VeryShortWatchError: a stream that ends this soon with nothing in it is trouble, not routine.
SHORT_WATCH_SECONDS = 1.0
# Before a stream that brought something and ended as soon is taken up again: nobody is asked without a pause.
BREATH_SECONDS = 0.1
# Streamed lists that, in a row, did not come to their end. The next one is then read in pages: a server that
# ignores the question and falls silent cannot be told from one in trouble, and must not be asked for ever.
STREAM_TRIES = 2
# Between two lists of a kind that the server does not let anyone watch, such as OLM's PackageManifest.
POLL_SECONDS = 30.0


class Selectors(TypedDict):
    """What a reflector asks for."""

    namespace: str
    label_selector: str
    field_selector: str


class Sink(Protocol[T_contra]):
    """Takes what a reflector learns; `Store` documents the calls."""

    def begin_list(self, scope: str) -> None:
        """A list begins."""

    def listed(self, obj: T_contra, scope: str) -> None:
        """The list shows an object."""

    def keep(self, misfit: Misfit, scope: str) -> None:
        """An object is there, and does not fit the view."""

    def end_list(self, resource_version: str, scope: str) -> None:
        """The list is complete."""

    def upsert(self, obj: T_contra, scope: str) -> None:
        """An object appeared or changed."""

    def remove(self, metadata: ObjectMeta, scope: str) -> None:
        """An object is gone."""

    def bookmark(self, resource_version: str, scope: str) -> None:
        """The watch has come to a version."""


class State(Enum):
    """What a reflector is doing; the module's picture shows the transitions."""

    LISTING = auto()
    WATCHING = auto()


class Backoff:
    """The pause before the next attempt: exponential, jittered, forgotten once a watch was of use."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE

    def next(self, asked_for: float = 0.0) -> float:
        """Return the seconds to wait now.

        Args:
            asked_for: the seconds for which the server wants to be left alone. Kept to up to LONGEST_PAUSE: a
                server that still has no time then says so again, and one that errs blinds nobody for long.
        """
        pause = self._pause * random.uniform(1, 2)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return max(pause, min(asked_for, LONGEST_PAUSE))

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._pause = FIRST_PAUSE


class Reflector(Generic[T]):
    """Keeps one scope of a sink (a namespace, or everything) like the server's collection.

    Args:
        client: lists and watches.
        resource: the kind.
        sink: keeps what is learnt.
        namespace: the scope; empty for all.
        label_selector: what to see of it.
        field_selector: what to see of it.
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
        # Whether the server streams its lists, as far as is known, and how often it was tried for this one.
        self._streams = True
        self._stream_tries = 0
        # The version that was asked for is forgotten, and nothing has been read since.
        self._expired = False
        self._backoff = Backoff()
        self._resource_version = ""
        # Whether the list had a version. Without one, nothing says what happened between list and watch.
        self._versioned = True
        # The stream carried something that is not an event; and whether that the kind is polled was logged.
        self._stream_broken = False
        self._polled = False
        self.state = State.LISTING
        self.listed = asyncio.Event()
        self.failing = ""
        self._gauge = metrics.WATCH_FAILING.labels(resource=str(resource))

    def feed(self, resource: Resource[T], sink: Sink[T]) -> None:
        """Read another view of the kind, for another sink. Before `run`."""
        self._resource = resource
        self._sink = sink

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if self.state is State.WATCHING:
                    await self._watch()
                elif self._streams and self._stream_tries < STREAM_TRIES:
                    await self._stream()
                else:
                    await self._list()
            except WatchListUnsupported as error:
                log.debug("%s: listing in pages: %s", self, error)
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
                # A defect. Other kinds go on; this one is read again from the start.
                self.state = State.LISTING
                self._stream_broken = True
                if self._fail(f"unexpected {type(error).__name__}: {error}; please report this as a bug"):
                    log.error("the traceback of that error", exc_info=error)
                await asyncio.sleep(self._backoff.next())

    async def _stream(self) -> None:
        """Lists and watches in one stream (KEP-3157), which neither side has to hold as a whole."""
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
        """Lists in pages; if the server forgets their moment on the way, all at once, as client-go does.

        See FullListIfExpired in its tools/pager: page by page, a slow server would forget it again.
        """
        self._resource_version = ""
        try:
            await self._read(self._client.pages(self._resource, **self._selectors))
        except Expired as error:
            if not self._resource_version:
                raise
            log.info("%s: listing again, without pages: %s", self, error)
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
        """Lists again after a stream that cannot be continued: what happened since its end has no version."""
        if not self._versioned:
            self.state = State.LISTING

    async def _poll(self, error: MethodNotAllowed) -> None:
        """Lists again after a while, because the kind cannot be watched."""
        if not self._polled:
            log.warning("%s cannot be watched, listing it every %g s instead: %s", self, POLL_SECONDS, error)
            self._polled = True
        self.state = State.LISTING
        self._heal()
        await asyncio.sleep(POLL_SECONDS)

    async def _follow(self, stream: AsyncGenerator[WatchEvent[T], None]) -> None:
        """Takes what a stream brings until it ends, or breaks after it had been of use: that is routine, too.

        A connection may be cut at any time; whoever paused then would be blind meanwhile. If the server is
        gone, the next attempt tells. After a stream that carried something that is not an event, the first
        event does not count: it only means that the server has accepted the watch.
        """
        loop = asyncio.get_running_loop()
        started, events = loop.time(), 0
        trouble = Unreachable("the server ended the watch at once, without an event", maybe_sent=True)
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
            log.debug("%s: the watch broke: %s", self, error)
            trouble = error
        short = loop.time() - started < SHORT_WATCH_SECONDS
        if self.state is State.LISTING or not events or (short and events == 1):
            raise trouble
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
        """Whether it is a version that was forgotten during an absence: a list brings everything.

        If that expires, too, or the watch after it does, it is trouble.
        """
        if not isinstance(error, Expired) or self._expired:
            return False
        self._expired = True
        log.info("%s: listing again: %s", self, error)
        return True

    def _fail(self, why: str) -> bool:
        """Reports that the kind cannot be read at present; returns whether that is news."""
        sentence = f"{self} cannot be read: {why}; retrying until it works"
        is_news = sentence != self.failing
        if is_news:
            log.warning("%s", sentence)
        if not self.failing:
            self._gauge.inc()
        self.failing = sentence
        return is_news

    def _recovered(self) -> None:
        """Notes that the watch works."""
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
            return (
                f"the server does not know {resource} in version {resource.version}, "
                "so its CustomResourceDefinition is missing or does not serve that version"
            )
        case Forbidden():
            return f"the service account needs the verbs list and watch on {resource}: {error}"
    return str(error)
