"""Protection of a service that may be slow, busy or down: a rate limit, retries and a circuit breaker."""

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
    """How often and how fast one call is retried.

    Three attempts survive the restart of one replica behind a load balancer. More attempts would block a
    worker that other tickets need. If the call fails, the ticket is reconciled again later.

    Attributes:
        attempts: The maximum number of attempts, including the first.
        base: The back-off before the second attempt, in seconds. It doubles with each attempt.
        patience: The longest wait within a call, in seconds. A longer Retry-After ends the call.
    """

    attempts: int = 3
    base: float = 0.2
    patience: float = 5.0

    def backoff(self, attempt: int) -> float:
        """Returns the number of seconds to wait after a failed attempt, where 1 is the first attempt.

        A random part of up to half is subtracted: the "equal jitter" of the AWS Architecture Blog's
        "Exponential Backoff And Jitter".
        """
        full = min(self.base * 2.0 ** (attempt - 1), self.patience)
        return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


class BreakerState(StrEnum):
    """The state of a circuit: closed lets all requests pass, open none, half-open one as a probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class CircuitBreaker:
    """Stops requests to a service that keeps failing, and detects when the service works again.

    After `threshold` consecutive failures of any callers, the circuit opens and calls fail immediately. After
    `cooldown` seconds, one call passes as a probe. If it succeeds, the circuit closes. If it fails, the
    circuit opens again for twice as long, up to `max_cooldown`. With the defaults, a service that stays down
    receives one request every 15 s.

    Args:
        threshold: The number of consecutive failures that open the circuit.
        cooldown: The number of seconds until the first probe.
        max_cooldown: The longest time between two probes, in seconds.
    """

    def __init__(self, threshold: int = 5, cooldown: float = 5.0, max_cooldown: float = 15.0) -> None:
        self._threshold = threshold
        self._first_cooldown = cooldown
        self._max_cooldown = max_cooldown
        self._cooldown = cooldown
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._cause = TransientError("no request has been sent yet")
        self.state = BreakerState.CLOSED

    def admit(self) -> None:
        """Admits one request. The caller must pass its result to `learn`.

        Raises:
            CircuitOpenError: The request must not be sent.
        """
        if self.state is BreakerState.CLOSED:
            return
        wait = self._opened_at + self._cooldown - asyncio.get_running_loop().time()
        if wait > 0 or self._probing:
            raise CircuitOpenError(self._cause, retry_after=max(wait, 1.0))
        self.state = BreakerState.HALF_OPEN
        self._probing = True

    def learn(self, error: BaseException | None) -> None:
        """Records the result of a request that was admitted.

        A TransientError other than a ThrottledError is a failure. Any other answer shows that the service
        works and is a success. A request that ends without an answer (its caller was cancelled, or the code
        has a bug) is neither.

        Args:
            error: The exception that the request raised. None if it succeeded.
        """
        if error is None or isinstance(error, ThrottledError | RejectedError):
            self._succeeded()
        elif isinstance(error, TransientError):
            self._failed(error)
        else:
            self._probing = False

    def _succeeded(self) -> None:
        if self.state is not BreakerState.CLOSED:
            log.info("The airline answers again")
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
            return  # The request was in flight when the circuit opened, or there are too few failures yet.
        self.state = BreakerState.OPEN
        self._opened_at = asyncio.get_running_loop().time()
        self._probing = False
        log.warning("Pausing requests to the airline for %g s: %s", self._cooldown, error)


class Resilience:
    """Makes calls to one service with a rate limit, retries and a circuit breaker.

    Args:
        rate: The maximum number of requests per second, including retries.
        burst: The maximum number of requests in one burst after a quiet period.
        policy: How often and how fast a call is retried.
        breaker: Decides whether the service is down.
    """

    def __init__(self, rate: float, burst: int, policy: RetryPolicy, breaker: CircuitBreaker) -> None:
        self._bucket = TokenBucket(rate, burst)
        self._time = asyncio.get_running_loop().time
        self._policy = policy
        self._paused_until = 0.0
        self.breaker = breaker

    async def call(self, attempt: Callable[[], Awaitable[R]]) -> R:
        """Makes an idempotent request, and retries it according to the policy.

        Args:
            attempt: Sends the request once. If it raises a passing TransientError, the call is retried.

        Raises:
            TransientError: The last attempt failed. There is no further attempt after an error that is not
                passing, or that has a Retry-After longer than the policy's patience.
            CircuitOpenError: No request was sent.
            Exception: Any other exception of `attempt`.
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
                log.debug("Retrying in %.1f s after failed attempt %d: %s", wait, number, error)
            else:
                self.breaker.learn(None)
                return answer
            await asyncio.sleep(wait)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _pace(self) -> float:
        """Returns the number of seconds to wait for a token, or for the end of the service's Retry-After."""
        pause = self._paused_until - self._time()
        if pause > self._policy.patience:
            raise ThrottledError("The airline limits the request rate", retry_after=pause)
        return max(self._bucket.reserve(), pause)

    def _pause(self, error: TransientError) -> None:
        if isinstance(error, ThrottledError) and error.retry_after:
            until = self._time() + error.retry_after
            self._paused_until = max(self._paused_until, until)
