"""An `await` of something that cannot be awaited: the sentence names the call."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.playbook import EventType
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, operator, playbook, ready

pytestmark = pytest.mark.usefixtures("virtual_time")

Slip = Callable[[Any], Awaitable[object]]
REMOVE = "is not async: remove `await` before the call."


async def wait_for(play: Any) -> None:
    await play.wait_for("it is there", True)


async def wait_for_over_lines(play: Any) -> None:
    await play.wait_for(
        "é is there",
        True,
    )


async def get(play: Any) -> None:
    found = await play.get(CONFIG_MAP, "web") or await play.apply(CONFIG_MAP, {})
    assert found


async def get_an_object(play: Any) -> None:
    await play.apply(CONFIG_MAP, {})
    (await play.get(CONFIG_MAP, play.object.metadata.name)).metadata.uid  # noqa: B018


async def owned(play: Any) -> None:
    await play.owned(CONFIG_MAP)


async def list_(play: Any) -> None:
    async for _ in play.list(CONFIG_MAP, "owner", "x"):
        pass


async def ok(play: Any) -> None:
    async with play.ok("it is"):
        pass


async def skip(play: Any) -> None:
    await play.skip("it is not")


async def changed(play: Any) -> None:
    await play.changed("it is new")


async def event(play: Any) -> None:
    await play.event(EventType.NORMAL, "Done", "It is done.")


async def condition(play: Any) -> None:
    await play.condition("Done", True, "Done")


async def requeue_after(play: Any) -> None:
    await play.requeue_after(5)


async def hide(play: Any) -> None:
    await play.hide("hunter2")


async def hide_in_a_function(play: Any) -> None:
    async def helper() -> None:
        await play.hide("hunter2")

    await helper()


async def gather(play: Any) -> None:
    await asyncio.gather(play.apply(CONFIG_MAP, {}), play.get(CONFIG_MAP, "web"))


async def group(play: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(play.get(CONFIG_MAP, "web"))


async def twice(play: Any) -> None:
    await (await play.apply(CONFIG_MAP, {}))


async def twice_by_name(play: Any) -> None:
    call = play.apply(CONFIG_MAP, {})
    await call
    await call


async def something_else(play: Any) -> None:
    name = play.object.metadata.name
    await name


SLIPS: list[tuple[Slip, str]] = [
    (wait_for, f"play.wait_for {REMOVE}"),
    (wait_for_over_lines, f"play.wait_for {REMOVE}"),
    (get, f"play.get {REMOVE}"),
    (get_an_object, f"play.get {REMOVE}"),
    (owned, f"play.owned {REMOVE}"),
    (list_, f"play.list {REMOVE}"),
    (ok, f"play.ok {REMOVE}"),
    (skip, f"play.skip {REMOVE}"),
    (changed, f"play.changed {REMOVE}"),
    (event, f"play.event {REMOVE}"),
    (condition, f"play.condition {REMOVE}"),
    (requeue_after, f"play.requeue_after {REMOVE}"),
    (hide, f"play.hide {REMOVE}"),
    (hide_in_a_function, f"play.hide {REMOVE}"),
    (gather, f"play.get {REMOVE}"),
    (group, f"play.get {REMOVE}"),
    (twice, "The result of play.apply is awaited twice: remove one `await`."),
    (
        twice_by_name,
        "A coroutine is awaited twice. Keep its result in a variable instead. The code is: await call",
    ),
    (something_else, "A value of type str is awaited, which is not possible: remove `await`"),
]


@pytest.mark.parametrize(("slip", "sentence"), SLIPS, ids=[slip.__name__ for slip, _ in SLIPS])
async def test_the_sentence_names_the_call(
    api: ModelApi, ticket: ObjectKey, slip: Slip, sentence: str
) -> None:
    async def run(play: Any) -> None:
        await slip(play)

    async with operator(api, playbook(run)):
        await asyncio.sleep(1)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert sentence in message
