"""Decides which requests are retried: those that a retry cannot execute twice.

- Any request after 429 with Retry-After (load shedding, so it was not executed), once after 401 with new
  credentials, and if it was certainly not sent, for example because the connection was refused.
- A GET also after 5xx, a lost connection or a timeout.

All other errors are raised. `Unreachable.maybe_sent` is true if the request may have been executed.
"""

import random

from pilothouse.kube.errors import KubeError, ServerError, TooManyRequests, Unauthorized, Unreachable

ATTEMPTS = 5
_FIRST_PAUSE = 0.2


def retry_pause(error: KubeError, method: str, attempt: int, *, refused: bool) -> float | None:
    """Returns the seconds to wait before a request is retried, or None if it must not be retried."""
    backoff = _FIRST_PAUSE * (1 << (attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    match error:
        case Unauthorized():
            return None if refused else 0.0
        case TooManyRequests():
            # Without Retry-After, a disruption budget does not allow an eviction. The caller handles that.
            if error.retry_after is not None:
                # "Retry-After: 0", or a date in the past, does not switch the back-off off.
                return max(error.retry_after, backoff)
            return backoff if method == "GET" else None
        case ServerError() if method == "GET":
            return max(error.retry_after or 0.0, backoff)
        case Unreachable() if method == "GET" or not error.maybe_sent:
            return backoff
    return None
