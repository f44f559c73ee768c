"""One declaration per kind: the CRD, the CSV's entry, the reference page and the decoder come from it.

The generator (`pilothouse.api.crd`) is for development: the running operator never imports it.
"""

from pilothouse.api.kind import Column, Kind, ManagedResource, Rule, field

__all__ = ["Column", "Kind", "ManagedResource", "Rule", "field"]
