"""Pilothouse: a framework for Kubernetes operators written as playbooks of Python tasks.

Import the names that most operators need from here::

    from pilothouse import CONFIG_MAP, Kind, ObjectMeta, Play, Status, Watch, field, main, task

Each name is imported from its package when it is first used. So `import pilothouse` is fast, and
`import pilothouse.kube` does not load the other packages. The packages have more names for advanced use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilothouse.api import Column, Kind, ManagedResource, Rule, field
    from pilothouse.cli import main
    from pilothouse.kube import Condition, ObjectKey, ObjectMeta, Resource
    from pilothouse.playbook import (
        RECONCILE,
        EventType,
        Group,
        Plan,
        Play,
        Playbook,
        Secondary,
        Status,
        TaskFailed,
        Waiting,
        Watch,
        child_name,
        task,
    )
    from pilothouse.process import Environment, SettingsError
    from pilothouse.views import (
        CONFIG_MAP,
        DEPLOYMENT,
        JOB,
        PERSISTENT_VOLUME_CLAIM,
        POD,
        SECRET,
        SERVICE,
        STATEFUL_SET,
    )

__version__ = "0.2.0"

HOMES = {
    "api": ("Column", "Kind", "ManagedResource", "Rule", "field"),
    "cli": ("main",),
    "kube": ("Condition", "ObjectKey", "ObjectMeta", "Resource"),
    "playbook": (
        "RECONCILE",
        "EventType",
        "Group",
        "Plan",
        "Play",
        "Playbook",
        "Secondary",
        "Status",
        "TaskFailed",
        "Waiting",
        "Watch",
        "child_name",
        "task",
    ),
    "process": ("Environment", "SettingsError"),
    "views": (
        "CONFIG_MAP",
        "DEPLOYMENT",
        "JOB",
        "PERSISTENT_VOLUME_CLAIM",
        "POD",
        "SECRET",
        "SERVICE",
        "STATEFUL_SET",
    ),
}
_HOME_OF = {name: home for home, names in HOMES.items() for name in names}

__all__ = [
    "CONFIG_MAP",
    "DEPLOYMENT",
    "JOB",
    "PERSISTENT_VOLUME_CLAIM",
    "POD",
    "RECONCILE",
    "SECRET",
    "SERVICE",
    "STATEFUL_SET",
    "Column",
    "Condition",
    "Environment",
    "EventType",
    "Group",
    "Kind",
    "ManagedResource",
    "ObjectKey",
    "ObjectMeta",
    "Plan",
    "Play",
    "Playbook",
    "Resource",
    "Rule",
    "Secondary",
    "SettingsError",
    "Status",
    "TaskFailed",
    "Waiting",
    "Watch",
    "child_name",
    "field",
    "main",
    "task",
]


if not TYPE_CHECKING:
    # Hidden from type checkers: with this function, they would accept every misspelled name.
    def __getattr__(name: str) -> object:
        """Imports a public name from its package (PEP 562)."""
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{home}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
