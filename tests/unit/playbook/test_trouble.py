"""Writes of the engine that the API server refuses are reported on the object and retried with back-off."""

import asyncio
import logging
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import (
    ApiError,
    Forbidden,
    Invalid,
    NotFound,
    ObjectKey,
    RequestEntityTooLarge,
    ServerError,
    Undecodable,
    Unreachable,
)
from pilothouse.playbook import Play, Playbook, task
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook.airline import FINALIZER, Airline, TicketPlay, playbook
from tests.unit.playbook.configured import ready
from tests.unit.playbook.conftest import Start
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

POLICY = Forbidden(403, "Forbidden", 'tickets "my-ticket" is forbidden: every Ticket needs the label team')
REFUSALS = [
    POLICY,
    Invalid(422, "Invalid", "metadata.labels: Invalid value: too long"),
    ServerError(500, "InternalError", 'failed calling webhook "v.example.com": no endpoints available'),
    NotFound(404, "NotFound", "the server could not find the requested resource"),
    ApiError(409 + 9, "Teapot", "an admission plugin answers as it likes"),
]


class Refusing:
    """Refuses writes of tickets: of their metadata ("") or of their status ("status")."""

    def __init__(self, api: ModelApi, error: Exception, *subresources: str) -> None:
        self.error: Exception | None = error
        self.tries = 0
        self._subresources = subresources
        api.before = self._before

    async def _before(self, call: Call) -> None:
        if call.verb == "patch" and call.resource == str(TICKET) and call.subresource in self._subresources:
            self.tries += 1
            if self.error is not None:
                raise self.error


def events(api: ModelApi) -> list[tuple[str, str, str]]:
    return [(each["type"], each["reason"], each["note"]) for each in api.all(EVENT)]


def retries(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in caplog.records if "etrying in" in each.getMessage()]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: str(error.status))
async def test_a_refused_finalizer_is_reported_by_a_condition_and_an_event_that_quote_the_api_server(
    api: ModelApi,
    airline: Airline,
    ticket: ObjectKey,
    start: Start,
    error: ApiError,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refusing = Refusing(api, error, "")
    await start()
    await asyncio.sleep(600)
    status, reason, message = ready(api, ticket)
    assert (status, reason) == ("False", "FinalizerNotStored")
    assert message.startswith(f"No task runs, because the finalizer {FINALIZER} cannot be stored: {error}")
    assert events(api) == [("Warning", "FinalizerNotStored", message)]
    assert airline.effects == []
    assert 10 < refusing.tries < 25, "with back-off"
    assert len([call for call in api.writes if call.subresource == "status"]) == 1, "written once"
    assert len([each for each in retries(caplog) if each.levelno >= logging.WARNING]) <= 3
    refusing.error = None
    await asyncio.sleep(1100)
    assert airline.effects == ["book"]
    assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: str(error.status))
async def test_a_finalizer_that_cannot_be_removed_is_reported_on_the_object(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start, error: ApiError
) -> None:
    await start()
    refusing = Refusing(api, error, "")
    api.remove(TICKET, ticket)
    await asyncio.sleep(600)
    status, reason, message = ready(api, ticket)
    assert (status, reason) == ("False", "FinalizerNotRemoved")
    assert f"The cleanup is done, but the finalizer {FINALIZER} cannot be removed: {error}" in message
    assert events(api) == [("Warning", "FinalizerNotRemoved", message)]
    refusing.error = None
    await asyncio.sleep(1100)
    assert not api.exists(TICKET, ticket)
    assert airline.effects == ["book", "cancel"]


@pytest.mark.parametrize("error", [ServerError(500), Unreachable("reset", maybe_sent=True)], ids=repr)
async def test_an_error_that_passes_without_intervention_is_not_reported(
    api: ModelApi, ticket: ObjectKey, start: Start, error: Exception
) -> None:
    refusing = Refusing(api, error, "", "status")

    async def heals(call: Call) -> None:
        if refusing.tries == 2:
            refusing.error = None
        await refusing._before(call)

    api.before = heals
    await start()
    assert ready(api, ticket)[0] == "True"
    assert events(api) == []


@pytest.mark.parametrize("subresource", ["", "status"])
async def test_a_write_whose_answer_can_never_be_decoded_is_reported(
    api: ModelApi, ticket: ObjectKey, start: Start, subresource: str
) -> None:
    refusing = Refusing(api, Undecodable("the answer is not JSON: <html>"), subresource)
    await start()
    await asyncio.sleep(600)
    reason = "StatusNotWritten" if subresource else "FinalizerNotStored"
    [(_, found, note)] = events(api)
    assert found == reason
    assert "the answer is not JSON: <html>" in note
    if not subresource:
        assert ready(api, ticket)[:2] == ("False", reason)
    refusing.error = None
    await asyncio.sleep(1100)
    assert ready(api, ticket)[0] == "True"


async def test_a_single_answer_that_cannot_be_decoded_is_not_reported(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    refusing = Refusing(api, Undecodable("the answer is not JSON: <html>"), "")

    async def heals(call: Call) -> None:
        if refusing.tries == 1:
            refusing.error = None
        await refusing._before(call)

    api.before = heals
    await start()
    assert ready(api, ticket)[0] == "True"
    assert events(api) == []


async def test_an_object_that_is_deleted_in_between_is_not_reported(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    async def vanishes(call: Call) -> None:
        if call.verb == "patch" and api.exists(TICKET, ticket):
            api.remove(TICKET, ticket)

    api.before = vanishes
    await start()
    assert not api.exists(TICKET, ticket)
    assert events(api) == []


def with_pages(number: int) -> Playbook[Any]:
    @task("pages are listed")
    async def pages(play: TicketPlay) -> None:
        play.status = replace(play.status, phase="p" * number)

    return Playbook(Play, tasks=[pages])


STATUS_REFUSALS = [
    RequestEntityTooLarge(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
    Invalid(422, "Invalid", "status.phase: Too long"),
    Forbidden(403, "Forbidden", "admission webhook denied the request"),
    ServerError(500, "InternalError", "etcdserver: request is too large"),
    Unreachable("connection reset by peer", maybe_sent=True),
]


@pytest.mark.parametrize("error", STATUS_REFUSALS, ids=lambda error: type(error).__name__)
async def test_a_refused_status_is_reported_and_the_stored_status_stays(
    api: ModelApi, ticket: ObjectKey, start: Start, error: Exception
) -> None:
    earlier = await start(with_pages(10))
    assert ready(api, ticket)[0] == "True"
    earlier.cancel()

    async def refuse_large(call: Call) -> None:
        if call.subresource == "status" and "phase" in call.body["status"]:
            raise error

    api.before = refuse_large
    await start(with_pages(2000))
    await asyncio.sleep(600)
    status, reason, message = ready(api, ticket)
    assert (status, reason) == ("False", "StatusNotWritten")
    assert str(error) in message
    assert api.read(TICKET, ticket)["status"]["phase"] == "p" * 10, "the rest of the stored status stays"
    assert ("Warning", "StatusNotWritten", message) in events(api)


async def test_a_status_that_can_never_be_written_is_reported_by_an_event(
    api: ModelApi, ticket: ObjectKey, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """For example, the role lacks the permission."""
    refusing = Refusing(api, Forbidden(403, "Forbidden", "cannot patch tickets/status"), "status")
    await start()
    await asyncio.sleep(300)
    [(kind, reason, note)] = events(api)
    assert (kind, reason) == ("Warning", "StatusNotWritten")
    assert "cannot patch tickets/status" in note
    assert len([each for each in retries(caplog) if each.levelno >= logging.WARNING]) == 1, "logged once"
    assert refusing.tries < 50, "with back-off"


async def test_a_refused_last_status_does_not_prevent_the_deletion(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    api.put(TICKET, ticket.name, metadata={"finalizers": ["example.com/other"]})
    await start()
    Refusing(api, ServerError(500, "InternalError", "failed calling webhook"), "status")
    api.remove(TICKET, ticket)
    await asyncio.sleep(60)
    assert api.read(TICKET, ticket)["metadata"]["finalizers"] == ["example.com/other"]
    assert "failed calling webhook" in events(api)[0][2]


async def test_a_paused_object_whose_status_is_refused_is_reported(
    api: ModelApi, ticket: ObjectKey, start: Start
) -> None:
    api.put(TICKET, ticket.name, metadata={"annotations": {"pilothouse.dev/paused": "true"}})
    Refusing(api, POLICY, "status")
    await start()
    await asyncio.sleep(60)
    assert "every Ticket needs the label team" in events(api)[0][2]


async def test_a_timeout_is_reported_by_an_event_if_the_status_cannot_be_written(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    airline.before = Airline.delay(1000)
    Refusing(api, POLICY, "status")
    await start(playbook(airline))
    await asyncio.sleep(125)
    assert ("Warning", "Timeout") in [each[:2] for each in events(api)]
