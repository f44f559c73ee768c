"""The reflector: list, then watch, for ever; after any trouble it goes on from where it was, or lists again.

::

                 all pages read
    ┌─> LISTING ─────────────> WATCHING <┐
    │    ^  │ any error,        │    │   │ the stream ended, as each does in 5 to 10 minutes;
    │    └──┘ after a pause     │    └───┘ any other error, after a pause: from the last version
    └───────────────────────────┘
      after a pause: the version is forgotten (410), ahead of the server (etcd was restored),
      or not understood (400); or the kind is gone (404)
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from pilothouse.informer.store import Store
from pilothouse.kube import (
    ApiError,
    BadRequest,
    EventType,
    Expired,
    Forbidden,
    KubeError,
    KubeObject,
    NotFound,
    Page,
    Resource,
    Unreachable,
    WatchEvent,
)

log = logging.getLogger(__name__)

T = TypeVar("T", bound=KubeObject)

# client-go, tools/cache/reflector.go: 800 ms, doubled up to 30 s, plus up to as much again, reset after 2
# minutes of health.
FIRST_PAUSE = 0.8
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 120.0
# client-go's VeryShortWatchError: a stream that ends this soon with nothing in it is trouble, not routine.
SHORT_WATCH_SECONDS = 1.0


class ListWatcher(Protocol):
    """The two calls of `pilothouse.kube.Client` that a reflector makes."""

    def pages(
        self, resource: Resource[T], *, namespace: str, label_selector: str, field_selector: str
    ) -> AsyncGenerator[Page[T], None]:
        """List a collection, page by page."""

    def watch(
        self,
        resource: Resource[T],
        *,
        resource_version: str,
        namespace: str,
        label_selector: str,
        field_selector: str,
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield what changes after a version, beginning with a BOOKMARK once the server has accepted."""


class State(Enum):
    """What a reflector is doing; the module's picture shows the transitions."""

    LISTING = auto()
    WATCHING = auto()


class Backoff:
    """The pause before the next attempt: exponential, jittered, forgotten after two minutes of health."""

    def __init__(self) -> None:
        self._pause = FIRST_PAUSE
        self._last = float("-inf")

    def next(self) -> float:
        """Return the seconds to wait now."""
        now = asyncio.get_running_loop().time()
        if now - self._last > HEALTHY_SECONDS:
            self._pause = FIRST_PAUSE
        pause = self._pause * random.uniform(1, 2)  # noqa: S311 - spreads load, guards nothing
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._last = now + pause
        return pause


class Reflector(Generic[T]):
    """Keeps one scope of a store (a namespace, or everything) like the server's collection.

    Args:
        client: lists and watches.
        resource: the kind.
        store: what is kept.
        namespace: the scope; empty for all.
        label_selector: what to see of it.
        field_selector: what to see of it.
    """

    def __init__(
        self,
        client: ListWatcher,
        resource: Resource[T],
        store: Store[T],
        *,
        namespace: str,
        label_selector: str,
        field_selector: str,
    ) -> None:
        self._client = client
        self._resource = resource
        self._store = store
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._backoff = Backoff()
        self._resource_version = ""
        self.state = State.LISTING
        self.listed = asyncio.Event()
        self.failing = ""

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                self.state = await (self._list() if self.state is State.LISTING else self._watch())
            except KubeError as error:
                self.state = self._state_after(error)
                self._fail(error)
                await asyncio.sleep(self._backoff.next())

    async def _list(self) -> State:
        self._store.begin_replace(self._namespace)
        objects: list[T] = []
        pages = self._client.pages(
            self._resource,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        async for page in pages:
            objects += page.items
            self._resource_version = page.resource_version
        self._store.replace(objects, self._resource_version, self._namespace)
        self._heal()
        self.listed.set()
        return State.WATCHING

    async def _watch(self) -> State:
        loop = asyncio.get_running_loop()
        started, events = loop.time(), 0
        stream = self._client.watch(
            self._resource,
            resource_version=self._resource_version,
            namespace=self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        async with aclosing(stream):
            async for event in stream:
                if not events:
                    self._heal()
                events += 1
                self._take(event)
        if events < 2 and loop.time() - started < SHORT_WATCH_SECONDS:
            raise Unreachable("the server ended the watch at once, without an event", maybe_sent=True)
        return State.WATCHING

    def _take(self, event: WatchEvent[T]) -> None:
        self._resource_version = event.resource_version
        if event.object is None:
            self._store.bookmark(event.resource_version, self._namespace)
        elif event.type is EventType.DELETED:
            self._store.remove(event.object, self._namespace)
        else:
            self._store.upsert(event.object, self._namespace)

    def _state_after(self, error: KubeError) -> State:
        match error:
            case Expired() | NotFound() | BadRequest():
                return State.LISTING
            case ApiError() if any(cause.reason == "ResourceVersionTooLarge" for cause in error.causes):
                return State.LISTING
        return self.state

    def _fail(self, error: KubeError) -> None:
        if isinstance(error, Expired):
            # Routine after a long absence: the list that follows brings everything.
            log.info("%s: listing again: %s", self, error)
            return
        sentence = (
            f"{self} cannot be read: {_explain(error, self._resource)}; this is tried again until it works"
        )
        if sentence != self.failing:
            log.warning("%s", sentence)
        self.failing = sentence

    def _heal(self) -> None:
        if self.failing:
            log.info("%s can be read again", self)
            self.failing = ""

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
