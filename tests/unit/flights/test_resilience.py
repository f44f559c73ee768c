"""Rate limit, retries and circuit breaker, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from flights_operator.errors import (
    CircuitOpenError,
    NoAnswerError,
    RejectedError,
    ThrottledError,
    UnauthorizedError,
)
from flights_operator.resilience import BreakerState, CircuitBreaker, Resilience, RetryPolicy

pytestmark = pytest.mark.usefixtures("virtual_time")


def now() -> float:
    return asyncio.get_running_loop().time()


class Service:
    """A service with the given answers, which records when it receives requests."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(now())
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        return "ok"


def resilience(rate: float = 1000, burst: int = 1000, attempts: int = 3) -> Resilience:
    return Resilience(rate, burst, RetryPolicy(attempts), CircuitBreaker())


def state(calm: Resilience) -> BreakerState:
    return calm.breaker.state


def down(count: int) -> list[NoAnswerError]:
    return [NoAnswerError("down") for _ in range(count)]


async def test_a_call_is_retried_with_back_off():
    service = Service(*down(2))
    assert await resilience().call(service) == "ok"
    first, second = (b - a for a, b in zip(service.asked, service.asked[1:], strict=False))
    assert 0.1 <= first <= 0.2
    assert 0.2 <= second <= 0.4


async def test_the_last_attempts_error_is_raised():
    service = Service(*down(2), NoAnswerError("the last"))
    with pytest.raises(NoAnswerError, match="the last"):
        await resilience().call(service)
    assert len(service.asked) == 3


async def test_a_rejection_is_not_retried():
    service = Service(RejectedError("no", status=409))
    with pytest.raises(RejectedError):
        await resilience().call(service)
    assert len(service.asked) == 1


async def test_a_wrong_key_is_not_retried_but_opens_the_circuit():
    calm, service = resilience(), Service(*[UnauthorizedError("wrong key") for _ in range(5)])
    for count in range(1, 6):
        with pytest.raises(UnauthorizedError):
            await calm.call(service)
        assert len(service.asked) == count
    assert state(calm) is BreakerState.OPEN, "all tickets use the same key"


async def test_retry_after_is_honoured_by_all_callers():
    calm = resilience()
    service = Service(ThrottledError("wait", retry_after=3))
    one = asyncio.create_task(calm.call(service))
    await asyncio.sleep(0.001)
    two = asyncio.create_task(calm.call(service))
    await asyncio.gather(one, two)
    assert [round(at - service.asked[0], 2) for at in service.asked] == [0, 3, 3]


async def test_a_long_retry_after_frees_the_worker():
    calm = resilience()
    service = Service(ThrottledError("wait", retry_after=60))
    with pytest.raises(ThrottledError) as first:
        await calm.call(service)
    assert first.value.retry_after == 60
    await asyncio.sleep(20)
    with pytest.raises(ThrottledError) as second:
        await calm.call(service)
    assert second.value.retry_after == pytest.approx(40)
    assert len(service.asked) == 1
    await asyncio.sleep(40)
    assert await calm.call(service) == "ok"


async def test_requests_are_paced():
    calm, service = resilience(rate=10, burst=5), Service()
    began = now()
    await asyncio.gather(*(calm.call(service) for _ in range(25)))
    assert now() - began == pytest.approx(2.0)


async def test_an_open_circuit_reports_the_cause():
    calm = resilience()
    service = Service(*down(99))
    for _ in range(2):
        with pytest.raises((NoAnswerError, CircuitOpenError)):
            await calm.call(service)
    assert len(service.asked) == 5
    with pytest.raises(CircuitOpenError, match="down") as failure:
        await calm.call(service)
    assert len(service.asked) == 5
    assert 0 < (failure.value.retry_after or 0) <= 5
    assert isinstance(failure.value.cause, NoAnswerError)


@pytest.fixture
async def opened() -> tuple[Resilience, Callable[[], Awaitable[None]]]:
    calm = resilience(attempts=1)

    async def fail() -> None:
        for _ in range(5):
            with pytest.raises(NoAnswerError):
                await calm.call(Service(*down(1)))

    return calm, fail


async def test_one_probe_passes_and_closes_it(opened):
    calm, fail = opened
    await fail()
    assert state(calm) is BreakerState.OPEN
    await asyncio.sleep(5)
    release = asyncio.Event()

    async def slow() -> str:
        await release.wait()
        return "ok"

    probe = asyncio.create_task(calm.call(slow))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert state(calm) is BreakerState.HALF_OPEN
    with pytest.raises(CircuitOpenError):
        await calm.call(Service())
    release.set()
    assert await probe == "ok"
    assert state(calm) is BreakerState.CLOSED
    assert await calm.call(Service()) == "ok"


async def test_the_time_between_probes_grows(opened):
    calm, fail = opened
    await fail()
    service, began = Service(*down(999)), now()
    while now() - began < 100:
        try:
            await calm.call(service)
        except CircuitOpenError as error:
            await asyncio.sleep(error.retry_after or 0)
        except NoAnswerError:
            pass
    assert [round(at - began) for at in service.asked] == [5, 15, 30, 45, 60, 75, 90]


async def test_a_cancelled_probe_lets_another_one_pass(opened):
    calm, fail = opened
    await fail()
    await asyncio.sleep(5)
    probe = asyncio.create_task(calm.call(lambda: asyncio.Event().wait()))
    await asyncio.sleep(0.001)
    probe.cancel()
    await asyncio.wait([probe])
    assert await calm.call(Service()) == "ok"


@pytest.mark.parametrize("answer", [RejectedError("no", status=409), ThrottledError("wait")])
async def test_any_answer_closes_the_circuit(opened, answer):
    calm, fail = opened
    await fail()
    await asyncio.sleep(5)
    with pytest.raises(type(answer)):
        await calm.call(Service(answer))
    assert state(calm) is BreakerState.CLOSED


async def test_a_bug_in_a_call_does_not_count_for_the_service(opened):
    calm, fail = opened
    await fail()
    await asyncio.sleep(5)
    with pytest.raises(TypeError):
        await calm.call(Service(TypeError("a defect")))
    assert state(calm) is not BreakerState.CLOSED
    assert await calm.call(Service()) == "ok", "the next one is the probe"
    assert state(calm) is BreakerState.CLOSED
