"""The output of a manual play: text like that of ansible-playbook, or JSON."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from pilothouse.cli.by_hand import Played, still_due
from pilothouse.playbook.tasks import State, TaskResult

WIDTH = 80


def as_text(played: Played, *, diff: bool) -> str:
    """Returns the play as text: a paragraph per task, and the recap.

    Args:
        played: The play.
        diff: Whether to show what each task changed, and the status.
    """
    return "\n".join(_lines(played, diff)) + "\n"


def as_json(played: Played) -> str:
    """Returns the play as a JSON document. `changes` is true if anything was, or would be, changed."""
    recap, failure, waiting = played.recap, played.recap.failure, played.recap.waiting
    document = {
        "apiVersion": played.resource.api_version,
        "kind": played.resource.kind,
        "namespace": played.key.namespace,
        "name": played.key.name,
        "check": played.check,
        "changes": played.changes,
        "tasks": [
            {
                "task": result.task,
                "state": result.state,
                "seconds": round(result.seconds, 6),
                "message": result.message,
                "diff": list(result.diff),
            }
            for result in recap.results
        ],
        "failure": failure
        and {"reason": failure.reason, "message": failure.message, "permanent": failure.permanent},
        "waiting": waiting and {"reason": waiting.reason, "message": str(waiting)},
        "plan": recap.plan,
        "notRun": list(recap.not_run),
        "finalizers": list(played.finalizers),
        "due": list(played.due),
        "status": played.status,
        "seconds": round(recap.seconds, 6),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _lines(played: Played, diff: bool) -> Iterator[str]:
    name = f"{played.resource.kind} {played.key}"
    yield _title(f"PLAY [{name}]" + (" check mode, nothing is changed" if played.check else ""))
    for result in played.recap.results:
        yield ""
        yield _title(f"TASK [{result.task}]")
        yield from _task(result, diff)
    if diff:
        yield from _object(played)
    yield ""
    yield _title("PLAY RECAP")
    counts = Counter(result.state for result in played.recap.results)
    totals = " ".join(f"{state}={counts[state]}" for state in State)
    plan = f", in the plan {played.recap.plan}" if played.recap.plan else ""
    yield f"{name} : {totals} in {played.recap.seconds:.3f} s{plan}"
    if played.recap.consequence:
        yield played.recap.consequence
    if played.due:
        yield still_due(played.due)
    if played.check and played.recap.failure is None:
        yield "The operator would make the changes above." if played.changes else "Nothing to change."


def _task(result: TaskResult, diff: bool) -> Iterator[str]:
    yield f"{result.state}{f': {result.message}' if result.message else ''} ({result.seconds:.3f} s)"
    if diff:
        yield from (f"    {line}" for line in result.diff if line != result.message)


def _object(played: Played) -> Iterator[str]:
    """Yields the changes of the object itself: its finalizers and its status."""
    if not (played.finalizers or played.status):
        return
    yield ""
    yield _title(f"{'WOULD WRITE' if played.check else 'WROTE'} [{played.resource.kind} {played.key}]")
    for finalizer in played.finalizers:
        yield f"finalizer {finalizer[0]} {finalizer[1:]}"
    for field, value in sorted(played.status.items()):
        yield f"status.{field}: {_value(value)}"


def _value(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _title(text: str) -> str:
    return f"{text} ".ljust(WIDTH, "*")
