"""The rules for the run without faults, with which the runs with faults are compared.

An operator that always raises an error, never stops working or always leaks does so in every run, so that a
comparison of the runs would not find it.
"""

import logging
import re
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from pilothouse.kube import ObjectKey, Resource
from pilothouse.playbook.tasks import RESULT
from pilothouse.telemetry import current_object
from pilothouse.testing.differences import brief, times
from pilothouse.testing.documents import Json
from pilothouse.testing.faults import Site
from pilothouse.testing.naming import suggestion
from pilothouse.testing.timeline import Reconcile

#: The kinds that are ignored, because operators write them at any time.
EVENTS_AND_LEASES = ("leases.coordination.k8s.io", "events.events.k8s.io", "events")

#: Reasons of Ready that only a defect or a mistake in the scenario explains.
_DEFECTIVE = ("UnexpectedError", "Undecodable")
#: The failure of a task that sets the status of a kind whose status the operator does not write.
_NO_STATUS = "NoStatus"
_EVENTS = ("create events.events.k8s.io", "patch events.events.k8s.io")
_SHOWN = 8


class Defects(logging.Handler):
    """Collects unexpected errors from the log of the framework.

    Args:
        expected: The exceptions that the scenario declares.
    """

    def __init__(self, expected: tuple[type[BaseException], ...]) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._expected = expected

    def emit(self, record: logging.LogRecord) -> None:
        """Collects the error of a log record, if there is an unexpected one."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, self._expected):
            self.found.append(_defect(error, record.getMessage()))

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Collects the errors that are logged inside the block."""
        logger = logging.getLogger("pilothouse")
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)


def _defect(error: BaseException, message: str) -> str:
    result = RESULT.get(None)
    where = f"task {result.task!r}" if result else "outside of any task"
    obj = current_object()
    frames = "".join(traceback.format_exception(error)[-4:]).rstrip().replace("\n", "\n    ")
    return (
        f"an unexpected {type(error).__name__} was raised, {where}{f' of {obj}' if obj else ''} "
        f"(log: {brief(message)}). Fix it, raise a TaskFailed with a reason instead, or declare it in "
        f"expected_errors of the scenario.\n    {frames}"
    )


def defective_object(resource: Resource[Any], objects: Collection[Json]) -> str:
    """Returns a sentence if a condition of an object reports a defect; otherwise an empty string."""
    for obj in objects:
        for condition in obj.get("status", {}).get("conditions") or ():
            reason = condition.get("reason") if isinstance(condition, dict) else ""
            if reason in _DEFECTIVE:
                name = obj["metadata"]["name"]
                return f"{resource} {name} ends with {reason}: {brief(condition.get('message', ''))}"
    return ""


def mistaken(reconciles: Sequence[Reconcile]) -> str:
    """Returns a sentence if a reconcile failed because of a mistake in the playbook or the watch."""
    for each in reconciles:
        if each.failure.startswith(f"{_NO_STATUS}: "):
            return f"{each.object} ends with {each.failure}"
    return ""


@dataclass
class Rest:
    """Checks whether the operator stops working once everything has settled.

    Attributes:
        polls_every: Seconds between two reconciles of an object, or two equal calls, that are allowed.
        recurring: Patterns of calls that the scenario allows to continue.
        recurred: The patterns that a call has matched.
    """

    polls_every: float
    recurring: Sequence[str]
    recurred: set[str] = field(default_factory=set)

    def broken(self, sites: Sequence[Site], reconciles: Sequence[Reconcile], seconds: float) -> str:
        """Returns what the operator still did in the seconds after the state settled; empty if nothing."""
        often = int(seconds / self.polls_every) + 2
        writes = [site for site in sites if site.writes and not self._declared(site)]
        calls = Counter((site.what, site.object) for site in sites if not self._declared(site))
        plays = Counter(each.object for each in reconciles)
        parts = [
            *_often("changed something by {}", Counter(site.what for site in writes), seconds),
            *_often("made the call {}", _over(Counter(dict(calls)), often), seconds),
            *_often("reconciled {}", _over(plays, often), seconds),
        ]
        return "; ".join(parts[:_SHOWN])

    def unused(self, sites: Sequence[Site]) -> str:
        """Returns a sentence if no call has matched a declared pattern; otherwise an empty string."""
        for site in sites:
            self._declared(site)
        return unused_patterns("recurring", self.recurring, self.recurred, [site.what for site in sites])

    def _declared(self, site: Site) -> bool:
        matched = {pattern for pattern in self.recurring if fnmatchcase(site.what, pattern)}
        self.recurred |= matched
        return bool(matched) or site.what.startswith(_EVENTS)


def _over(counts: Counter[Any], often: int) -> Counter[Any]:
    return Counter({name: count for name, count in counts.items() if count > often})


def _often(what: str, counts: Counter[Any], seconds: float) -> list[str]:
    return [
        f"{what.format(' for '.join(filter(None, name)) if isinstance(name, tuple) else name)} "
        f"{times(count)} in {seconds:g} s"
        for name, count in counts.most_common()
    ]


def left_objects(
    objects: Sequence[tuple[Resource[Any], ObjectKey, Json]], retained: Sequence[str], alive: Collection[str]
) -> tuple[list[str], set[str]]:
    """Finds objects that are left over.

    Args:
        objects: The objects that must not exist, unless an owner of them does.
        retained: Patterns of the objects that stay on purpose.
        alive: The UIDs of all existing objects.

    Returns:
        Descriptions of the objects that are left over, and the patterns that matched retained ones.
    """
    left, matched = [], set()
    for resource, key, obj in objects:
        name = f"{resource} {key}"
        patterns = {pattern for pattern in retained if fnmatchcase(name, pattern)}
        matched |= patterns
        owned = any(each["uid"] in alive for each in obj["metadata"].get("ownerReferences", ()))
        if not patterns and not owned:
            left.append(f"{name}{_why_it_stays(obj)}")
    return left, matched


def _why_it_stays(obj: Json) -> str:
    metadata = obj["metadata"]
    if "deletionTimestamp" in metadata:
        return f", which is being deleted and still has the finalizers {metadata.get('finalizers')}"
    return ", which has no owner"


def is_named(text: str, name: str) -> bool:
    """Returns whether a text is an identifier that contains a name: "default/web" contains "web"."""
    return not re.search(r"\s", text) and bool(re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", text))


def unused_patterns(attribute: str, patterns: Collection[str], used: Collection[str], seen: object) -> str:
    """Returns a sentence if a declared pattern matched nothing, as it may be misspelled; otherwise ''."""
    known = sorted({str(each) for each in seen}) if isinstance(seen, Collection) else []
    for pattern in patterns:
        if pattern not in used:
            return f"{attribute} contains {pattern!r}, which matched nothing. {suggestion(pattern, known)}"
    return ""
