"""The pace of reconciles whose writes repeat: a backstop against fights that no module recognizes.

Another client may undo any write of the operator: it removes the finalizer or an annotation, deletes what a
task creates, or creates what a task deletes. The change causes a reconcile, which writes the same again.
Without a limit, the two would write as fast as the API server answers.

`pilothouse.playbook.contention` and `pilothouse.playbook.rivals` recognize a field that another client has
changed, name the client, and delay only that correction. They act sooner. This module compares the writes of
whole reconciles, and delays the next reconcile of the object.

Most objects are written once and then not for a long time. They must cost little: of these, only the time is
noted, in a table of a fixed size. An object gets a record of its own when it is written again soon.
"""

import asyncio
from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
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
from pilothouse.playbook.repeated import Opposed, named, opposed
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


@dataclass(slots=True)
class _Record:
    """The writes of one object's reconciles. Times are seconds of the event loop's clock."""

    state: object
    bucket: TokenBucket = field(default_factory=lambda: TokenBucket(RATE, BURST))
    recent: deque[frozenset[bytes]] = field(default_factory=lambda: deque(maxlen=PHASES))
    # The writes of the last reconciles, kept only when a report is near: their contents are large.
    writes: deque[Sequence[Written]] = field(default_factory=lambda: deque(maxlen=PHASES))
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

    @property
    def longest_gap(self) -> float:
        """Seconds. Writes that are further apart than this do not belong to one fight."""
        return SOON_SECONDS if self.count < REPEATS else max(QUIET_SECONDS, 2 * self.pause)


class _LastWrites:
    """When objects were last written. Each takes 16 bytes of a table that never grows.

    Two objects may share a place in the table, and then the later write replaces the earlier one. That
    matters only if they are written strictly in turn.
    """

    def __init__(self) -> None:
        self._uids = array("q", bytes(8 * LENGTH))
        self._times = array("d", bytes(8 * LENGTH))

    def note(self, uid: str, time: float) -> bool:
        """Notes that an object is written, and returns whether it was also written shortly before."""
        mark = hash(uid)
        place = mark % LENGTH
        soon = self._uids[place] == mark and time - self._times[place] < SOON_SECONDS
        self._uids[place], self._times[place] = mark, time
        return soon


class Pace:
    """Decides when an object may be reconciled whose reconciles keep writing.

    Args:
        wanted: Returns what a user changes of an object: the spec, or the request to delete. If that changes,
            the object may be reconciled immediately, and the count starts again.
    """

    def __init__(self, wanted: Callable[[KubeObject], object]) -> None:
        self._wanted = wanted
        self._last_writes: _LastWrites | None = None
        self._records: OrderedDict[ObjectKey, _Record] = OrderedDict()

    def __len__(self) -> int:
        """The number of objects that were written again soon."""
        return len(self._records)

    def wait(self, obj: KubeObject) -> float:
        """Returns the seconds until an object may be reconciled; 0 if it may be now."""
        record = self._records.get(obj.metadata.key) if self._records else None
        if record is None:
            return 0.0
        if record.state != self._wanted(obj):
            del self._records[obj.metadata.key]
            return 0.0
        return pause_until(record.last + record.pause)

    def note(self, obj: KubeObject, writes: Sequence[Written], *, failed: bool, asked: float) -> str:
        """Counts the writes of a reconcile.

        Args:
            obj: The object.
            writes: What the reconcile has written.
            failed: Whether it failed, so that it is retried with back-off.
            asked: The seconds after which it asked to be reconciled again; infinite if it did not ask.

        Returns:
            A report for people: what is repeated, and what to do. Empty if there is nothing to report now.
        """
        if not writes and not self._records:
            return ""
        key, time = obj.metadata.key, asyncio.get_running_loop().time()
        record = self._records.get(key)
        if not writes:
            if record is not None:
                record.asked = time + asked
            return ""
        self._expire(time)
        if record is None:
            if not self._written_before(obj.metadata.uid, time):
                return ""
            record = _Record(self._wanted(obj))
        self._records[key] = record  # It may just have expired.
        self._records.move_to_end(key)
        _count(record, frozenset(each.digest for each in writes), time, failed=failed)
        if record.count > REPEATS - PHASES:
            record.writes.append(writes)
        else:
            record.writes.clear()
        record.asked = time + asked
        if not record.pause or time - record.reported < REPORT_SECONDS:
            return ""
        record.reported = time
        return _report(writes, record)

    def _written_before(self, uid: str, time: float) -> bool:
        if self._last_writes is None:
            self._last_writes = _LastWrites()
        return self._last_writes.note(uid, time)

    def _expire(self, time: float) -> None:
        """Removes the records of objects that have not been written for long, the oldest first."""
        while self._records:
            key, oldest = next(iter(self._records.items()))
            if len(self._records) < LENGTH and time - oldest.last < oldest.longest_gap:
                return
            del self._records[key]

    def forget(self, key: ObjectKey) -> None:
        """Forgets an object that no longer exists."""
        self._records.pop(key, None)


def _count(record: _Record, writes: frozenset[bytes], time: float, *, failed: bool) -> None:
    gap = time - record.last
    record.overdrawn = record.bucket.reserve()
    longest = RETRIED_SECONDS if failed and record.count < REPEATS else record.longest_gap
    if writes not in record.recent or gap >= longest:
        record.count = 1
    elif time < record.asked and not (failed and gap >= RETRIED_SECONDS):
        # A reconcile that the last one asked for is not a reaction to another client.
        record.count += 1
    record.recent.append(writes)
    record.last = time


def _report(writes: Sequence[Written], record: _Record) -> str:
    last = [write for each in record.writes or (writes,) for write in each]
    rivalry = opposed(last)
    if record.count >= REPEATS:
        who = "Another client, or another watch of this operator, undoes them. "
        fix = "Stop the other client. " if rivalry is None else ""
        return (
            f"The operator has made the same writes {record.count} times in a row: {named(last)}. "
            f"{_undoing(rivalry) or who}The operator now reconciles the object only with growing pauses of "
            f"up to {LONGEST_PAUSE:g} s. {fix}A change of the spec is reconciled immediately."
        )
    why = "Another client may undo the writes, or a task writes a value that differs in every reconcile."
    return (
        f"The operator has written in more than {BURST} reconciles within a short time, last: {named(last)}. "
        f"It now reconciles the object about once a second. {_undoing(rivalry).rstrip() or why}"
    )


def _undoing(rivalry: Opposed | None) -> str:
    """Returns the sentences about tasks that undo each other's writes. Empty: none do."""
    if rivalry is None:
        return ""
    if len(rivalry.tasks) == 1:
        return (
            f"The task {rivalry.tasks[0]!r} undoes its own writes of {rivalry.what}. Write one value in it, "
            "and only once. "
        )
    tasks = " and ".join(map(repr, rivalry.tasks))
    return f"The tasks {tasks} undo each other's writes of {rivalry.what}. Let only one of them write it. "
