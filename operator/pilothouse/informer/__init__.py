"""A kind's objects, kept up to date in memory by a list and a watch: what controllers read."""

from pilothouse.informer.informer import Informer
from pilothouse.informer.reflector import ListWatcher
from pilothouse.informer.store import Handler, Store

__all__ = ["Handler", "Informer", "ListWatcher", "Store"]
