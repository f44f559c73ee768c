"""The pace of reconciles whose writes repeat: a backstop against fights that no module recognizes.

Another client may undo any write of the operator: it removes the finalizer or an annotation, deletes what a
task creates, or creates what a task deletes. The change causes a reconcile, which writes the same again.
Without a limit, the two would write as fast as the API server answers.

`pilothouse.playbook.contention` and `pilothouse.playbook.rivals` recognize a field that another client has
changed, name the client, and delay only that correction. They act sooner. This module compares the writes of
whole reconciles, and delays the next reconcile of the object.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from pilothouse.controller import Written
from pilothouse.kube import KubeObject, ObjectKey
from pilothouse.playbook.contention import (
    FIRST_PAUSE,
    LENGTH,
    LONGEST_PAUSE,
    QUIET_SECONDS,
    REPORT_SECONDS,
    pause_until,
)
from pilothouse.queue import TokenBucket

WRITES_REPEATED = "WritesRepeated"
"""The reason of the Event."""

# The same writes so many times in a row are a fight. A fight that a module recognizes is slowed down before.
REPEATS = 10
# Until a fight is recognized, only repetitions within this time count. A write that is repeated less often
# needs no limit.
SOON_SECONDS = 10.0
# A reconcile that fails is retried with back-off. Its writes count only if it was retried sooner than this.
RETRIED_SECONDS = 1.0
# Reconciles that write something, whatever it is: 100 immediately, then one a second. A status that
# progresses every second is not delayed, and neither is a deployment in many steps.
BURST = 100
RATE = 1.0
# The writes of one of the last reconciles count as the same: some fights have two or three phases.
PHASES = 4
NAMED = 3


@dataclass(slots=True)
class _Record:
    """The writes of one object's reconciles. Times are seconds of the event loop's clock."""

    state: object
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(RATE, BURST))
    recent: deque[frozenset[Written]] = field(default_factory=lambda: deque(maxlen=PHASES))
    count: int = 0
    last: float = float("-inf")
    overdrawn: float = 0.0
    # When the object is reconciled because its last reconcile asked for it.
    asked: float = float("inf")
    reported: float = float("-inf")

    @property
    def pause(self) -> float:
        """Seconds between the last writes and the next reconcile."""
        growing = 0.0
        if self.count >= REPEATS:
            growing = min(FIRST_PAUSE * 2.0 ** min(self.count - REPEATS, 32), LONGEST_PAUSE)
        return max(growing, self.overdrawn)


class Pace:
    """Decides when an object may be reconciled whose reconciles keep writing."""

    def __init__(self) -> None:
        self._records: OrderedDict[ObjectKey, _Record] = OrderedDict()

    def wait(self, obj: KubeObject, state: object) -> float:
        """Returns the seconds until an object may be reconciled; 0 if it may be now.

        Args:
            obj: The object.
            state: What a user changes: the spec, or the request to delete. If it differs from the state of
                the last reconcile, the object may be reconciled now, and the count starts again.
        """
        key = obj.metadata.key
        record = self._records.get(key)
        if record is None:
            return 0.0
        if record.state != state:
            del self._records[key]
            return 0.0
        return pause_until(record.last + record.pause)

    def note(
        self, obj: KubeObject, state: object, writes: Sequence[Written], *, failed: bool, asked: float
    ) -> str:
        """Counts the writes of a reconcile.

        Args:
            obj: The object.
            state: See `wait`.
            writes: What the reconcile has written.
            failed: Whether it failed, so that it is retried with back-off.
            asked: The seconds after which it asked to be reconciled again; infinite if it did not ask.

        Returns:
            A report for people: what is repeated, and what to do. Empty if there is nothing to report now.
        """
        key, time = obj.metadata.key, asyncio.get_running_loop().time()
        record = self._records.get(key)
        if not writes:
            if record is not None:
                record.asked = time + asked
            return ""
        if record is None:
            record = self._records[key] = _Record(state)
            if len(self._records) > LENGTH:
                self._records.popitem(last=False)
        self._records.move_to_end(key)
        _count(record, frozenset(writes), time, failed=failed)
        record.asked = time + asked
        if not record.pause or time - record.reported < REPORT_SECONDS:
            return ""
        record.reported = time
        return _report(writes, record)

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._records.pop(key, None)


def _count(record: _Record, writes: frozenset[Written], time: float, *, failed: bool) -> None:
    gap = time - record.last
    record.overdrawn = record.bucket.reserve()
    soon = RETRIED_SECONDS if failed else SOON_SECONDS
    longest = soon if record.count < REPEATS else max(QUIET_SECONDS, 2 * record.pause)
    if writes not in record.recent or gap >= longest:
        record.count = 1
    elif time < record.asked and not (failed and gap >= RETRIED_SECONDS):
        # A reconcile that the last one asked for is not a reaction to another client.
        record.count += 1
    record.recent.append(writes)
    record.last = time


def _report(writes: Sequence[Written], record: _Record) -> str:
    names = list(dict.fromkeys(each.what for each in writes))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    what = f"{', '.join(names[:NAMED])}{more}"
    if record.count >= REPEATS:
        return (
            f"The operator has made the same writes {record.count} times in a row: {what}. Another client, "
            "or another task, undoes them. The operator now reconciles the object only with growing pauses "
            f"of up to {LONGEST_PAUSE:g} s. Stop the other client. A change of the spec is reconciled "
            "immediately."
        )
    return (
        f"The operator has written in more than {BURST} reconciles within a short time, last: {what}. It now "
        f"reconciles the object about {RATE:g} times a second. Another client may undo the writes, or a task "
        "writes a value that differs in every reconcile."
    )
