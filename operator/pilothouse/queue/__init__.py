"""The queue of keys between event handlers and workers."""

from pilothouse.queue.ratelimit import ItemBackoff, TokenBucket
from pilothouse.queue.workqueue import Priority, ShutDown, WorkQueue

__all__ = ["ItemBackoff", "Priority", "ShutDown", "TokenBucket", "WorkQueue"]
