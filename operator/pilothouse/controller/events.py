"""Events (events.k8s.io/v1): what an administrator sees in `kubectl describe` and `kubectl get events`.

Recording an event never waits and never fails: events are added to a bounded queue, and one asyncio task
writes them. Repetitions become one Event with a series. Events are dropped if an object has too many with the
same type and reason, or if the queue is full. The limits are those of client-go
(tools/events/event_broadcaster.go, tools/record/events_cache.go), which has one limit for all reasons of an
object.
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
from pilothouse.telemetry import now, redacted, redacted_reason

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

QUEUE_LENGTH = 1000
CACHE_LENGTH = 4096
# For each type and reason, an object may have a burst of 25 different events, and then one more every 5
# minutes. So many events of one reason, such as the steps of a long change, never displace those of another.
REASON_BURST = 25
REASON_RATE = 1 / 300
# A series ends if its event has not happened for 6 minutes: the next one is a new Event.
SERIES_END = 360.0
# How often the count of an ongoing series is written.
SERIES_REFRESH = 300.0
SWEEP_PERIOD = 60.0
# Writing an Event is retried, then the Event is dropped: later ones matter more.
TRIES = 3
RETRY_PAUSE = 10.0
# The API server's own limits (kubernetes pkg/apis/core/validation/events.go).
NOTE_BYTES = 1024
WORD_BYTES = 128
# An Event's name is a DNS subdomain of 253 characters: a prefix from the object's name, a dot and 16 digits.
PREFIX_LENGTH = 230


class EventType(StrEnum):
    """The type of an Event."""

    NORMAL = "Normal"
    WARNING = "Warning"


class ObjectReference(NamedTuple):
    """The object that an Event is about."""

    api_version: str
    kind: str
    key: ObjectKey
    uid: str


class _Limited(NamedTuple):
    """The events that share a limit."""

    regarding: ObjectReference
    type: EventType
    reason: str


class Event(NamedTuple):
    """Something that happened to an object. Equal events become one Event with a series.

    Attributes:
        regarding: The object.
        type: Normal or Warning.
        reason: Why it happened, for machines: CamelCase, truncated to 128 bytes.
        action: What was done or failed, for machines: CamelCase, truncated to 128 bytes.
        note: What happened, for people: truncated to 1024 bytes.
    """

    regarding: ObjectReference
    type: EventType
    reason: str
    action: str
    note: str


class WrittenEvent(msgspec.Struct, frozen=True, gc=False):
    """The fields of an Event that its writer needs."""

    metadata: ObjectMeta


EVENT: Resource[WrittenEvent] = Resource("events.k8s.io", "v1", "Event", "events", WrittenEvent)


@dataclass(slots=True)
class Series:
    """An event and how often it has happened."""

    event: Event
    name: str
    count: int
    last: float  # When it last happened, loop time.
    last_time: str  # The same time as the API writes it.
    written: float = float("-inf")  # When it was last written, loop time.
    written_count: int = 0
    queued: bool = False


class EventRecorder:
    """Records events of objects.

    For each type and reason, it writes a burst of 25 different events of an object, and then one every 5
    minutes. It drops the others.

    Args:
        api: The client of the API server. It needs permission to create and patch events.k8s.io Events.
        controller: The reporting controller: a qualified name such as "flights.com/pilothouse-flights".
        instance: The reporting process; by default the host's name.
    """

    def __init__(self, api: Api, controller: str, instance: str = "") -> None:
        self._api = api
        self._controller = controller
        self._instance = _cut(instance or socket.gethostname(), WORD_BYTES)
        self._loop = asyncio.get_running_loop()
        self._series: OrderedDict[Event, Series] = OrderedDict()
        self._buckets: OrderedDict[_Limited, TokenBucket] = OrderedDict()
        self._queue: deque[Series] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def record(self, event: Event) -> None:
        """Queues an event to be written. Returns immediately and never raises.

        Args:
            event: The event.
        """
        event = event._replace(
            reason=_cut(redacted_reason(event.reason), WORD_BYTES),
            action=_cut(redacted(event.action), WORD_BYTES),
            note=_cut(redacted(event.note), NOTE_BYTES, "..."),
        )
        series = self._series.get(event)
        if series is None or self._loop.time() - series.last > SERIES_END:
            if not self._allowed(_Limited(event.regarding, event.type, event.reason)):
                _drop(event, "its object has too many events of this reason")
                return
            series = Series(event, _name(event.regarding.key.name), 0, 0.0, "")
            _remember(self._series, event, series)
        series.count += 1
        series.last = self._loop.time()
        series.last_time = now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if series.count <= 2:
            self._enqueue(series)

    async def run(self) -> None:
        """Writes the recorded events, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep())
            while True:
                while self._queue:
                    await self._write(self._queue.popleft())
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()

    async def flush(self, patience: float) -> None:
        """Waits until all recorded events are written. `run` must be running.

        Args:
            patience: The maximum time to wait, in seconds.
        """
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            log.warning("Timed out writing events; number of lost events: %d", len(self._queue))

    def _allowed(self, key: _Limited) -> bool:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(REASON_RATE, REASON_BURST)
        _remember(self._buckets, key, bucket)
        return bucket.take()

    def _enqueue(self, series: Series) -> None:
        if series.queued:
            return
        if len(self._queue) >= QUEUE_LENGTH:
            _drop(series.event, "the queue of events is full")
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
                # The new leader writes its own events. If this process leads again before the series ends,
                # the sweep writes this one.
                log.debug("Event not written: this process is not the leader")
                return
            except (UnicodeError, TypeError, ValueError) as error:
                log.error("Could not write an event of %s: %s", series.event.regarding.key, error)
                return
            except KubeError as error:
                # The API server would refuse an invalid request (4xx) again.
                final = isinstance(error, ApiError) and error.status < 500 and error.status != 429
                if final or attempt == TRIES:
                    log.warning("Could not write an event of %s: %s", series.event.regarding.key, error)
                    return
                log.debug("Retrying to write an event in %g s: %s", RETRY_PAUSE, error)
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
            except NotFound:  # By default, Events expire after an hour.
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
        """Writes the counts of ongoing and ended series, and forgets the ended ones."""
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
    """Puts a value into a bounded cache that drops its oldest value when it is full."""
    cache[key] = value
    cache.move_to_end(key)
    if len(cache) > CACHE_LENGTH:
        cache.popitem(last=False)


def _drop(event: Event, why: str) -> None:
    log.debug("Dropped an event because %s: %s", why, event.note)


def _name(regarding: str) -> str:
    """Returns a unique name for an Event that begins with the name of its object.

    Characters that are invalid in an Event's name are replaced: the names of RBAC objects may contain colons
    and upper-case letters.
    """
    labels = re.sub("[^a-z0-9.]+", "-", regarding.lower()[:PREFIX_LENGTH]).split(".")
    prefix = ".".join(filter(None, (label.strip("-") for label in labels)))
    return f"{prefix or 'object'}.{uuid.uuid4().hex[:16]}"


def _cut(text: str, limit: int, end: str = "") -> str:
    """Returns the text, truncated to `limit` bytes. A truncated text ends with `end`."""
    text = encodable(text)
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(end)].decode(errors="ignore") + end
