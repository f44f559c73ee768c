"""Shows the tasks of a playbook as a numbered list or as a Mermaid diagram."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pilothouse.playbook.groups import Group, Plan, Step
from pilothouse.playbook.tasks import Task
from pilothouse.playbook.watch import Watch


def as_text(watch: Watch) -> str:
    """Returns the watch, its tasks and its cleanup tasks as text, numbered in the order in which they run."""
    return "\n".join(_lines(watch)) + "\n"


def as_mermaid(watch: Watch) -> str:
    """Returns the same as a Mermaid flowchart, which GitHub and most wikis render."""
    return "\n".join(_Chart(watch).lines) + "\n"


def _lines(watch: Watch) -> Iterator[str]:
    playbook = watch.playbook
    yield f"{watch.resource.kind} ({watch.resource.api_version})"
    for word, what in _facts(watch):
        yield f"  {word:<12}{what}"
    yield ""
    yield "tasks, in this order; a failure ends the reconcile"
    yield from _steps(playbook.tasks)
    if playbook.handlers:
        yield ""
        yield "handlers, each once at the end if a task that notifies it has changed something"
        yield from _steps(playbook.handlers)
    if playbook.cleanup:
        yield ""
        yield "cleanup of a deleted object; once no task fails, the finalizer is removed"
        yield from _steps(playbook.cleanup)


def _facts(watch: Watch) -> Iterator[tuple[str, str]]:
    if watch.name != watch.resource.kind.lower():
        yield "name", watch.name
    again = f", and about every {watch.resync:g} s" if watch.resync else ""
    yield "reconciled", f"when created or changed{again}; up to {watch.workers} at the same time"
    if watch.namespaces:
        yield "namespaces", ", ".join(watch.namespaces)
    if selectors := " ".join(each for each in (watch.selector, watch.field_selector) if each):
        yield "selector", selectors
    if watch.owns:
        yield "owns", ", ".join(each.kind for each in watch.owns)
    if watch.watches:
        yield "watches", ", ".join(each.resource.kind for each in watch.watches)
    if watch.playbook.finalizers.current:
        yield "finalizer", f"{watch.playbook.finalizers.current}, stored before the first task"
    if watch.playbook.finalizers.retired:
        yield "retired", f"finalizers {', '.join(watch.playbook.finalizers.retired)}, removed when found"


def _steps(steps: Sequence[Step[Any]], number: str = "", indent: str = "  ") -> Iterator[str]:
    for count, step in enumerate(steps, start=1):
        own = f"{number}{count}"
        if isinstance(step, Group):
            yield f"{indent}{own}. {step.name} ({_kind_of(step)})"
            yield from _steps(step.tasks, f"{own}.", f"{indent}  ")
            continue
        yield f"{indent}{own}. {step.name}"
        more = f"{indent}{' ' * len(own)}  "
        if summary := _summary(step.function):
            yield f"{more}{summary}"
        if step.notify:
            yield f"{more}notifies: {', '.join(each.name for each in step.notify)}"


def _kind_of(group: Group[Any]) -> str:
    order = "at the same time" if group.parallel else "in order"
    if not group.blocking:
        order += ", does not block the steps after it"
    return f"a plan, when {_condition(group)}, {order}" if isinstance(group, Plan) else order


def _condition(plan: Plan[Any]) -> str:
    """Returns when a plan is due, described by the docstrings or names of its triggers."""
    conditions = []
    if plan.on_change is not None:
        conditions.append(f"{_words(plan.on_change) or 'its input'} changes")
    if plan.when is not None:
        conditions.append(_words(plan.when) or "its trigger returns true")
    return " or ".join(conditions)


def _words(trigger: Callable[..., Any]) -> str:
    words = _summary(trigger) or getattr(trigger, "__name__", "").replace("_", " ")
    return "" if words == "<lambda>" else words.rstrip(".")


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]


class _Chart:
    """A flowchart. Its nodes are numbered in the order in which they are added."""

    def __init__(self, watch: Watch) -> None:
        playbook, kind = watch.playbook, watch.resource.kind
        self.lines = ["flowchart TD"]
        self._indent = "    "
        self._count = 0
        self._handlers = {each: self._node(each.name, "{{", "}}") for each in playbook.handlers}
        last = self._node(f"{kind} is created, changed or requeued", "([", "])")
        if finalizer := playbook.finalizers.current:
            last = self._after(last, self._node(f"the finalizer {finalizer} is stored", "[/", "/]"))
        last = self._chain(last, playbook.tasks)
        for handler, node in self._handlers.items():
            last = self._after(last, node)
            self._notifies(handler, node)
        self._after(last, self._node("the status is written if it has changed", "([", "])"))
        if playbook.cleanup:
            last = self._chain(self._node(f"{kind} is deleted", "([", "])"), playbook.cleanup)
            self._after(last, self._node("the finalizer is removed", "([", "])"))

    def _chain(self, last: str, steps: Sequence[Step[Any]]) -> str:
        """Draws steps one after the other, the first after `last` (if not empty); returns the last node."""
        for step in steps:
            last = self._step(last, step)
        return last

    def _step(self, last: str, step: Step[Any]) -> str:
        if isinstance(step, Plan):
            trigger = self._after(last, self._node(f"{_condition(step)}?", "{", "}"))
            group = self._group(step)
            end = self._node(" ", "((", "))")
            self._after(trigger, group, "-- yes -->")
            self._after(trigger, end, "-- no -->")
            return self._after(group, end)
        if isinstance(step, Group):
            return self._after(last, self._group(step))
        node = self._after(last, self._node(step.name, "[", "]"))
        self._notifies(step, node)
        return node

    def _group(self, group: Group[Any]) -> str:
        order = "at the same time" if group.parallel else "in order"
        node = self._node(f"{group.name} ({order})", "[", "]", word="subgraph ")
        outer, self._indent = self._indent, f"{self._indent}    "
        if group.parallel:
            for step in group.tasks:
                self._step("", step)
        else:
            self._chain("", group.tasks)
        self._indent = outer
        self.lines.append(f"{outer}end")
        return node

    def _notifies(self, task: Task[Any], node: str) -> None:
        for handler in task.notify:
            self._after(node, self._handlers[handler], "-. notifies .->")

    def _after(self, last: str, node: str, arrow: str = "-->") -> str:
        """Draws an arrow from `last` (if not empty) to the node; returns the node."""
        if last:
            self.lines.append(f"{self._indent}{last} {arrow} {node}")
        return node

    def _node(self, text: str, left: str, right: str, *, word: str = "") -> str:
        self._count += 1
        name = f"n{self._count}"
        self.lines.append(f'{self._indent}{word}{name}{left}"{text.replace(chr(34), "#quot;")}"{right}')
        return name
