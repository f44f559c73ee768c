"""The parts of an operator's process: manager, settings and flags, probes and metrics, watchdog."""

from pilothouse.process.claims import Claim
from pilothouse.process.environment import Environment, SettingsError
from pilothouse.process.health import HealthServer
from pilothouse.process.manager import Manager
from pilothouse.process.settings import Settings

__all__ = [
    "Claim",
    "Environment",
    "HealthServer",
    "Manager",
    "Settings",
    "SettingsError",
]
