"""What an author may give by mistake is refused where it is given: a defect of that task alone."""

import asyncio
import math
import sys
from datetime import timedelta
from typing import Any

import pytest

from pilothouse.controller import EventType
from pilothouse.kube import ObjectKey
from pilothouse.playbook import TaskFailed
from pilothouse.testing import ModelApi
from tests.unit.playbook.airline import TicketPlay
from tests.unit.playbook.configured import operator, playbook, ready

pytestmark = pytest.mark.usefixtures("virtual_time")


async def requeue_with_a_timedelta(play: TicketPlay) -> None:
    wrong: Any = timedelta(seconds=5)
    play.requeue_after(wrong)


async def requeue_with_no_number(play: TicketPlay) -> None:
    play.requeue_after(math.nan)


async def wait_with_a_text(play: TicketPlay) -> None:
    wrong: Any = "soon"
    play.wait_for("it is so", False, fallback=wrong)


async def fail_with_a_timedelta(play: TicketPlay) -> None:
    wrong: Any = timedelta(seconds=5)
    raise TaskFailed("NotYet", "Not yet.", retry_after=wrong)


async def fail_with_a_sentence_as_reason(play: TicketPlay) -> None:
    raise TaskFailed("it does not work", "It does not work.")


async def record_a_number(play: TicketPlay) -> None:
    wrong: Any = 404
    play.event(EventType.WARNING, wrong, "Not found.")


async def record_an_unknown_type(play: TicketPlay) -> None:
    wrong: Any = "Alarming"
    play.event(wrong, "Found", "Found.")


async def leave_the_program(play: TicketPlay) -> None:
    sys.exit(7)


def leave_the_program_in_a_thread(play: TicketPlay) -> None:
    sys.exit(7)


def come_to_the_end_of_an_iterator(play: TicketPlay) -> None:
    next(iter([]))


@pytest.mark.parametrize(
    "mistake",
    [
        requeue_with_a_timedelta,
        requeue_with_no_number,
        wait_with_a_text,
        fail_with_a_timedelta,
        fail_with_a_sentence_as_reason,
        record_a_number,
        record_an_unknown_type,
        leave_the_program,
        leave_the_program_in_a_thread,
        come_to_the_end_of_an_iterator,
    ],
)
async def test_a_mistake_is_a_defect_of_its_task(api: ModelApi, ticket: ObjectKey, mistake: Any) -> None:
    async with operator(api, playbook(mistake)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[:2] == ("False", "UnexpectedError")


async def test_an_event_type_may_be_a_plain_word(api: ModelApi, ticket: ObjectKey) -> None:
    async def record(play: Any) -> None:
        word: Any = "Warning"
        play.event(word, "Found", "Found.")

    async with operator(api, playbook(record)):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"
        assert [call.resource for call in api.writes if "events" in call.resource]
