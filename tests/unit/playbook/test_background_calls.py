"""Modules that a task starts in the background end with the task: they change nothing, and fail it."""

import asyncio
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import Conflict, ObjectKey
from pilothouse.playbook import Plan, Play, Playbook, TaskFailed
from pilothouse.testing import Call, ModelApi
from pilothouse.testing.freezing import Freezable
from tests.unit.playbook.configured import CONFIG_MAP, named, operator, playbook, ready

pytestmark = pytest.mark.usefixtures("virtual_time")


def manifest(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"a": "1"}}


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fails if Python or asyncio report something besides the sentence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    gc.collect()
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []
    assert capfd.readouterr().err == ""


def slow(api: ModelApi, seconds: float) -> None:
    """Makes each write of a ConfigMap take some time."""

    async def before(call: Call) -> None:
        if call.resource == str(CONFIG_MAP) and call.verb == "patch":
            await asyncio.sleep(seconds)

    api.before = before


async def gathered(play: Any) -> None:
    asyncio.gather(play.apply(CONFIG_MAP, manifest("a")), play.apply(CONFIG_MAP, manifest("b")))


async def gathered_and_held(play: Any) -> None:
    play.held = asyncio.gather(play.apply(CONFIG_MAP, manifest("a")), play.apply(CONFIG_MAP, manifest("b")))
    await asyncio.sleep(0.1)


async def gathered_without_errors(play: Any) -> None:
    asyncio.gather(play.apply(CONFIG_MAP, manifest("a")), return_exceptions=True)
    await asyncio.sleep(0.1)


async def created(play: Any) -> None:
    play.held = asyncio.create_task(play.apply(CONFIG_MAP, manifest("a")))


async def created_and_started(play: Any) -> None:
    play.held = asyncio.create_task(play.apply(CONFIG_MAP, manifest("a")))
    await asyncio.sleep(0.1)


async def with_a_time_limit(play: Any) -> None:
    play.held = asyncio.create_task(asyncio.wait_for(play.apply(CONFIG_MAP, manifest("a")), 60))


async def with_a_time_limit_and_started(play: Any) -> None:
    play.held = asyncio.create_task(asyncio.wait_for(play.apply(CONFIG_MAP, manifest("a")), 60))
    await asyncio.sleep(0.1)


async def shielded(play: Any) -> None:
    play.held = asyncio.shield(play.apply(CONFIG_MAP, manifest("a")))
    await asyncio.sleep(0.1)


async def in_a_helper(play: Any) -> None:
    async def helper() -> None:
        await play.apply(CONFIG_MAP, manifest("a"))
        await play.apply(CONFIG_MAP, manifest("b"))

    play.held = asyncio.create_task(helper())
    await asyncio.sleep(0.1)


async def in_an_async_generator(play: Any) -> None:
    async def applied() -> AsyncIterator[Any]:
        yield await play.apply(CONFIG_MAP, manifest("a"))

    async def helper() -> None:
        async for _ in applied():
            """Uses the object."""

    play.held = asyncio.create_task(helper())
    await asyncio.sleep(0.1)


async def in_a_helper_that_swallows_the_cancellation(play: Any) -> None:
    async def helper() -> None:
        with suppress(asyncio.CancelledError):
            await play.apply(CONFIG_MAP, manifest("a"))
        await play.apply(CONFIG_MAP, manifest("b"))

    play.held = asyncio.create_task(helper())
    await asyncio.sleep(0.1)


async def in_a_helper_that_raises_another_error(play: Any) -> None:
    async def helper() -> None:
        try:
            await play.apply(CONFIG_MAP, manifest("a"))
        except BaseException as error:
            raise KeyError("password=hunter2") from error

    play.held = asyncio.create_task(helper())
    await asyncio.sleep(0.1)


MISTAKES = [
    gathered,
    gathered_and_held,
    gathered_without_errors,
    created,
    created_and_started,
    with_a_time_limit,
    with_a_time_limit_and_started,
    shielded,
    in_a_helper,
    in_an_async_generator,
    in_a_helper_that_swallows_the_cancellation,
    in_a_helper_that_raises_another_error,
]


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_module_in_the_background_is_cancelled_and_fails_the_task(
    api: ModelApi, ticket: ObjectKey, mistake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    slow(api, 3)
    async with operator(api, playbook(mistake)):
        await asyncio.sleep(60)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert message == (
            f"The task {mistake.__name__!r} failed: play.apply was still running when the task ended, so "
            "it was cancelled. "
            "Write `await` before asyncio.gather, or await what asyncio.create_task returned."
        )
        assert api.all(CONFIG_MAP) == []
        assert not [each for each in caplog.records if each.exc_info], "no traceback"
        assert "hunter2" not in caplog.text


async def test_a_module_that_outlives_a_failure_is_cancelled(api: ModelApi, ticket: ObjectKey) -> None:
    async def fail_soon(play: Any) -> None:
        await asyncio.sleep(0.1)
        raise TaskFailed("Down", "It is down.")

    async def both(play: Any) -> None:
        await asyncio.gather(play.apply(CONFIG_MAP, manifest("a")), fail_soon(play))

    slow(api, 3)
    async with operator(api, playbook(both)):
        await asyncio.sleep(60)
        assert ready(api, ticket)[2] == (
            "The task 'both' failed: play.apply was still running when the task failed, so it was cancelled. "
            "Use asyncio.TaskGroup, which ends all its calls first; asyncio.gather does not."
        )
        assert api.all(CONFIG_MAP) == []


async def test_a_module_that_outlives_a_conflict_is_cancelled(api: ModelApi, ticket: ObjectKey) -> None:
    async def conflict(play: Any) -> None:
        await asyncio.sleep(0.1)
        raise Conflict(409, "Conflict", "it has changed")

    async def both(play: Any) -> None:
        await asyncio.gather(play.apply(CONFIG_MAP, manifest("a")), conflict(play))

    slow(api, 3)
    async with operator(api, playbook(both)):
        await asyncio.sleep(60)
        assert api.all(CONFIG_MAP) == []


LATE = (
    "play.apply was called after the task {!r} had ended, so it did nothing. The task has started the call "
    "in the background, for example with asyncio.create_task. Await it before the task returns."
)


async def late(play: Any) -> None:
    async def helper() -> None:
        await asyncio.sleep(1)
        await play.apply(CONFIG_MAP, manifest("a"))

    play.held = asyncio.create_task(helper())


async def late_and_gathered(play: Any) -> None:
    async def helper() -> None:
        await asyncio.sleep(1)
        await play.apply(CONFIG_MAP, manifest("a"))

    asyncio.gather(helper(), helper())


async def not_started_when_the_task_ends(play: Any) -> None:
    async def helper() -> None:
        await play.apply(CONFIG_MAP, manifest("a"))

    asyncio.gather(helper())


@pytest.mark.parametrize("mistake", [late, late_and_gathered, not_started_when_the_task_ends])
async def test_a_module_that_is_called_after_the_end_of_its_task_is_refused(
    api: ModelApi, ticket: ObjectKey, mistake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with operator(api, playbook(mistake)):
        await asyncio.sleep(60)
        sentence = LATE.format(mistake.__name__)
        assert api.all(CONFIG_MAP) == []
        [event] = api.all(EVENT)
        assert (event["reason"], event["type"], event["note"]) == ("UnexpectedError", "Warning", sentence)
        errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert {each.getMessage() for each in errors} == {sentence}
        assert not [each for each in errors if each.exc_info], "no traceback"


class Hooked(Play[Any, Any]):
    def failed(self, failure: TaskFailed) -> None:
        self.held = asyncio.create_task(self.apply(CONFIG_MAP, manifest("a")))


class HookedLater(Play[Any, Any]):
    def failed(self, failure: TaskFailed) -> None:
        async def helper() -> None:
            await asyncio.sleep(1)
            await self.apply(CONFIG_MAP, manifest("a"))

        self.held = asyncio.create_task(helper())


def trigger(play: Any) -> bool:
    play.held = asyncio.create_task(play.apply(CONFIG_MAP, manifest("a")))
    return True


async def fail(play: Any) -> None:
    raise TaskFailed("Down", "It is down.")


@pytest.mark.parametrize(
    "book",
    [
        Playbook(Hooked, tasks=[named(fail)]),
        Playbook(HookedLater, tasks=[named(fail)]),
        Playbook(Play, tasks=[Plan("p", [named(fail)], when=trigger)]),
    ],
)
async def test_a_module_outside_of_a_task_is_refused(
    api: ModelApi, ticket: ObjectKey, book: Playbook[Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with operator(api, book):
        await asyncio.sleep(60)
        assert api.all(CONFIG_MAP) == []
        assert "play.apply was called outside of a task, for example in a trigger" in caplog.text
        notes = [each["note"] for each in api.all(EVENT)]
        assert any("play.apply was called outside of a task" in note for note in notes)
        assert not [each for each in caplog.records if each.exc_info], "no traceback"


async def test_other_errors_of_background_tasks_are_reported_as_ever(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: found.append(context["exception"]))

    async def helper() -> None:
        raise KeyError("a")

    async def fails_in_the_background(play: Any) -> None:
        asyncio.gather(play.apply(CONFIG_MAP, manifest("a")))
        asyncio.create_task(helper())  # noqa: RUF006 - the mistake

    async with operator(api, playbook(fails_in_the_background)):
        await asyncio.sleep(5)
        gc.collect()
        assert [type(each) for each in found[:1]] == [KeyError]
        assert not [each for each in found if not isinstance(each, KeyError)]


async def test_it_is_cancelled_in_a_process_that_can_be_frozen_too(api: ModelApi, ticket: ObjectKey) -> None:
    slow(api, 3)
    with Freezable().running():
        async with operator(api, playbook(in_a_helper)):
            await asyncio.sleep(60)
            assert "play.apply was still running when the task ended" in ready(api, ticket)[2]
            assert api.all(CONFIG_MAP) == []
    asyncio.get_running_loop().set_task_factory(None)
