"""Declarations of kinds, from which the CRD, the CSV entry, the reference page and the decoder are generated.

The generator (`pilothouse.api.crd`) is for development. A running operator never imports it.
"""

from pilothouse.api import core
from pilothouse.api.conditions import LenientCondition
from pilothouse.api.duration import DurationText, format_duration, parse_duration
from pilothouse.api.kind import Column, Kind, ManagedResource, Rule, Scale, Version, field
from pilothouse.api.quantity import IntOrString, Quantity, QuantityText

__all__ = [
    "Column",
    "DurationText",
    "IntOrString",
    "Kind",
    "LenientCondition",
    "ManagedResource",
    "Quantity",
    "QuantityText",
    "Rule",
    "Scale",
    "Version",
    "core",
    "field",
    "format_duration",
    "parse_duration",
]
