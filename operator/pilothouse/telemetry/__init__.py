"""Logs, metrics, redaction of secrets and clocks, which every other package of the framework may use."""

from pilothouse.telemetry.clock import now
from pilothouse.telemetry.defects import forget_defects, log_defect
from pilothouse.telemetry.logs import (
    LogFormat,
    ObjectContext,
    configure,
    current_object,
    object_context,
    set_level,
)
from pilothouse.telemetry.metrics import REGISTRY
from pilothouse.telemetry.redaction import (
    HIDDEN,
    forget_secrets,
    hide,
    hide_everywhere,
    hiding,
    redacted,
    redacted_reason,
)
from pilothouse.telemetry.series import Counter, Histogram

__all__ = [
    "HIDDEN",
    "REGISTRY",
    "Counter",
    "Histogram",
    "LogFormat",
    "ObjectContext",
    "configure",
    "current_object",
    "forget_defects",
    "forget_secrets",
    "hide",
    "hide_everywhere",
    "hiding",
    "log_defect",
    "now",
    "object_context",
    "redacted",
    "redacted_reason",
    "set_level",
]
