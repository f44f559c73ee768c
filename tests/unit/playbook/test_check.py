"""Check mode reports what would change, and changes nothing."""

import asyncio

import msgspec
import pytest

from pilothouse.controller import EventRecorder
from pilothouse.informer import Store
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Playbook, Reconciler, State, TaskFailed, task
from pilothouse.testing import ModelApi
from tests.unit.playbook.airline import Airline, TicketPlay, playbook
from tests.unit.playbook.conftest import Start
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


def reconciler(
    api: ModelApi, airline: Airline, book: Playbook[TicketPlay] | None = None
) -> Reconciler[Ticket]:
    store: Store[Ticket] = Store("tickets")
    return Reconciler(api, TICKET, store, book or playbook(airline), EventRecorder(api, "tests"))


def present(api: ModelApi, key: ObjectKey) -> Ticket:
    return msgspec.convert(api.read(TICKET, key), Ticket)


async def test_nothing_is_written_and_all_changes_are_reported(
    api: ModelApi, airline: Airline, ticket: ObjectKey
) -> None:
    before = dict(api.read(TICKET, ticket))
    recap, status = await reconciler(api, airline).check(present(api, ticket))
    assert api.calls == []
    assert airline.effects == []
    assert api.read(TICKET, ticket) == before
    assert [result.state for result in recap.results] == [State.OK, State.OK, State.CHANGED]
    assert recap.results[2].diff == ("+ 2 seats",)
    assert status["phase"] == "Booked"
    assert "ok=2 changed=1" in str(recap)


async def test_a_settled_object_shows_no_change(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    await start()
    recap, status = await reconciler(api, airline).check(present(api, ticket))
    assert not recap.eventful
    assert status == {}


async def test_a_deletion_is_checked_too(
    api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
) -> None:
    process = await start()
    process.cancel()
    await asyncio.wait([process])
    api.remove(TICKET, ticket)
    recap, _ = await reconciler(api, airline).check(present(api, ticket))
    assert [result.task for result in recap.results] == ["booking is known", "booking is cancelled"]
    assert recap.results[-1].diff == ("- booking",)
    assert airline.effects == ["book"]
    assert api.exists(TICKET, ticket)


async def test_only_the_failure_is_reported(api: ModelApi, airline: Airline) -> None:
    @task("fails")
    async def fails(play: TicketPlay) -> None:
        raise TaskFailed("Broken", "It is broken.", permanent=True)

    key = api.put(TICKET, "t")
    book = playbook(airline)
    failing = Playbook(book.play, tasks=[fails])
    recap, status = await reconciler(api, airline, failing).check(present(api, key))
    assert recap.failure is not None
    assert recap.failure.reason == "Broken"
    assert status["phase"] == "Failed"
    assert api.calls == []
