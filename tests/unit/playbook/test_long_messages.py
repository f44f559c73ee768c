"""A very long message of a task is truncated visibly in the status and in the log."""

import asyncio
import logging

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.playbook import TaskFailed
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import TicketPlay, operator, playbook, ready

pytestmark = pytest.mark.usefixtures("virtual_time")

LONG = "x" * 30_000


async def wait(play: TicketPlay) -> None:
    play.wait_for(LONG, False)


async def fail(play: TicketPlay) -> None:
    raise TaskFailed("Down", LONG)


async def note(play: TicketPlay) -> None:
    play.changed(LONG)
    play.ready_message = LONG


@pytest.mark.parametrize("task", [wait, fail, note])
async def test_it_is_truncated(
    api: ModelApi, ticket: ObjectKey, task: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pilothouse")
    async with operator(api, playbook(task)):  # type: ignore[arg-type]
        await asyncio.sleep(5)
        message = ready(api, ticket)[2]
        assert len(message) == 2048
        assert message.endswith("x…")
        lines = [each.getMessage() for each in caplog.records if "xxx" in each.getMessage()]
        assert lines
        assert max(map(len, lines)) < 3000
