"""Playbooks: what makes the objects of a kind as their specs ask, as ordered, named, idempotent tasks."""

from pilothouse.controller import Environment, EventType, Settings, SettingsError
from pilothouse.playbook.operator import Watch, Watches, add_watch, run_operator
from pilothouse.playbook.play import Play, PlayObject, PlayStatus
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.reconciler import PAUSED, RECONCILE, Reconciler
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult, task

__all__ = [
    "PAUSED",
    "RECONCILE",
    "Environment",
    "EventType",
    "Play",
    "PlayObject",
    "PlayStatus",
    "Playbook",
    "Recap",
    "Reconciler",
    "Settings",
    "SettingsError",
    "State",
    "Task",
    "TaskFailed",
    "TaskResult",
    "Watch",
    "Watches",
    "add_watch",
    "run_operator",
    "task",
]
