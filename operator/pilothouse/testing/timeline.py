"""The timeline of a run: what the user, the cluster and the processes of the operator did."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pilothouse.kube import Conflict, EventType
from pilothouse.playbook import Playbook, Recap, Watch
from pilothouse.playbook.play import Play
from pilothouse.telemetry import current_object
from pilothouse.testing.collection import Change
from pilothouse.testing.collection import Collection as Objects
from pilothouse.testing.differences import brief, changes
from pilothouse.testing.faults import WORDS, Fault, Injection, Site
from pilothouse.testing.process import Process

USER, CLUSTER = "user", "cluster"

#: More reconciles of an object, or calls for it, within one wait of the scenario count as an endless loop.
MANY_RECONCILES, MANY_CALLS = 500, 5000
#: How many entries a report shows at the beginning, before and after each call with a fault, and at the end.
FIRST, BEFORE, AFTER, LAST = 12, 8, 14, 16


@dataclass(frozen=True)
class Entry:
    """Something that happened.

    Attributes:
        seconds: The time in seconds since the start of the run.
        who: The user, the cluster, or a process of the operator.
        text: A description.
        fault: The fault that was injected at the call, if there was one.
    """

    seconds: float
    who: str
    text: str
    fault: Fault | None = None

    def __str__(self) -> str:
        marker = "-->" if self.fault else "   "
        struck = f"   <-- {self.fault}: {WORDS[self.fault]}" if self.fault else ""
        return f"{marker} {self.seconds:8.1f} s  {self.who:<9}  {self.text}{struck}"


@dataclass(frozen=True)
class Reconcile:
    """One reconcile of an object.

    Attributes:
        object: The kind and the key.
        seconds: When it ended, in seconds since the start of the run.
        failure: The reason and message of the failed task; empty if no task failed.
    """

    object: str
    seconds: float
    failure: str = ""


class Timeline:
    """What happened in one run. Create it on the loop of the run.

    Attributes:
        entries: All entries, oldest first.
        reconciles: The reconciles that have ended.
        endless: Set when the operator is in an endless loop; `loop` describes it.
        loop: A description of the endless loop.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.reconciles: list[Reconcile] = []
        self.endless = asyncio.Event()
        self.loop = ""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._clock = asyncio.get_running_loop().time
        self._began = self._clock()

    @property
    def seconds(self) -> float:
        """The seconds since the start of the run."""
        return self._clock() - self._began

    def begin_wait(self) -> None:
        """Restarts the counters of reconciles and calls per object."""
        self._counts.clear()

    def _count(self, what: str, obj: str, many: int) -> None:
        self._counts[what, obj] += 1
        if self._counts[what, obj] > many and not self.loop:
            self.loop = f"{what} {obj or 'outside of reconciles'} more than {many} times"
            self.endless.set()

    def add(self, who: str, text: str, fault: Fault | None = None) -> None:
        """Adds an entry."""
        self.entries.append(Entry(self.seconds, who, text, fault))

    def add_call(self, site: Site, injection: Injection | None) -> None:
        """Adds a call of a process. Leaves out calls of leader elections without a fault."""
        if site.election and injection is None:
            return
        self._count("made calls for", site.object, MANY_CALLS)
        self.add(process_name(site.process), str(site), injection.fault if injection else None)

    def add_effects(self, who: str, effects: Counter[str]) -> None:
        """Adds what a call did outside, according to `Scenario.effects`."""
        for effect, count in islice(effects.items(), 5):
            self.add(who, f"    effect: {brief(effect)}" + (f" ({count} times)" if count > 1 else ""))

    def add_user_step(self, changes: Sequence[tuple[Objects, Change]], effects: Counter[str]) -> None:
        """Adds what the user did to objects and outside systems between two yields of a scenario."""
        for objects, change in changes:
            self.add(USER, _change_in_words(objects, change))
        self.add_effects(USER, effects)

    def add_recap(self, who: str, play: Play[Any, Any], recap: Recap) -> None:
        """Adds how a reconcile ended, task by task."""
        failure = f"{recap.failure.reason}: {recap.failure}" if recap.failure else ""
        self._add_reconcile(failure)
        for result in recap.results:
            message = f" ({brief(result.message)})" if result.message else ""
            self.add(who, f"    task {result.task!r}: {result.state}{message}")
        ended = f"failed with {brief(failure)}" if failure else "waiting" if recap.waiting else "done"
        what = "cleanup" if play.deleting else "reconcile"
        self.add(who, f"{_object()}: {what} ended: {ended}")

    def add_error(self, who: str, error: BaseException) -> None:
        """Adds an error that ended a reconcile."""
        self._add_reconcile("" if isinstance(error, Conflict | asyncio.CancelledError) else repr(error))
        self.add(who, f"{_object()}: reconcile ended by {brief(repr(error))}")

    def _add_reconcile(self, failure: str) -> None:
        self._count("reconciled", _object(), MANY_RECONCILES)
        self.reconciles.append(Reconcile(_object(), self.seconds, failure))

    def lines(self) -> Iterator[str]:
        """Yields the entries that a report shows: the first, the last, and those around faults."""
        shown = self._shown()
        last = -1
        for index in shown:
            if index > last + 1:
                yield f"            ... {index - last - 1} more entries ..."
            yield str(self.entries[index])
            last = index

    def _shown(self) -> Collection[int]:
        total = len(self.entries)
        chosen = {*range(min(FIRST, total)), *range(max(0, total - LAST), total)}
        for index, entry in enumerate(self.entries):
            if entry.fault:
                chosen |= set(range(max(0, index - BEFORE), min(total, index + AFTER)))
        # The user's steps explain what follows.
        chosen |= set(islice((i for i, entry in enumerate(self.entries) if entry.who == USER), 30))
        return sorted(chosen)


class Recorded(Playbook[Any]):
    """A playbook whose reconciles are recorded in a timeline.

    Args:
        playbook: The playbook to run.
        timeline: The timeline.
        process: The process that runs the playbook. Nothing is recorded after it was killed.
    """

    def __init__(self, playbook: Playbook[Any], timeline: Timeline, process: Process) -> None:
        # Copies all attributes of the playbook.
        self.__dict__.update(vars(playbook))
        self._recorded = playbook
        self._timeline = timeline
        self._process = process
        self._who = process_name(process.number)

    async def run(self, play: Play[Any, Any]) -> Recap:
        """Runs the playbook, and records how it ended."""
        what = "cleanup" if play.deleting else "reconcile"
        self._timeline.add(self._who, f"{_object()}: {what} begins")
        try:
            recap = await self._recorded.run(play)
        except BaseException as error:
            if self._process.alive:
                self._timeline.add_error(self._who, error)
            raise
        if self._process.alive:
            self._timeline.add_recap(self._who, play, recap)
        return recap


def recorded(watch: Watch, timeline: Timeline, process: Process) -> Watch:
    """Returns a watch whose reconciles are recorded in a timeline."""
    return replace(watch, tasks=Recorded(watch.playbook, timeline, process))


def process_name(number: int) -> str:
    """Returns the name of a process in reports."""
    return f"process {number}"


def _object() -> str:
    return str(current_object() or "an object")


def _change_in_words(objects: Objects, change: Change) -> str:
    """Returns a description of what the user did to an object."""
    metadata = change.object["metadata"]
    key = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    name = f"{objects.resource} {key}"
    before = change.before
    if before is None:
        content = {part: value for part, value in change.object.items() if part in ("spec", "data", "status")}
        return f"creates {name}" + (f": {brief(content)}" if content else "")
    if change.type is EventType.DELETED or "deletionTimestamp" in metadata.keys() - before["metadata"].keys():
        return f"deletes {name}"
    return f"changes {name}: {brief('; '.join(changes(_content(before), _content(change.object))))}"


def _content(obj: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        name: value
        for name, value in obj["metadata"].items()
        if name not in ("resourceVersion", "generation", "managedFields")
    }
    return {**obj, "metadata": metadata}
