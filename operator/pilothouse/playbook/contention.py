"""Contention: another client, or another task, keeps changing fields that the operator sets.

The operator corrects such a change, and the other client changes the field again. Without a limit, the two
would write as fast as the API server answers. So the operator waits before each correction from the third one
on, with growing pauses, and reports the fight at a limited rate.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pilothouse.controller.outcome import SHORTEST_SECONDS
from pilothouse.kube import ObjectKey
from pilothouse.playbook.arguments import enumerated
from pilothouse.playbook.tasks import running_task
from pilothouse.telemetry import metrics

if TYPE_CHECKING:
    from pilothouse.playbook.manifest import Difference

CONTENDED = "FieldContended"
"""The reason of the condition Ready, and of the Event, while an object is contended."""

# A manual change is corrected once or twice. More corrections indicate a fight.
THRESHOLD = 3
# The pause before the next correction: 1 s, doubled with each one, at most 5 minutes.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
# Without a correction for this long, and for twice the last pause, the fight has ended.
QUIET_SECONDS = 60.0
# A fight that continues is reported again after this time.
REPORT_SECONDS = 300.0
# The number of objects whose corrections are counted. The oldest are forgotten first.
LENGTH = 4096
FIELDS = 3
# The shortest pause, in seconds: that of the controller. It is longer than the resolution of any event loop's
# clock, even of a machine that has been up for years.
RESOLUTION = SHORTEST_SECONDS


class Contended(NamedTuple):
    """A fight over an object.

    Attributes:
        message: The object, the fields and the other clients, for people.
        pause: Seconds until the object is reconciled again: for the next correction, or to find that the
            fight has ended.
        report: Whether to record an Event and a log line now.
    """

    message: str
    pause: float
    report: bool


@dataclass(slots=True)
class Fight:
    """The corrections of one object. Times are seconds of the event loop's clock."""

    count: int = 0
    last: float = 0.0
    reported: float = float("-inf")
    message: str = ""

    @property
    def pause(self) -> float:
        """Seconds between the last correction and the next one."""
        if self.count < THRESHOLD:
            return 0.0
        # The exponent is bounded: 2.0**1024 is an OverflowError.
        return min(FIRST_PAUSE * 2.0 ** min(self.count - THRESHOLD, 32), LONGEST_PAUSE)

    @property
    def ends(self) -> float:
        """The time when the fight ends unless the object is corrected again."""
        return self.last + max(QUIET_SECONDS, 2 * self.pause)


class Contention:
    """Counts the corrections of each object."""

    def __init__(self) -> None:
        self._fights: OrderedDict[tuple[str, ObjectKey], Fight] = OrderedDict()
        # The fields that each task has changed since the first correction, by kind and object. Most objects
        # are never corrected, and take no memory here.
        self._writers: OrderedDict[tuple[str, ObjectKey], dict[str, set[str]]] = OrderedDict()

    def postponed(self, aspect: str, key: ObjectKey) -> bool:
        """Returns whether the object must not be corrected yet."""
        fight = self._fights.get((aspect, key))
        return fight is not None and pause_until(fight.last + fight.pause) > 0

    def wait(self, aspect: str, key: ObjectKey) -> float:
        """Returns the seconds until the object may be corrected; 0 if it may be corrected now."""
        fight = self._fights.get((aspect, key))
        return 0.0 if fight is None else pause_until(fight.last + fight.pause)

    def state(self, aspect: str, key: ObjectKey) -> Contended | None:
        """Returns the fight over an object; None if there is none."""
        fight = self._fights.get((aspect, key))
        if fight is None or fight.count < THRESHOLD:
            return None
        time = _now()
        if time >= fight.ends:
            self.forget(aspect, key)
            return None
        pause = pause_until(fight.last + fight.pause) or pause_until(fight.ends)
        report = time - fight.reported >= REPORT_SECONDS
        if report:
            fight.reported = time
        return Contended(fight.message, pause, report)

    def corrected(
        self, aspect: str, key: ObjectKey, what: str, differences: Sequence["Difference"], manager: str
    ) -> None:
        """Counts a correction of an object that another client, or another task, has changed.

        Args:
            aspect: The kind, or the kind and the subresource.
            key: The object.
            what: The object's kind and key, such as "ConfigMap default/web".
            differences: The corrected differences.
            manager: The operator's own field manager.
        """
        task = running_task()
        paths = {each.path for each in differences}
        tasks = self._writers.setdefault((_kind(aspect), key), {})
        if len(self._writers) > LENGTH:
            self._writers.popitem(last=False)
        others = {each for each, fields in tasks.items() if each != task and not paths.isdisjoint(fields)}
        self._count(aspect, key, _message(what, task, differences, _writer(differences, others, manager)))

    def changed(self, aspect: str, key: ObjectKey, differences: Sequence["Difference"]) -> None:
        """Records which fields of a corrected object the running task has changed, to name it in a fight.

        Args:
            aspect: The kind, or the kind and the subresource.
            key: The object.
            differences: The changed fields.
        """
        at = _kind(aspect), key
        tasks = self._writers.get(at)
        if tasks is None:
            return
        self._writers.move_to_end(at)
        tasks.setdefault(running_task(), set()).update(each.path for each in differences)

    def taken_over(self, aspect: str, key: ObjectKey, what: str) -> None:
        """Counts that an object was taken over from another owner, which may take it back."""
        self._count(
            aspect,
            key,
            f"Another owner keeps taking {what} over. The operator now takes it back only with growing "
            "pauses. Two owners must not use the same name: rename or delete one of them.",
        )

    def status_corrected(self, aspect: str, key: ObjectKey, what: str, fields: str) -> None:
        """Counts a correction of a status that another client has overwritten.

        The message of the fight does not name the other client.

        Args:
            aspect: The kind and the subresource.
            key: The object.
            what: The object's kind and key, such as "Ticket default/web".
            fields: The corrected fields, such as "status.conditions".
        """
        self._count(
            aspect,
            key,
            f"keeps changing {fields} of {what}, which this operator writes. The operator now restores it "
            "only with growing pauses.",
        )

    def recreated(self, aspect: str, key: ObjectKey, what: str) -> None:
        """Counts that an object was created again after another client had deleted it."""
        self._count(
            aspect,
            key,
            f"Another client, or another watch of this operator, keeps deleting {what}, which this operator "
            "creates. The operator now creates it only with growing pauses. Stop the other client, or delete "
            "the object that owns it.",
        )

    def forget(self, aspect: str, key: ObjectKey) -> None:
        """Forgets the corrections of an object that no longer exists, or whose fight has ended."""
        self._fights.pop((aspect, key), None)
        self._writers.pop((_kind(aspect), key), None)

    def _count(self, aspect: str, key: ObjectKey, message: str) -> None:
        metrics.CORRECTIONS.labels(aspect).inc()
        time = _now()
        fight = self._fights.get((aspect, key))
        if fight is None or time >= fight.ends:
            fight = self._fights[aspect, key] = Fight()
        self._fights.move_to_end((aspect, key))
        if len(self._fights) > LENGTH:
            self._fights.popitem(last=False)
        fight.count += 1
        fight.last = time
        fight.message = message


def pause_until(time: float) -> float:
    """Returns the seconds until a time of the event loop's clock; 0 if it has come.

    A short rest is rounded up. The loop runs a timer that is due within the resolution of its clock, so a
    caller that waited for less would be called at the same time again, forever.
    """
    rest = time - _now()
    return max(rest, RESOLUTION) if rest > 0 else 0.0


def _now() -> float:
    return asyncio.get_running_loop().time()


def _kind(aspect: str) -> str:
    """Returns the kind of an aspect, such as "deployments.apps" for "deployments.apps/scale"."""
    return aspect.partition("/")[0]


def _writer(differences: Sequence["Difference"], tasks: Set[str], manager: str) -> str:
    """Returns who changes the fields, for people; empty if it is unknown.

    Args:
        differences: The corrected differences.
        tasks: The other tasks that have changed the same fields.
        manager: The operator's own field manager.
    """
    rivals = {rival for each in differences for rival in each.rivals}
    if others := sorted(rivals - {manager}):
        return f"The field manager {', '.join(others)}"
    if tasks:
        return f"The task {' and the task '.join(repr(each) for each in sorted(tasks))} of this operator"
    # A second installation writes under the operator's own name, too.
    return "Another task or watch of this operator, or a second installation of it," if rivals else ""


def _message(what: str, task: str, differences: Sequence["Difference"], writer: str) -> str:
    paths = sorted({each.path for each in differences})
    fields = enumerated(paths, FIELDS)
    own = "this operator" in writer
    setter = f"the task {task!r}" if own and task else "this operator"
    stop = (
        "Let only one of them set the field."
        if own
        else "Stop the other client, or stop setting the field in one of the two."
    )
    return (
        f"{writer or 'Another client'} keeps changing {fields} of {what}, which {setter} sets. The operator "
        f"now corrects the object only with growing pauses. {stop}"
    )
