"""An author's mistakes are refused where they are made: the task fails, or the reconcile."""

import asyncio
import logging
import math
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller import EventType
from pilothouse.controller.events import EVENT
from pilothouse.kube import Invalid, ObjectKey, Unreachable
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


class Panic(BaseException):
    """A BaseException of a library that is not written in Python, such as PyO3's PanicException."""


async def panic(play: TicketPlay) -> None:
    raise Panic


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
        panic,
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
    def __init__(self, object: Any, **engine: Any) -> None:  # noqa: A002
        super().__init__(object, **engine)
        raise KeyError("password=hunter2")


class LeavesTheProgram(Play[Any, Any]):
    def __init__(self, object: Any, **engine: Any) -> None:  # noqa: A002
        sys.exit(7)


class CannotSayThatItFailed(Play[Any, Any]):
    def failed(self, failure: TaskFailed) -> None:
        raise AttributeError("password=hunter2")


async def fail(play: Any) -> None:
    raise TaskFailed("Down", "It is down.")


async def set_what_cannot_be_encoded(play: Any) -> None:
    # Around the check of the attribute `status`.
    vars(play)["_status"] = replace(play.status, phase=object(), booking="B-1")


async def set_what_cannot_be_compared(play: Any) -> None:
    class Phase:
        def __eq__(self, other: object) -> bool:
            raise TypeError("password=hunter2")

        def __hash__(self) -> int:
            return 0

    vars(play)["_status"] = replace(play.status, phase=Phase(), booking="B-1")


@pytest.mark.parametrize(
    ("book", "error"),
    [
        (Playbook(MadeWithADefect, tasks=[]), "KeyError"),
        (Playbook(LeavesTheProgram, tasks=[]), "SystemExit"),
        (Playbook(CannotSayThatItFailed, tasks=[named(fail)]), "AttributeError"),
        (playbook(set_what_cannot_be_encoded), "TypeError"),
        (playbook(set_what_cannot_be_compared), "TypeError"),
    ],
)
async def test_a_mistake_outside_of_the_tasks_is_reported_logged_and_retried(
    api: ModelApi, book: Playbook[Any], error: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = api.put(TICKET, "t", status={"phase": "Booked"})
    async with operator(api, book):
        await asyncio.sleep(300)
        message = f"play: unexpected {error}. See the operator's log for details."
        assert ready(api, key) == ("False", "UnexpectedError", message)
        assert api.read(TICKET, key)["status"]["phase"] == "Booked", "the rest of the status is kept"
        assert "booking" not in api.read(TICKET, key)["status"]
        reported = [call.subresource for call in api.writes if call.resource == str(TICKET)]
        assert reported == ["status"], "it is written once"
        assert len(api.all(EVENT)) == 1, "one Event, with a series"
        tries = [
            each for each in caplog.records if each.getMessage().startswith("Unexpected error, retrying")
        ]
        assert [bool(each.exc_info) for each in tries] == [True] + [False] * (len(tries) - 1)
        assert 9 < len(tries) < 20, "with back-off"


async def test_a_failure_is_logged_if_the_status_cannot_be_written(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def down(call: Call) -> None:
        raise Unreachable("connection refused", maybe_sent=False)

    api.before = down
    async with operator(api, Playbook(MadeWithADefect, tasks=[])):
        await asyncio.sleep(5)
        first, second = caplog.records[:2]
        assert first.exc_info
        assert first.getMessage().startswith("Unexpected error, retrying in ")
        assert (
            second.getMessage() == "Could not record the failure in the object's status: connection refused"
        )
        api.before = ModelApi().before
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "UnexpectedError"


def refuse_phases_with_spaces(api: ModelApi) -> None:
    """As the API server does, by a pattern in the schema."""

    async def before(call: Call) -> None:
        if call.subresource == "status" and " " in call.body["status"].get("phase", ""):
            raise Invalid(422, "Invalid", "status.phase: has spaces")

    api.before = before


async def give_a_sentence_as_phase(play: Any) -> None:
    play.status = replace(play.status, phase="all is well")


async def test_a_status_that_the_server_refuses_is_reported_in_the_status(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_phases_with_spaces(api)
    async with operator(api, playbook(give_a_sentence_as_phase)):
        await asyncio.sleep(60)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "StatusNotWritten")
        assert message == (
            "The status of this object cannot be written: status.phase: has spaces. "
            "The operator keeps retrying."
        )
        assert [each["note"] for each in api.all(EVENT)] == [message]
        tries = [each for each in caplog.records if "etrying in" in each.getMessage()]
        assert len([each for each in tries if each.levelno >= logging.WARNING]) == 1, "logged once"


async def encode_nothing(play: Any) -> None:
    vars(play)["_status"] = replace(play.status, phase=object())


@pytest.mark.parametrize("mistake", [give_a_sentence_as_phase, encode_nothing])
async def test_a_last_status_that_cannot_be_written_does_not_block_the_deletion(
    api: ModelApi, mistake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_phases_with_spaces(api)
    book: Playbook[Any] = Playbook(Play, tasks=[], cleanup=[named(mistake)], finalizer="ours/it")
    key = api.put(TICKET, "t", metadata={"finalizers": ["ours/it", "others/it"]})
    api.remove(TICKET, key)
    async with operator(api, book):
        await asyncio.sleep(5)
        assert api.read(TICKET, key)["metadata"]["finalizers"] == ["others/it"]
        assert caplog.text.count("Removing the finalizer although the last status cannot be written") == 1


async def test_a_timeout_is_reported_even_if_the_hook_fails(api: ModelApi) -> None:
    async def hang(play: Any) -> None:
        await asyncio.sleep(3600)

    key = api.put(TICKET, "t")
    async with operator(api, Playbook(CannotSayThatItFailed, tasks=[named(hang)])):
        await asyncio.sleep(150)
        assert ready(api, key)[:2] == ("False", "Timeout")


async def test_a_task_that_swallows_cancellation_is_reported_in_the_status(api: ModelApi) -> None:
    stubborn = True

    async def swallow(play: Any) -> None:
        while stubborn:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    key = api.put(TICKET, "t")
    async with operator(api, playbook(swallow)):
        await asyncio.sleep(250)
        assert ready(api, key)[:2] == ("False", "Timeout")
        stubborn = False


async def test_an_invalid_number_is_retried_with_back_off(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    async def set_the_attribute(play: Any) -> None:
        play.after = "soon"

    async with operator(api, playbook(set_the_attribute)):
        await asyncio.sleep(300)
        assert 9 < caplog.text.count("Unexpected error at Ticket") < 20
