"""The wall clock, for timestamps that leave the process."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present in UTC, for timestamps in objects, Events and logs.

    Durations and deadlines never use it: they read the event loop's clock, which no NTP step moves and which
    tests replace by a virtual one.
    """
    return datetime.now(UTC)
