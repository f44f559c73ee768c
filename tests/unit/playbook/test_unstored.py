"""A field of the status that the CRD of an earlier release lacks: the API server drops it silently."""

import asyncio
import logging
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import TicketPlay, operator, playbook, ready
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

NOT_STORED = (
    "False",
    "StatusNotStored",
    "The API server did not store status.booking. Apply the CRD of this operator's release, which declares "
    "the field.",
)


class Schema:
    """The fields of the status that the CRD lacks. The API server drops them from every write."""

    def __init__(self, api: ModelApi) -> None:
        self.lacks: set[str] = set()
        self.lacks_all = False
        self._patch = api.server.patch

    def patch(self, resource: Any, key: Any, body: Any, **keywords: Any) -> Any:
        if "status" in body:
            kept = {} if self.lacks_all else body["status"]
            body = {**body, "status": {name: kept[name] for name in kept.keys() - self.lacks}}
        return self._patch(resource, key, body, **keywords)


@pytest.fixture
def schema(api: ModelApi, monkeypatch: pytest.MonkeyPatch) -> Schema:
    made = Schema(api)
    monkeypatch.setattr(api.server, "patch", made.patch)
    return made


def writes(api: ModelApi) -> int:
    return len([call for call in api.writes if call.subresource == "status"])


def events(api: ModelApi) -> list[str]:
    return [each["note"] for each in api.all(EVENT) if each["reason"] == "StatusNotStored"]


async def book(play: TicketPlay) -> None:
    play.status = replace(play.status, booking="b1", phase="Booked")


async def test_a_dropped_field_is_reported_once_until_the_crd_declares_it(
    api: ModelApi, ticket: ObjectKey, schema: Schema, caplog: pytest.LogCaptureFixture
) -> None:
    schema.lacks = {"booking"}
    async with operator(api, playbook(book)):
        await asyncio.sleep(10)
        assert ready(api, ticket) == NOT_STORED
        assert api.read(TICKET, ticket)["status"]["phase"] == "Booked"
        assert writes(api) == 2
        await asyncio.sleep(3600)
        assert ready(api, ticket) == NOT_STORED, "it does not become True in between"
        assert writes(api) <= 2 + 3600 / 300
        assert events(api) == [NOT_STORED[2]]
        assert [each.levelno for each in caplog.records if "did not store" in each.message] == [
            logging.WARNING
        ]
        schema.lacks = set()
        await asyncio.sleep(300)
        assert ready(api, ticket)[:2] == ("True", "Reconciled")
        assert api.read(TICKET, ticket)["status"]["booking"] == "b1"
        done = writes(api)
        await asyncio.sleep(3600)
        assert writes(api) == done


async def test_a_crd_without_any_status_is_reported_by_an_event(
    api: ModelApi, ticket: ObjectKey, schema: Schema
) -> None:
    schema.lacks_all = True
    async with operator(api, playbook(book)):
        await asyncio.sleep(3600)
        [event] = events(api)
        assert "status.booking, status.conditions, status.observedGeneration, status.phase" in event
        assert writes(api) <= 2 + 3600 / 300


async def test_a_task_that_no_longer_sets_the_field_makes_the_object_ready(
    api: ModelApi, ticket: ObjectKey, schema: Schema
) -> None:
    async def book_some(play: TicketPlay) -> None:
        if play.object.spec.seats < 5:
            await book(play)

    schema.lacks = {"booking"}
    async with operator(api, playbook(book_some)):
        await asyncio.sleep(10)
        assert ready(api, ticket) == NOT_STORED
        api.put(TICKET, ticket.name, spec={"seats": 7})
        await asyncio.sleep(10)
        assert ready(api, ticket)[:2] == ("True", "Reconciled")
