"""The annotations with which users control the reconciles of an object."""

PAUSED = "pilothouse.dev/paused"
"""An annotation. While it is "true", the operator neither reconciles the object nor cleans it up, and the
condition Ready is Unknown."""

RECONCILE = "pilothouse.dev/reconcile"
"""An annotation. Any new value causes a reconcile, also after a permanent failure."""
