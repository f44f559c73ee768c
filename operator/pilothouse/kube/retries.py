"""Which requests are sent again: those where repeating cannot do anything twice.

- any verb after 429 with Retry-After (load shedding: not carried out), after a 401 once with fresh
  credentials, and when it was certainly never sent, as after a refused connection;
- GET also after 5xx, a lost connection or no answer.

Everything else is reported, with `Unreachable.maybe_sent` telling a caller whether the request may have had
an effect.
"""

import random

from pilothouse.kube.errors import KubeError, ServerError, TooManyRequests, Unauthorized, Unreachable

ATTEMPTS = 5
_FIRST_PAUSE = 0.2


def retry_pause(error: KubeError, method: str, attempt: int, *, refused: bool) -> float | None:
    """Return the seconds to wait before the same request is sent again; None when it must not be."""
    backoff = _FIRST_PAUSE * (1 << (attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
    match error:
        case Unauthorized():
            return None if refused else 0.0
        case TooManyRequests():
            # Without Retry-After it is an eviction held up by a disruption budget: a matter for the caller.
            if error.retry_after is not None:
                return error.retry_after
            return backoff if method == "GET" else None
        case ServerError() if method == "GET":
            return error.retry_after if error.retry_after is not None else backoff
        case Unreachable() if method == "GET" or not error.maybe_sent:
            return backoff
    return None
