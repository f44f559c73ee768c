"""Controllers reconcile the objects of one kind. Includes leader election, fence, sharding and Events."""

from pilothouse.controller.controller import Controller
from pilothouse.controller.election import LeaderElector, LeadershipLost
from pilothouse.controller.events import Event, EventRecorder, EventType, ObjectReference
from pilothouse.controller.fence import Fence, Fenced, FencedApi
from pilothouse.controller.lease import LeaseTiming
from pilothouse.controller.mappers import Mapper, owner_mapper
from pilothouse.controller.outcome import Outcome, PermanentError, SyncError
from pilothouse.controller.own_writes import OwnWrites
from pilothouse.controller.predicates import (
    Predicate,
    annotations_changed,
    any_change,
    any_of,
    generation_changed,
    labels_changed,
    meaningful_change,
)
from pilothouse.controller.written import Written, noting_writes

__all__ = [
    "Controller",
    "Event",
    "EventRecorder",
    "EventType",
    "Fence",
    "Fenced",
    "FencedApi",
    "LeaderElector",
    "LeadershipLost",
    "LeaseTiming",
    "Mapper",
    "ObjectReference",
    "Outcome",
    "OwnWrites",
    "PermanentError",
    "Predicate",
    "SyncError",
    "Written",
    "annotations_changed",
    "any_change",
    "any_of",
    "generation_changed",
    "labels_changed",
    "meaningful_change",
    "noting_writes",
    "owner_mapper",
]
