"""The Retry-After header: when a server asks clients to retry."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pilothouse.telemetry import now

# A day, or a date from a server with a wrong clock, would stop a controller for too long. A server that is
# still busy after five minutes sends the header again.
LONGEST_SECONDS = 300.0


def retry_after_seconds(text: str) -> float | None:
    """Returns the delay of a Retry-After header, which is a number of seconds or a date (RFC 9110, 10.2.3).

    Returns:
        The delay, 0 to 300 seconds. None: the header is empty or invalid.
    """
    try:
        return bounded(float(text))
    except ValueError:
        date = _date(text)
    return None if date is None else bounded((date - now()).total_seconds())


def bounded(seconds: float) -> float | None:
    """Returns the seconds limited to 0 to 300, or None if they are infinite or NaN."""
    return min(max(seconds, 0.0), LONGEST_SECONDS) if math.isfinite(seconds) else None


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # The oldest of the three date formats has no time zone. All of them are in GMT.
    return date if date.tzinfo else date.replace(tzinfo=UTC)
