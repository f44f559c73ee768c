"""The delay before a failed key is retried, as in client-go's default rate limiter for controllers."""

import asyncio
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

# client-go util/workqueue/default_rate_limiters.go, DefaultTypedControllerRateLimiter.
BASE_DELAY = 0.005
MAX_DELAY = 1000.0
RETRY_RATE = 10.0
RETRY_BURST = 100


class ItemBackoff(Generic[K]):
    """Exponential back-off per item: base, 2 x base, 4 x base and so on, up to a ceiling.

    Args:
        base: The first delay, in seconds.
        ceiling: The longest delay, in seconds.
    """

    def __init__(self, base: float = BASE_DELAY, ceiling: float = MAX_DELAY) -> None:
        self._base = base
        self._ceiling = ceiling
        self._failures: dict[K, int] = {}

    def delay(self, item: K) -> float:
        """Counts a failure of the item and returns the delay before its retry, in seconds."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        # 2.0**1024 overflows; the ceiling is reached long before 64 doublings.
        return min(self._base * 2.0 ** min(failures, 64), self._ceiling)

    def forget(self, item: K) -> None:
        """Resets the item's back-off after a success or deletion. Its next failure counts as the first."""
        self._failures.pop(item, None)


class TokenBucket:
    """A bucket of `burst` tokens that refills at `rate` tokens a second. Reservations may overdraw it.

    Args:
        rate: The number of tokens added per second.
        burst: The number of tokens in a full bucket. The bucket is full at first.
    """

    def __init__(self, rate: float = RETRY_RATE, burst: int = RETRY_BURST) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._time = asyncio.get_running_loop().time
        self._filled = self._time()

    def reserve(self) -> float:
        """Takes one token and returns the seconds until it is available: 0 if the bucket has one."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def take(self) -> bool:
        """Takes one token if the bucket has one, and returns whether it did."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fill(self) -> None:
        now = self._time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
