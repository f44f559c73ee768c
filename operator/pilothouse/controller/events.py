"""Events (events.k8s.io/v1): what an administrator sees in `kubectl describe` and `kubectl get events`.

Recording never waits and never fails: events go into a bounded queue, one task writes them. What repeats
becomes one Event with a series; what an object says too often, or the queue cannot hold, is dropped.
Numbers: client-go tools/events/event_broadcaster.go and tools/record/events_cache.go.
"""

import asyncio
import logging
import re
import socket
import uuid
from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

import msgspec

from pilothouse.controller.fence import Fenced
from pilothouse.kube import (
    Api,
    ApiError,
    KubeError,
    NotFound,
    ObjectKey,
    ObjectMeta,
    PatchType,
    Resource,
    encodable,
)
from pilothouse.queue import TokenBucket
from pilothouse.telemetry import now, redacted

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

QUEUE_LENGTH = 1000
CACHE_LENGTH = 4096
# An object may say 25 things at once, and then one more every 5 minutes.
OBJECT_BURST = 25
OBJECT_RATE = 1 / 300
# What is silent for 6 minutes has ended: the next of its kind is a new Event.
SERIES_END = 360.0
# A series that goes on is written at most this often, so that its count is not far off.
SERIES_REFRESH = 300.0
SWEEP_PERIOD = 60.0
# An Event that cannot be written is tried again, then dropped: later ones matter more.
TRIES = 3
RETRY_PAUSE = 10.0
# The API server's own limits (kubernetes pkg/apis/core/validation/events.go).
NOTE_BYTES = 1024
WORD_BYTES = 128
# An Event's name is a DNS subdomain of 253 characters: a prefix from the object's name, a dot and 16 digits.
PREFIX_LENGTH = 230


class EventType(StrEnum):
    """How an Event is to be taken."""

    NORMAL = "Normal"
    WARNING = "Warning"


class ObjectReference(NamedTuple):
    """The object that an Event is about."""

    api_version: str
    kind: str
    key: ObjectKey
    uid: str


class Event(NamedTuple):
    """What is told of an object. Two equal ones are one Event with a series.

    Attributes:
        regarding: The object.
        type: Normal or Warning.
        reason: Why, for machines: CamelCase; truncated to 128 bytes.
        action: What was done or failed, for machines: CamelCase; truncated to 128 bytes.
        note: What happened, for people; truncated to 1024 bytes.
    """

    regarding: ObjectReference
    type: EventType
    reason: str
    action: str
    note: str


class WrittenEvent(msgspec.Struct, frozen=True, gc=False):
    """The view of an Event that its writer needs."""

    metadata: ObjectMeta


EVENT: Resource[WrittenEvent] = Resource("events.k8s.io", "v1", "Event", "events", WrittenEvent)


@dataclass(slots=True)
class Series:
    """An Event and how often it happened."""

    event: Event
    name: str
    count: int
    last: float  # When it last happened, loop time.
    last_time: str  # The same for the API.
    written: float = float("-inf")  # When it was last written, loop time.
    written_count: int = 0
    queued: bool = False


class EventRecorder:
    """Records what happens to objects.

    Args:
        api: Reaches the API server; its identity may create and patch events.k8s.io Events.
        controller: Who reports: a qualified name such as "flights.com/pilothouse-flights".
        instance: Which process of it; the host's name unless given.
    """

    def __init__(self, api: Api, controller: str, instance: str = "") -> None:
        self._api = api
        self._controller = controller
        self._instance = _cut(instance or socket.gethostname(), WORD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._series: OrderedDict[Event, Series] = OrderedDict()
        self._buckets: OrderedDict[ObjectReference, TokenBucket] = OrderedDict()
        self._queue: deque[Series] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def record(self, event: Event) -> None:
        """Takes an event to be written soon. Returns at once; never raises."""
        event = event._replace(
            reason=_cut(event.reason, WORD_BYTES),
            action=_cut(event.action, WORD_BYTES),
            note=_cut(redacted(event.note), NOTE_BYTES, "..."),
        )
        series = self._series.get(event)
        if series is None or self._loop.time() - series.last > SERIES_END:
            if not self._allowed(event.regarding):
                _drop(event, "its object has said too much")
                return
            series = Series(event, _name(event.regarding.key.name), 0, 0.0, "")
            _remember(self._series, event, series)
        series.count += 1
        series.last = self._loop.time()
        series.last_time = now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if series.count <= 2:
            self._enqueue(series)

    async def run(self) -> None:
        """Writes what is recorded, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            while True:
                while self._queue:
                    await self._write(self._queue.popleft())
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()

    async def flush(self, patience: float) -> None:
        """Waits until all that was recorded is written, `patience` seconds at most. `run` must be running."""
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d events were not written", len(self._queue))

    def _allowed(self, regarding: ObjectReference) -> bool:
        bucket = self._buckets.get(regarding)
        if bucket is None:
            bucket = TokenBucket(OBJECT_RATE, OBJECT_BURST)
        _remember(self._buckets, regarding, bucket)
        return bucket.take()

    def _enqueue(self, series: Series) -> None:
        if series.queued:
            return
        if len(self._queue) >= QUEUE_LENGTH:
            _drop(series.event, "too many wait to be written")
            return
        series.queued = True
        self._queue.append(series)
        self._idle.clear()
        self._wake.set()

    async def _write(self, series: Series) -> None:
        series.queued = False
        for attempt in range(1, TRIES + 1):
            try:
                await self._put(series)
            except Fenced:
                # Whoever leads now says what there is to say. If it is this process again, within a series'
                # time, the sweep takes it up.
                log.debug("an event was not written: this process does not lead")
                return
            except (UnicodeError, TypeError, ValueError) as error:
                log.error("an event of %s cannot be written: %s", series.event.regarding.key, error)
                return
            except KubeError as error:
                # What the server refuses as such (4xx) it would refuse again.
                final = isinstance(error, ApiError) and error.status < 500 and error.status != 429
                if final or attempt == TRIES:
                    log.warning("an event cannot be written: %s", error)
                    return
                log.debug("an event is tried again: %s", error)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return

    async def _put(self, series: Series) -> None:
        count = series.count
        namespace = series.event.regarding.key.namespace or "default"
        if series.written_count:
            body = {"series": {"count": count, "lastObservedTime": series.last_time}}
            key = ObjectKey(namespace, series.name)
            try:
                await self._api.patch(EVENT, key, body, type=PatchType.MERGE)
            except NotFound:  # Events live for an hour.
                await self._api.create(EVENT, self._body(series, namespace), namespace=namespace)
        else:
            await self._api.create(EVENT, self._body(series, namespace), namespace=namespace)
        series.written_count = count
        series.written = self._loop.time()

    def _body(self, series: Series, namespace: str) -> dict[str, object]:
        event = series.event
        body: dict[str, object] = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": series.name, "namespace": namespace},
            "eventTime": series.last_time,
            "reportingController": self._controller,
            "reportingInstance": self._instance,
            "type": event.type.value,
            "reason": event.reason,
            "action": event.action,
            "note": event.note,
            "regarding": {
                "apiVersion": event.regarding.api_version,
                "kind": event.regarding.kind,
                "namespace": event.regarding.key.namespace,
                "name": event.regarding.key.name,
                "uid": event.regarding.uid,
            },
        }
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": series.last_time}
        return body

    async def _sweep(self) -> None:
        """Writes the counts of series that go on or have ended, and forgets the ended ones."""
        while True:
            await asyncio.sleep(SWEEP_PERIOD)
            time = self._loop.time()
            for event, series in list(self._series.items()):
                ended = time - series.last > SERIES_END
                if series.count > series.written_count and (ended or time - series.written > SERIES_REFRESH):
                    self._enqueue(series)
                if ended:
                    del self._series[event]


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    """Puts a value into a cache that forgets what was put there first."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > CACHE_LENGTH:
        cache.popitem(last=False)


def _drop(event: Event, why: str) -> None:
    log.debug("an event was not recorded, because %s: %s", why, event.note)


def _name(regarding: str) -> str:
    """Returns a unique name for an Event that begins like the name of its object.

    An object's name may have what an Event's must not: RBAC names have colons and upper case letters.
    """
    labels = re.sub("[^a-z0-9.]+", "-", regarding.lower()[:PREFIX_LENGTH]).split(".")
    prefix = ".".join(filter(None, (label.strip("-") for label in labels)))
    return f"{prefix or 'object'}.{uuid.uuid4().hex[:16]}"


def _cut(text: str, limit: int, end: str = "") -> str:
    """Returns a text of at most `limit` bytes, which ends in `end` where it was truncated."""
    text = encodable(text)
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(end)].decode(errors="ignore") + end
