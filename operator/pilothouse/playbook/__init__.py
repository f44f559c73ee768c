"""Playbooks: ordered, named, idempotent tasks that reconcile the objects of a kind with their specs."""

from pilothouse.controller import EventType
from pilothouse.playbook.annotations import PAUSED, RECONCILE
from pilothouse.playbook.assembly import add_watch
from pilothouse.playbook.groups import Group, Plan
from pilothouse.playbook.mapping import Mapper, Stores, by_index
from pilothouse.playbook.names import child_name
from pilothouse.playbook.play import Play
from pilothouse.playbook.playbook import Playbook, Recap
from pilothouse.playbook.reconciler import Reconciler
from pilothouse.playbook.status import PlayStatus, Status
from pilothouse.playbook.tasks import State, Task, TaskFailed, TaskResult, Waiting, task
from pilothouse.playbook.watch import Secondary, Watch

__all__ = [
    "PAUSED",
    "RECONCILE",
    "EventType",
    "Group",
    "Mapper",
    "Plan",
    "Play",
    "PlayStatus",
    "Playbook",
    "Recap",
    "Reconciler",
    "Secondary",
    "State",
    "Status",
    "Stores",
    "Task",
    "TaskFailed",
    "TaskResult",
    "Waiting",
    "Watch",
    "add_watch",
    "by_index",
    "child_name",
    "task",
]
