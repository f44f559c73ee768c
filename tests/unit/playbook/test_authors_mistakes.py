"""What an author may give by mistake is refused where it is given: a defect of that task, or of that play."""

import asyncio
import math
import sys
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller import EventType
from pilothouse.kube import ObjectKey, Unreachable
from pilothouse.playbook import Play, Playbook, TaskFailed
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.airline import TicketPlay
from tests.unit.playbook.configured import named, operator, playbook, ready
from tests.unit.tickets import TICKET

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


class MadeWithADefect(Play[Any, Any]):
    def __init__(self, object: Any, *, check: bool) -> None:  # noqa: A002
        super().__init__(object, check=check)
        raise KeyError("password=hunter2")


class LeavesTheProgram(Play[Any, Any]):
    def __init__(self, object: Any, *, check: bool) -> None:  # noqa: A002
        sys.exit(7)


class CannotSayThatItFailed(Play[Any, Any]):
    def failed(self, failure: TaskFailed) -> None:
        raise AttributeError("password=hunter2")


async def fail(play: Any) -> None:
    raise TaskFailed("Down", "It is down.")


async def set_no_status(play: Any) -> None:
    play.status = None


async def set_what_cannot_be_encoded(play: Any) -> None:
    play.status = replace(play.status, phase=object(), booking="B-1")


async def set_what_cannot_be_compared(play: Any) -> None:
    class Phase:
        def __eq__(self, other: object) -> bool:
            raise TypeError("password=hunter2")

        def __hash__(self) -> int:
            return 0

    play.status = replace(play.status, phase=Phase(), booking="B-1")


@pytest.mark.parametrize(
    ("book", "error"),
    [
        (Playbook(MadeWithADefect, tasks=[]), "KeyError"),
        (Playbook(LeavesTheProgram, tasks=[]), "SystemExit"),
        (Playbook(CannotSayThatItFailed, tasks=[named(fail)]), "AttributeError"),
        (playbook(set_no_status), "AttributeError"),
        (playbook(set_what_cannot_be_encoded), "TypeError"),
        (playbook(set_what_cannot_be_compared), "TypeError"),
    ],
)
async def test_a_mistake_outside_of_the_tasks_is_told_logged_and_tried_again(
    api: ModelApi, book: Playbook[Any], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = api.put(TICKET, "t", status={"phase": "Booked"})
    async with operator(api, book):
        await asyncio.sleep(300)
        message = f"play: unexpected {error}; the operator's log has the details."
        assert ready(api, key) == ("False", "UnexpectedError", message)
        assert api.read(TICKET, key)["status"]["phase"] == "Booked", "the rest of the status stays"
        assert "booking" not in api.read(TICKET, key)["status"]
        assert [call.subresource for call in api.writes] == ["status"], "it is said once"
        tries = [each for each in caplog.records if each.getMessage().startswith("unexpected error, tried")]
        assert all(each.exc_info for each in tries)
        assert 10 < len(tries) < 20, "with back-off"


async def test_it_stays_in_the_log_when_the_status_cannot_be_told(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(call: Call) -> None:
        raise Unreachable("connection refused", maybe_sent=False)

    api.before = down
    async with operator(api, Playbook(MadeWithADefect, tasks=[])):
        await asyncio.sleep(5)
        first, second = caplog.records[:2]
        assert first.exc_info
        assert first.getMessage().startswith("unexpected error, tried again in ")
        assert second.getMessage() == "its status does not say so: connection refused"
        api.before = ModelApi().before
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "UnexpectedError"
