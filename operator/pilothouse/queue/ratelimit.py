"""How long a key that failed waits before its next try: client-go's default limiter for controllers."""

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
    """Exponential back-off per item: base, 2 x base, 4 x base ... up to a ceiling.

    Args:
        base: The first delay, in seconds.
        ceiling: The longest delay, in seconds.
    """

    def __init__(self, base: float = BASE_DELAY, ceiling: float = MAX_DELAY) -> None:
        self._base = base
        self._ceiling = ceiling
        self._failures: dict[K, int] = {}

    def delay(self, item: K) -> float:
        """Counts one more failure of the item and returns the seconds to wait for it."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        # 2.0**1024 overflows; the ceiling is reached long before 64 doublings.
        return min(self._base * 2.0 ** min(failures, 64), self._ceiling)

    def forget(self, item: K) -> None:
        """The item succeeded, or is gone: its next failure counts as the first."""
        self._failures.pop(item, None)


class TokenBucket:
    """A bucket of `burst` tokens that fills at `rate` tokens a second; a reservation may run into debt.

    Args:
        rate: Tokens added per second.
        burst: Tokens the bucket holds when full, which it is at first.
    """

    def __init__(self, rate: float = RETRY_RATE, burst: int = RETRY_BURST) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._time = asyncio.get_running_loop().time
        self._filled = self._time()

    def reserve(self) -> float:
        """Takes one token and returns the seconds until it exists (0 when the bucket holds one)."""
        self._fill()
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def take(self) -> bool:
        """Takes one token if the bucket holds one; says whether it did."""
        self._fill()
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _fill(self) -> None:
        now = self._time()
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
