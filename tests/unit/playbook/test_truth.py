"""Conditions that are true by mistake fail the task: a text, a list, a function, a coroutine."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook import Plan, Play, Playbook, TaskFailed, task
from pilothouse.playbook.arguments import require_reason
from pilothouse.playbook.awaited import PlaybookError, require_truth
from pilothouse.telemetry import HIDDEN, hiding
from pilothouse.testing import ModelApi
from pilothouse.views.rollouts import Rollout
from tests.unit.playbook.configured import TicketPlay, operator, playbook, ready
from tests.unit.tickets import Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

EMPTY = "which is true unless it is empty."
TEXT = f"{EMPTY} Write a comparison, whose result is True or False."
CONTAINER = f"{EMPTY} Write `all(...)`, `any(...)` or `bool(...)`."
ITERATOR = "which is always true. Write `all(...)` or `any(...)`."


def is_ready() -> bool:
    return False


class Check:
    def __call__(self) -> bool:
        return False


class Pods:
    def ready(self) -> bool:
        return False


async def names() -> Any:
    yield "a"


async def never() -> bool:
    return False


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "text": (lambda: "False", f"the text 'False', {TEXT}"),
    "empty text": (lambda: "", f"the text '', {TEXT}"),
    "bytes": (lambda: b"no", f"the text b'no', {TEXT}"),
    "list": (lambda: [False], f"a list, {CONTAINER}"),
    "empty dict": (dict, f"a dict, {CONTAINER}"),
    "set": (lambda: {False}, f"a set, {CONTAINER}"),
    "generator": (lambda: (each for each in [False]), f"a generator, {ITERATOR}"),
    "map": (lambda: map(bool, [False]), f"a map, {ITERATOR}"),
    "async generator": (names, f"an async_generator, {ITERATOR}"),
    "function": (lambda: is_ready, "the function is_ready, which is always true. Call it: `is_ready(...)`"),
    "method": (lambda: Pods().ready, "the function ready, which is always true. Call it: `ready(...)`"),
    "object": (Check, "the function Check, which is always true. Call it: `Check(...)`"),
    "coroutine": (never, "a coroutine that was not awaited. Write `await` before the call."),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_condition_that_is_true_by_mistake_fails_the_task(
    api: ModelApi, ticket: ObjectKey, mistake: str
) -> None:
    make, why = MISTAKES[mistake]

    async def wait(play: TicketPlay) -> None:
        play.wait_for("it is so", make())

    async with operator(api, playbook(wait)):
        message = f"The task 'wait' failed: the condition of play.wait_for is {why}"
        assert ready(api, ticket) == ("False", "UnexpectedError", message)


async def test_a_future_as_a_condition_fails_the_task() -> None:
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(PlaybookError, match="it is a Future that was not awaited"):
        require_truth(future, "it")


@pytest.mark.parametrize(
    ("value", "truth"),
    [
        (True, True),
        (0, False),
        (3, True),
        (None, False),
        (Rollout(False, False, "RollingOut", "It is being rolled out."), False),
        (Ticket(ObjectMeta()), True),
    ],
)
async def test_a_value_with_a_truth_of_its_own_is_accepted(value: object, truth: bool) -> None:
    assert require_truth(value, "it") is truth


async def test_a_long_text_is_shortened() -> None:
    with pytest.raises(PlaybookError) as caught:
        require_truth("x" * 100_000, "it")
    assert len(str(caught.value)) < 200


async def test_a_secret_value_is_hidden_before_the_text_is_shortened() -> None:
    value = "hunt&r2<9>-" * 10
    with hiding(lambda: [value]):
        for quote in (lambda: require_truth(value, "it"), lambda: require_reason(value, "it")):
            with pytest.raises(PlaybookError) as caught:
                quote()
            assert "hunt" not in str(caught.value)
            assert HIDDEN in str(caught.value)


async def test_a_trigger_that_is_true_by_mistake_fails_the_plan() -> None:
    @task("never")
    async def act(play: TicketPlay) -> None:
        raise AssertionError

    wrong: Any = lambda play: "False"  # noqa: E731 - a mistake
    book: Playbook[TicketPlay] = Playbook(Play, tasks=[Plan("upgrade", [act], when=wrong)])
    recap = await book.run(Play(Ticket(ObjectMeta(name="t", namespace="default"))))
    assert recap.failure is not None
    assert recap.failure.message == (
        f"The plan 'upgrade' failed: the result of the trigger is the text 'False', {TEXT}"
    )


async def test_the_status_of_a_condition_is_true_false_or_none(api: ModelApi, ticket: ObjectKey) -> None:
    async def set_it(play: TicketPlay) -> None:
        wrong: Any = "False"
        play.condition("BackedUp", wrong, "Failed")

    async with operator(api, playbook(set_it)):
        assert ready(api, ticket)[2] == (
            "The task 'set_it' failed: play.condition('BackedUp'): the status is 'False', but must be True, "
            "False, or None for Unknown"
        )


@pytest.mark.parametrize(("value", "status"), [(False, "False"), (None, "Unknown")])
async def test_ready_without_a_reason_does_not_claim_that_the_object_matches(
    api: ModelApi, ticket: ObjectKey, value: bool | None, status: str
) -> None:
    async def unready(play: TicketPlay) -> None:
        play.ready = value

    async with operator(api, playbook(unready)):
        message = f"A task has set Ready to {status} without a message."
        assert ready(api, ticket) == (status, "NotReady", message)


async def test_a_failure_without_a_message_says_so(api: ModelApi, ticket: ObjectKey) -> None:
    async def fails(play: TicketPlay) -> None:
        raise TaskFailed("Slow", str(TimeoutError()))

    async with operator(api, playbook(fails)):
        assert ready(api, ticket) == ("False", "Slow", "The task failed without a message.")
