"""Controllers, and what runs them in a process: election, Events, probes, settings, signals."""

from pilothouse.controller.api import Api
from pilothouse.controller.controller import Controller
from pilothouse.controller.election import LeaderElector, LeadershipLost
from pilothouse.controller.environment import Environment, SettingsError
from pilothouse.controller.events import Event, EventRecorder, EventType, ObjectReference
from pilothouse.controller.fence import Fence, Fenced, FencedApi
from pilothouse.controller.health import HealthServer
from pilothouse.controller.lease import LeaseTiming
from pilothouse.controller.manager import Manager
from pilothouse.controller.mappers import Mapper, owner_mapper
from pilothouse.controller.outcome import Outcome, PermanentError, SyncError
from pilothouse.controller.predicates import (
    Predicate,
    annotations_changed,
    any_change,
    any_of,
    generation_changed,
    labels_changed,
    meaningful_change,
)
from pilothouse.controller.settings import Settings

__all__ = [
    "Api",
    "Controller",
    "Environment",
    "Event",
    "EventRecorder",
    "EventType",
    "Fence",
    "Fenced",
    "FencedApi",
    "HealthServer",
    "LeaderElector",
    "LeadershipLost",
    "LeaseTiming",
    "Manager",
    "Mapper",
    "ObjectReference",
    "Outcome",
    "PermanentError",
    "Predicate",
    "Settings",
    "SettingsError",
    "SyncError",
    "annotations_changed",
    "any_change",
    "any_of",
    "generation_changed",
    "labels_changed",
    "meaningful_change",
    "owner_mapper",
]
