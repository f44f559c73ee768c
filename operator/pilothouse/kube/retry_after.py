"""When a server wants to be asked again."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pilothouse.telemetry import now

# A day, or a date of a server whose clock is wrong, would stop a controller for good. A server that still
# has no time after five minutes says so again.
LONGEST_SECONDS = 300.0


def retry_after_seconds(text: str) -> float | None:
    """The seconds that a Retry-After header asks for: a number of them, or a date (RFC 9110, 10.2.3).

    Returns:
        0 to 300 seconds; None when the header is neither, or empty.
    """
    try:
        return bounded(float(text))
    except ValueError:
        date = _date(text)
    return None if date is None else bounded((date - now()).total_seconds())


def bounded(seconds: float) -> float | None:
    """The seconds to wait, 0 to 300; None when they are no number or have no end."""
    return min(max(seconds, 0.0), LONGEST_SECONDS) if math.isfinite(seconds) else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # The oldest of the three forms has no zone; all of them are GMT.
    return date if date.tzinfo else date.replace(tzinfo=UTC)
