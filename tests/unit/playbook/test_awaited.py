"""A forgotten await, and other mistakes in the function of a task, fail the task."""

import asyncio
import functools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey, ObjectMeta, PartialObjectMetadata, Resource
from pilothouse.playbook import Plan, Play, Playbook, TaskFailed, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay, named, operator, playbook, ready
from tests.unit.tickets import Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

DATA = {"data": {"a": "1"}}


@pytest.fixture(autouse=True)
def no_coroutine_is_left_to_the_collector() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


async def forgotten(play: Any) -> None:
    play.apply(CONFIG_MAP, DATA)


async def forgotten_and_used(play: Any) -> None:
    play.status.phase = play.apply(CONFIG_MAP, DATA).metadata.name


async def forgotten_before_a_wait(play: Any) -> None:
    play.delete(CONFIG_MAP, "a")
    play.wait_for("it is gone", False)


async def forgotten_before_a_failure(play: Any) -> None:
    play.call("change it", forgotten)
    raise TaskFailed("Down", "It is down.")


async def forgotten_and_held(play: Any) -> None:
    play.held = play.apply(CONFIG_MAP, DATA)


async def forgotten_as_a_condition(play: Any) -> None:
    play.wait_for("it is gone", play.delete(CONFIG_MAP, "a"))


async def is_gone() -> bool:
    return False


UNKNOWN = Resource("example.com", "v1", "Unknown", "unknowns", PartialObjectMetadata)


async def undeclared(play: Any) -> None:
    await play.apply(UNKNOWN, {})


async def soon(play: Any) -> None:
    play.requeue_after("soon")


async def forgotten_helper(play: Any) -> None:
    is_gone()  # type: ignore[unused-coroutine]


async def forgotten_helper_in_a_variable(play: Any) -> None:
    gone = is_gone()
    play.ok(f"it is gone: {gone is not None}")


def forgotten_helper_in_a_thread(play: Any) -> None:
    is_gone()  # type: ignore[unused-coroutine]


async def forgotten_sleep(play: Any) -> None:
    asyncio.sleep(1)  # type: ignore[unused-coroutine]


async def forgotten_helper_as_a_condition(play: Any) -> None:
    play.wait_for("it is gone", is_gone())


@task("another")
async def another(play: Any) -> None:
    await play.apply(CONFIG_MAP, DATA)


async def forgotten_task(play: Any) -> None:
    another(play)  # type: ignore[unused-coroutine]


async def left_running(play: Any) -> None:
    play.held = asyncio.create_task(play.call("sleep", lambda: asyncio.sleep(3)))
    await asyncio.sleep(1)


def plain(play: Any) -> None:
    play.apply(CONFIG_MAP, DATA)


def plain_with_a_loop_of_its_own(play: Any) -> None:
    async def run() -> None:
        await play.apply(CONFIG_MAP, DATA)

    asyncio.run(run())


async def in_a_thread(play: Any) -> None:
    await play.fence.in_thread(plain, play)


async def returned(play: Any) -> Any:
    return play.apply(CONFIG_MAP, DATA)


async def returned_a_value(play: Any) -> Any:
    return 5


def returned_a_value_from_a_thread(play: Any) -> Any:
    return 5


def hides_that_it_is_async(play: Any) -> Any:
    return another.function(play)


async def called_instead_of_passed(play: Any) -> None:
    await play.call("check it", is_gone())


async def passed_no_function(play: Any) -> None:
    await play.call("check it", None)


async def passed_a_running_task(play: Any) -> None:
    running = asyncio.create_task(is_gone())
    try:
        await play.call("check it", running)
    finally:
        await running


async def passed_a_plain_function(play: Any) -> None:
    await play.call("check it", lambda: None)


async def passed_a_function_in_a_lambda(play: Any) -> None:
    await play.call("check it", lambda: is_gone)


async def passed_an_async_generator(play: Any) -> None:
    async def steps() -> Any:
        yield 1

    await play.call("check it", steps)


async def passed_an_async_function_to_a_thread(play: Any) -> None:
    await play.call("check it", lambda: play.fence.in_thread(is_gone))


def not_awaitable(kind: str) -> str:
    return (
        f"the function of play.call('check it', ...) returned a value of type {kind}, which cannot be "
        "awaited: pass an async def that takes no arguments, or for blocking code "
        "`lambda: play.fence.in_thread(function, ...)`"
    )


CALLED = (
    "play.call('check it', ...) got a coroutine, because is_gone was called, but must get a function: write "
    "`lambda: is_gone(...)`"
)
NO_FUNCTION = (
    "play.call('check it', ...) got a value of type NoneType, but must get a function: write `lambda: ...`"
)
FORGOTTEN = "play.apply was called without await, so it did nothing. Write `await` before the call."
PLAIN = (
    "play.apply was called in a plain def, which runs in a thread and cannot await it. "
    "Make the task an async def and await the call."
)

CONDITION = (
    "the condition of play.wait_for is a coroutine that was not awaited. Write `await` before the call."
)
COROUTINE = (
    "it returned a coroutine that nothing awaits. Make the task's function an async def that awaits it."
)


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (forgotten, FORGOTTEN),
        (forgotten_and_used, FORGOTTEN),
        (forgotten_before_a_wait, FORGOTTEN.replace("apply", "delete")),
        (forgotten_before_a_failure, FORGOTTEN.replace("apply", "call")),
        (forgotten_and_held, FORGOTTEN),
        (forgotten_as_a_condition, CONDITION),
        (forgotten_helper_as_a_condition, CONDITION),
        (
            undeclared,
            "the Watch of tickets.tests.dev does not declare unknowns.example.com: add it to `owns` or "
            "`watches`",
        ),
        (soon, "requeue_after is 'soon', but must be a number of seconds"),
        (forgotten_helper, FORGOTTEN.replace("play.apply", "is_gone")),
        (forgotten_helper_in_a_variable, FORGOTTEN.replace("play.apply", "is_gone")),
        (forgotten_helper_in_a_thread, FORGOTTEN.replace("play.apply", "is_gone")),
        (forgotten_sleep, FORGOTTEN.replace("play.apply", "sleep")),
        (
            forgotten_task,
            "the task 'another' was called without await, so it did nothing. Write `await` before the call.",
        ),
        (
            left_running,
            "play.call was still running when the task ended, so it was cancelled. Write `await` before "
            "asyncio.gather, or await what asyncio.create_task returned.",
        ),
        (plain, PLAIN),
        (plain_with_a_loop_of_its_own, PLAIN),
        (in_a_thread, PLAIN),
        (returned, COROUTINE),
        (
            returned_a_value,
            "it returned a value of type int, which nothing reads. "
            "Keep what later tasks need in an attribute of the play.",
        ),
        (
            returned_a_value_from_a_thread,
            "it returned a value of type int, which nothing reads. "
            "Keep what later tasks need in an attribute of the play.",
        ),
        (hides_that_it_is_async, COROUTINE),
        (called_instead_of_passed, CALLED),
        (passed_no_function, NO_FUNCTION),
        (passed_a_running_task, NO_FUNCTION.replace("NoneType", "Task")),
        (passed_a_plain_function, not_awaitable("NoneType")),
        (passed_a_function_in_a_lambda, not_awaitable("function")),
        (passed_an_async_generator, not_awaitable("async_generator")),
        (
            passed_an_async_function_to_a_thread,
            "the result of the function of play.call('check it', ...) is a coroutine that was not awaited. "
            "Write `await` before the call.",
        ),
    ],
)
async def test_it_fails_the_task_with_a_sentence(
    api: ModelApi, ticket: ObjectKey, mistake: Any, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with operator(api, playbook(mistake)):
        await asyncio.sleep(5)
        message = f"The task {mistake.__name__!r} failed: {sentence}"
        assert ready(api, ticket) == ("False", "UnexpectedError", message)
        assert not any(each.exc_info for each in caplog.records)


async def test_a_coroutine_awaited_later_or_by_gather_is_accepted(api: ModelApi, ticket: ObjectKey) -> None:
    async def gathered(play: Any) -> None:
        first = play.apply(CONFIG_MAP, DATA)
        second = asyncio.create_task(play.call("sleep", lambda: asyncio.sleep(1)))
        await asyncio.gather(first, second)
        await another(play)

    async with operator(api, playbook(gathered)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"


async def test_outside_of_tasks_python_warns_as_ever() -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'is_gone' was never awaited"):
        is_gone()  # type: ignore[unused-coroutine]


async def test_a_plain_def_may_wait(api: ModelApi, ticket: ObjectKey) -> None:
    def waits(play: TicketPlay) -> Any:
        play.wait_for("the moon is full", False)

    async with operator(api, playbook(waits)):
        await asyncio.sleep(5)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until the moon is full.")


class Helpful(Play[Any, Any]):
    async def look_up(self) -> None:
        """A method that an author has added."""


async def test_a_method_of_the_authors_own_play_counts_too(api: ModelApi, ticket: ObjectKey) -> None:
    @task("look")
    async def look(play: Helpful) -> None:
        play.look_up()  # type: ignore[unused-coroutine]

    async with operator(api, Playbook(Helpful, tasks=[look])):
        await asyncio.sleep(5)
        assert ready(api, ticket)[2] == (
            "The task 'look' failed: play.look_up was called without await, so it did nothing. Write `await` "
            "before the call."
        )


async def test_a_partial_and_an_object_with_an_async_call_run_on_the_loop(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def apply(play: Any, key: str) -> None:
        await play.apply(CONFIG_MAP, {"data": {key: "1"}})

    class Applies:
        __name__ = "applies"

        async def __call__(self, play: Any) -> None:
            await play.apply(CONFIG_MAP, {"data": {"b": "1"}}, force=True)

    async with operator(api, playbook(functools.partial(apply, key="b"), Applies())):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"
        [found] = api.all(CONFIG_MAP)
        assert found["data"] == {"b": "1"}


async def test_a_function_that_cannot_be_a_task_is_refused_immediately() -> None:
    def generator(play: Any) -> Iterator[None]:
        yield

    async def two(self: Any, play: Any) -> None:
        pass

    async def trigger(play: Any) -> bool:
        return True

    wrong: Any = generator
    with pytest.raises(PlaybookError, match="is a generator, which would never run: remove the yield"):
        named(wrong)
    wrong = two
    with pytest.raises(PlaybookError, match="must be a function of one argument, the play"):
        named(wrong)
    with pytest.raises(
        PlaybookError, match=r'a task needs a name in words, as in @task\("seats are booked"\)'
    ):
        task(wrong)
    with pytest.raises(PlaybookError, match=r"is not a task. Decorate the function with @task"):
        Playbook(Play, tasks=[wrong])
    wrong = trigger
    with pytest.raises(PlaybookError, match="the trigger of the plan 'deploy' is an async def"):
        Plan("deploy", [another], when=wrong)


async def test_an_async_hook_is_refused_immediately() -> None:
    with pytest.raises(
        PlaybookError, match=r"Wrong.failed is an async def, but its caller does not await it"
    ):

        class Wrong(Play[Any, Any]):
            async def failed(self, failure: TaskFailed) -> None:  # type: ignore[override]
                pass


async def test_check_mode_refuses_a_coroutine_instead_of_a_function() -> None:
    recap = await Playbook(Play, tasks=[named(called_instead_of_passed)]).run(
        TicketPlay(Ticket(ObjectMeta("web")), check=True)
    )
    assert recap.failure is not None
    assert recap.failure.message == f"The task 'called_instead_of_passed' failed: {CALLED}"


@pytest.mark.parametrize("awaits", [True, False])
async def test_a_task_that_cancels_itself_is_reported(api: ModelApi, ticket: ObjectKey, awaits: bool) -> None:
    async def cancel(play: TicketPlay) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()
        if awaits:
            await asyncio.sleep(0)

    async with operator(api, playbook(cancel)):
        await asyncio.sleep(60)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert "a task, or a library that it uses, cancelled the reconcile" in message
        assert [each["reason"] for each in api.all(EVENT)] == ["UnexpectedError"]
