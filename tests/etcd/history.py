"""The record of what a writer did: one JSON document per line, and the figures that follow from it.

Times are nanoseconds of the machine's monotonic clock. All processes share it, so a test can compare them
with its own `time.monotonic_ns()`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import msgspec

#: The writer has to write at least this often per second, or its figures have no meaning.
WRITES_PER_SECOND = 50.0
#: Milliseconds by which the writer may start an operation late. A writer that was not running sees no gap.
LATE_LIMIT = 1000.0
#: Milliseconds after which a late operation shows that the machine is too busy for the deadlines of writes.
BUSY = 250.0


class Kind(Enum):
    """What an operation does."""

    READ = "read"
    WRITE = "write"


class Outcome(Enum):
    """What is known about an operation.

    A failed one had no effect. One without an answer may have had its effect, or may have it later.
    """

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The start of a history.

    Attributes:
        at: When operation 0 of client 0 was due.
        interval: The nanoseconds between two operations of one client.
        clients: The number of clients. Client n starts n parts of an interval later.
    """

    at: int
    interval: int
    clients: int

    def due(self, client: int, number: int) -> int:
        """Returns when an operation of a client is due."""
        return self.at + number * self.interval + client * self.interval // self.clients


class Operation(msgspec.Struct, frozen=True, omit_defaults=True, tag="operation"):
    """One call: a read, or one attempt of a write.

    Attributes:
        client: The client, from 0.
        number: Which operation of the client it is, from 0. The attempts of a write have the same number.
        kind: Read or write.
        key: The key.
        called: When the client sent it.
        returned: When the client had the answer or the error.
        outcome: What is known about it.
        value: What was written or read. None: the key did not exist, or the read failed. Each attempt of a
            write has a value of its own.
        revision: The revision of an acknowledged write.
        attempt: The attempt of a write, from 1.
        error: Why it failed or has no answer: the type of the error, a colon and its text.
    """

    client: int
    number: int
    kind: Kind
    key: str
    called: int
    returned: int
    outcome: Outcome = Outcome.OK
    value: str | None = None
    revision: int = 0
    attempt: int = 1
    error: str = ""


class End(msgspec.Struct, frozen=True, omit_defaults=True, tag="end"):
    """The end of a history.

    Attributes:
        at: When the writer started no more operations.
        problem: Why it gave up. Empty: it was stopped.
    """

    at: int
    problem: str = ""


Entry = Begin | Operation | End
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)


@dataclass(frozen=True)
class Figures:
    """What a user of the cluster saw. All times but `seconds` are in milliseconds."""

    seconds: float
    reads: int
    writes: int
    #: Writes without an acknowledged attempt.
    failed_writes: int
    #: Those during which the writer itself was not late. The others may have failed on a busy machine.
    failed_on_time: int
    #: Attempts of writes and reads that failed or have no answer, by the type of their error.
    errors: Mapping[str, int]
    #: The longest time without an acknowledged write, and when it began, counted from the start.
    longest_gap: float
    gap_began: float
    #: The longest time by which the writer itself was late with an operation.
    late: float


@dataclass(frozen=True)
class History:
    """A complete or unfinished history."""

    begin: Begin
    operations: tuple[Operation, ...]
    end: End | None

    @staticmethod
    def of(entries: Iterable[Entry]) -> History:
        """Returns the history with these entries, in their order.

        Raises:
            ValueError: There is no `Begin`.
        """
        found = tuple(entries)
        begin = next((each for each in found if isinstance(each, Begin)), None)
        if begin is None:
            raise ValueError("The history has no first entry: the writer did not start.")
        operations = tuple(each for each in found if isinstance(each, Operation))
        return History(begin, operations, next((each for each in found if isinstance(each, End)), None))

    @staticmethod
    def load(file: Path) -> History:
        """Returns the history in a file. A last line without an end, which is being written, is left out."""
        lines = file.read_bytes().splitlines(keepends=True)
        return History.of(_decoder.decode(line) for line in lines if line.endswith(b"\n"))

    @property
    def writes(self) -> Mapping[str, tuple[Operation, ...]]:
        """All attempts of writes by key."""
        found: dict[str, list[Operation]] = {}
        for each in self.operations:
            if each.kind is Kind.WRITE:
                found.setdefault(each.key, []).append(each)
        return {key: tuple(attempts) for key, attempts in found.items()}

    def figures(self) -> Figures:
        """Returns what a user of the cluster saw.

        Raises:
            ValueError: The history is not finished.
        """
        if self.end is None:
            raise ValueError("The history has no last entry: the writer was killed or is still running.")
        writes = [each for each in self.operations if each.kind is Kind.WRITE]
        acknowledged = [each for each in writes if each.outcome is Outcome.OK]
        started = {(each.client, each.number): each.returned for each in writes}
        failed = started.keys() - {(each.client, each.number) for each in acknowledged}
        open_ = [(self.begin.due(*each), started[each]) for each in failed]
        gap, gap_began = self._longest_gap(each.returned for each in acknowledged)
        due = ((each, self.begin.due(each.client, each.number)) for each in self.operations)
        return Figures(
            seconds=(self.end.at - self.begin.at) / 1e9,
            reads=len(self.operations) - len(writes),
            writes=len(started),
            failed_writes=len(failed),
            failed_on_time=sum(not self._was_busy(*each) for each in open_),
            errors=Counter(
                each.error.partition(":")[0] for each in self.operations if each.outcome is not Outcome.OK
            ),
            longest_gap=gap / 1e6,
            gap_began=(gap_began - self.begin.at) / 1e6,
            late=max((each.called - at for each, at in due if each.attempt == 1), default=0) / 1e6,
        )

    def stalled(self) -> str:
        """Returns why the writer did not do all operations in turn until it was stopped. Empty: it did.

        The answer does not depend on the speed of the machine: an operation may begin and end late.
        """
        if self.end is None:
            return "The writer was killed or is still running."
        if self.end.problem:
            return self.end.problem
        for client in range(self.begin.clients):
            done = {each.number for each in self.operations if each.client == client}
            if skipped := set(range(max(done, default=-1))) - done:
                return f"The writer skipped operation {min(skipped)} of client {client}."
        return ""

    def problem(self) -> str:
        """Returns why the figures must not be used. Empty: they can be used."""
        if stalled := self.stalled():
            return stalled
        figures = self.figures()
        if figures.late > LATE_LIMIT:
            return f"The writer itself stalled: it started an operation {figures.late:.0f} ms late."
        if figures.writes < WRITES_PER_SECOND * figures.seconds - 1:
            rate = figures.writes / figures.seconds
            return f"The writer wrote {rate:.1f} times per second, fewer than {WRITES_PER_SECOND:g}."
        return ""

    def _was_busy(self, begin: int, end: int) -> bool:
        """Returns whether an operation was due and not started yet for too long between two times."""
        return any(due < end and called > begin for due, called in self._delays)

    @cached_property
    def _delays(self) -> Sequence[tuple[int, int]]:
        """When each operation that started much too late was due, and when it started."""
        first = (each for each in self.operations if each.attempt == 1)
        times = ((self.begin.due(each.client, each.number), each.called) for each in first)
        return [(due, called) for due, called in times if called - due > BUSY * 1e6]

    def _longest_gap(self, acknowledged: Iterable[int]) -> tuple[int, int]:
        """Returns the length and the beginning of the longest time without an acknowledged write."""
        assert self.end is not None
        # The calls that were still open at the end were answered after it.
        inside = sorted(at for at in acknowledged if at < self.end.at)
        times = [self.begin.at, *inside, self.end.at]
        return max((later - earlier, earlier) for earlier, later in pairwise(times))


def encode(entry: Entry) -> bytes:
    """Returns an entry as one line."""
    return _encoder.encode(entry) + b"\n"
