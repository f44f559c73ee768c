"""Stores of a kind's objects, kept up to date by a list and a watch. Controllers read from them."""

from pilothouse.informer.factory import InformerFactory
from pilothouse.informer.index import DEFECTS, IndexFunc
from pilothouse.informer.informer import Informer
from pilothouse.informer.store import Handler, Store, Transform
from pilothouse.informer.transforms import drop_last_applied

__all__ = [
    "DEFECTS",
    "Handler",
    "IndexFunc",
    "Informer",
    "InformerFactory",
    "Store",
    "Transform",
    "drop_last_applied",
]
