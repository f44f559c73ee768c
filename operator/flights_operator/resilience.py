"""How the operator treats a service that may be slow, busy or down: rate limit, retries, circuit breaker."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import NamedTuple, TypeVar

from flights_operator.errors import CircuitOpenError, RejectedError, ThrottledError, TransientError
from pilothouse.queue import TokenBucket

log = logging.getLogger(__name__)

R = TypeVar("R")


class RetryPolicy(NamedTuple):
    """How often and how fast one call is tried again.

    Three attempts survive the restart of one replica behind a load balancer; more would keep a worker busy
    that has other tickets to serve. The ticket itself is played again later in any case.

    Attributes:
        attempts: Requests at most, the first included.
        base: The back-off before the second attempt, seconds; doubles each time.
        patience: The longest wait within a call, seconds; a longer Retry-After ends the call.
    """

    attempts: int = 3
    base: float = 0.2
    patience: float = 5.0

    def backoff(self, attempt: int) -> float:
        """Seconds to wait after a failed attempt (1 is the first), up to half of them taken off at random.

        The "equal jitter" of the AWS Architecture Blog's "Exponential Backoff And Jitter".
        """
        full = min(self.base * 2.0 ** (attempt - 1), self.patience)
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


class BreakerState(StrEnum):
    """closed: requests pass; open: none does; half-open: one passes, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Stops asking a service that keeps failing, and finds out when it works again.

    After `threshold` failures in a row, of any callers, it opens and calls fail at once. After `cooldown`
    seconds one call passes as a probe; its success closes the circuit, its failure opens it again for twice
    as long, up to `max_cooldown`: with the defaults a dead service is asked every 15 s.

    Args:
        threshold: Failures in a row that open it.
        cooldown: Seconds until the first probe.
        max_cooldown: The longest time between two probes, seconds.
    """

    def __init__(self, threshold: int = 5, cooldown: float = 5.0, max_cooldown: float = 15.0) -> None:
        self._threshold = threshold
        self._first_cooldown = cooldown
        self._max_cooldown = max_cooldown
        self._cooldown = cooldown
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._cause = TransientError("it was not asked yet")
        self.state = BreakerState.CLOSED

    def admit(self) -> None:
        """Lets one request through; how it ends is told to `learn`.

        Raises:
            CircuitOpenError: The request must not be made.
        """
        if self.state is BreakerState.CLOSED:
            return
        wait = self._opened_at + self._cooldown - asyncio.get_running_loop().time()
        if wait > 0 or self._probing:
            raise CircuitOpenError(self._cause, retry_after=max(wait, 1.0))
        self.state = BreakerState.HALF_OPEN
        self._probing = True

    def learn(self, error: BaseException | None) -> None:
        """Learns from how a request that was let through has ended.

        A TransientError other than a ThrottledError is a failure. Any other answer is a success: the service
        works. What ends without an answer (a cancelled caller, a defect) counts as neither.

        Args:
            error: What it raised; None: it was answered.
        """
        if error is None or isinstance(error, ThrottledError | RejectedError):
            self._succeeded()
        elif isinstance(error, TransientError):
            self._failed(error)
        else:
            self._probing = False

    def _succeeded(self) -> None:
        if self.state is not BreakerState.CLOSED:
            log.info("the airline answers again")
        self.state = BreakerState.CLOSED
        self._cooldown = self._first_cooldown
        self._failures = 0
        self._probing = False

    def _failed(self, error: TransientError) -> None:
        self._failures += 1
        self._cause = error
        if self.state is BreakerState.HALF_OPEN:
            self._cooldown = min(self._cooldown * 2, self._max_cooldown)
        elif self.state is BreakerState.OPEN or self._failures < self._threshold:
            return  # of a request that was under way when the circuit opened, or not yet enough
        self.state = BreakerState.OPEN
        self._opened_at = asyncio.get_running_loop().time()
        self._probing = False
        log.warning("requests to the airline pause for %g s: %s", self._cooldown, error)


class Resilience:
    """Makes calls to one service: paced, tried again when that helps, not at all while the service is down.

    Args:
        rate: Requests per second, retries included.
        burst: Requests at once after a quiet time.
        policy: When a call is tried again.
        breaker: When the service counts as down.
    """

    def __init__(self, rate: float, burst: int, policy: RetryPolicy, breaker: CircuitBreaker) -> None:
        self._bucket = TokenBucket(rate, burst)
        self._time = asyncio.get_running_loop().time
        self._policy = policy
        self._paused_until = 0.0
        self.breaker = breaker

    async def call(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Makes an idempotent request, several times if need be.

        Args:
            attempt: Sends the request once. A passing TransientError from it asks for another attempt.

        Raises:
            TransientError: The last attempt's, or of one after which another would not help: not passing, or
                with a Retry-After beyond the policy's patience.
            CircuitOpenError: Nothing was sent.
            Exception: Whatever else `attempt` raises.
        """
        for number in range(1, self._policy.attempts + 1):
            wait = self._pace()
            if wait > 0:
                await asyncio.sleep(wait)
            self.breaker.admit()
            try:
                answer = await attempt()
            except BaseException as error:
                self.breaker.learn(error)
                if not isinstance(error, TransientError):
                    raise
                self._pause(error)
                wait = max(self._policy.backoff(number), error.retry_after or 0.0)
                last = number == self._policy.attempts or wait > self._policy.patience
                if last or not error.passing:
                    raise
                log.debug("attempt %d failed, again in %.1f s: %s", number, wait, error)
            else:
                self.breaker.learn(None)
                return answer
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pace(self) -> float:
        """Seconds to wait for a token, and for the end of a pause that the service asked for with a 429."""
        pause = self._paused_until - self._time()
        if pause > self._policy.patience:
            raise ThrottledError("the airline asked for a pause", retry_after=pause)
        return max(self._bucket.reserve(), pause)

    def _pause(self, error: TransientError) -> None:
        if isinstance(error, ThrottledError) and error.retry_after:
            until = self._time() + error.retry_after
            self._paused_until = max(self._paused_until, until)
