"""Finalizers: invalid names are refused, and names that earlier releases stored are removed."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Watch, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.testing import ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.airline import FINALIZER, Airline, TicketPlay, playbook
from tests.unit.playbook.conftest import Start
from tests.unit.tickets import TICKET

OLD = "tests.dev/of-an-earlier-release"
OTHERS = "example.com/protection"


@task("nothing is left")
async def clean(play: TicketPlay) -> None:
    """Does nothing."""


def book(finalizer: str, retired: Sequence[str] = ()) -> Playbook[Any]:
    return Playbook(Play, tasks=[], cleanup=[clean], finalizer=finalizer, retired_finalizers=retired)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("cleanup", "it has no domain"),
        ("/cleanup", "DNS name"),
        ("Example.com/cleanup", "DNS name"),
        ("example..com/cleanup", "DNS name"),
        ("-a.com/cleanup", "DNS name"),
        ("a_b.com/cleanup", "DNS name"),
        (f"{'a' * 254}/cleanup", "253 characters"),
        ("example.com/", "63 letters"),
        ("example.com/a/b", "63 letters"),
        ("example.com/-a", "63 letters"),
        ("example.com/clean up", "63 letters"),
        (f"example.com/{'a' * 64}", "63 letters"),
        ("example.com/cleanup\n", "63 letters"),
        ("exämple.com/cleanup", "DNS name"),
    ],
)
def test_a_name_that_the_api_server_would_refuse_is_refused_at_start(name: str, why: str) -> None:
    with pytest.raises(
        PlaybookError, match=rf"The API server would refuse the finalizer .*{why}.*domain/name"
    ):
        book(name)
    with pytest.raises(PlaybookError, match=why):
        book(FINALIZER, [name])


@pytest.mark.parametrize("name", ["a/b", f"{'a' * 63}.com/{'b' * 63}", f"{'a' * 253}/c", "a.b-c.d/X_1.y-Z"])
def test_a_name_that_the_api_server_accepts_is_accepted(name: str) -> None:
    assert book(name).finalizers.current == name


def test_a_name_is_declared_once_and_retired_names_are_a_sequence() -> None:
    with pytest.raises(PlaybookError, match="declared twice"):
        book(FINALIZER, [FINALIZER])
    with pytest.raises(PlaybookError, match="declared twice"):
        book(FINALIZER, [OLD, OLD])
    with pytest.raises(TypeError, match=r"Pass a list: \['tests.dev/of"):
        book(FINALIZER, OLD)


@pytest.mark.usefixtures("virtual_time")
class TestRetired:
    """Objects with a finalizer that an earlier release stored."""

    async def test_the_old_name_is_replaced_by_the_write_that_stores_the_new_one(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD, OTHERS]})
        await start(book(FINALIZER, [OLD]))
        assert api.read(TICKET, ticket)["metadata"]["finalizers"] == [OTHERS, FINALIZER]
        assert [call.subresource for call in api.writes] == ["", "status"]
        api.calls.clear()
        await start(book(FINALIZER, [OLD]), resync=10)
        await asyncio.sleep(60)
        assert api.calls == [], "a settled object costs no request"

    async def test_after_a_rollback_only_the_retired_name_is_removed(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [FINALIZER, OLD]})
        await start(book(FINALIZER, [OLD]))
        assert api.read(TICKET, ticket)["metadata"]["finalizers"] == [FINALIZER]

    async def test_an_object_with_only_the_old_name_is_cleaned_up(
        self, api: ModelApi, airline: Airline, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD]})
        airline.bookings[api.read(TICKET, ticket)["metadata"]["uid"]] = 2
        api.remove(TICKET, ticket)
        renamed = playbook(airline)
        await start(
            Playbook(
                renamed.play,
                tasks=renamed.tasks,
                cleanup=renamed.cleanup,
                finalizer=FINALIZER,
                retired_finalizers=[OLD],
            )
        )
        assert airline.effects == ["cancel"]
        assert not api.exists(TICKET, ticket)

    async def test_a_release_without_cleanup_removes_the_old_name(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        gone = api.put(TICKET, "gone", metadata={"finalizers": [OLD]})
        api.remove(TICKET, gone)
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD]})
        await start(Playbook(Play, tasks=[], retired_finalizers=[OLD]))
        assert not api.exists(TICKET, gone)
        assert api.read(TICKET, ticket)["metadata"].get("finalizers") is None

    async def test_an_unknown_finalizer_of_our_domain_on_a_deleted_object_is_reported_once(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD, OTHERS]})
        theirs = api.put(TICKET, "theirs", metadata={"finalizers": [OTHERS]})
        api.remove(TICKET, ticket)
        api.remove(TICKET, theirs)
        await start(book("example.org/cleanup"), resync=10)
        await asyncio.sleep(1200)
        [event] = [each for each in api.all(EVENT) if each["regarding"]["name"] == ticket.name]
        assert event["reason"] == "UnknownFinalizer"
        assert f"because of the finalizer {OLD}, which this release" in event["note"]
        assert "retired_finalizers" in event["note"]

    async def test_an_unknown_finalizer_on_a_deleted_object_that_cannot_be_decoded_is_reported(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD]}, spec={"seats": "many"})
        api.remove(TICKET, ticket)
        await start(book("example.org/cleanup"), resync=10)
        await asyncio.sleep(60)
        [event] = api.all(EVENT)
        assert (event["reason"], event["regarding"]["name"]) == ("UnknownFinalizer", ticket.name)

    @pytest.mark.parametrize("spec", [{"seats": 2}, {"seats": "many"}], ids=["decodable", "undecodable"])
    async def test_an_unknown_finalizer_is_logged_once_before_its_objects_are_deleted(
        self,
        api: ModelApi,
        ticket: ObjectKey,
        start: Start,
        caplog: pytest.LogCaptureFixture,
        spec: dict[str, Any],
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD, OTHERS]}, spec=spec)
        api.put(TICKET, "second", metadata={"finalizers": [OLD]})
        await start(book(FINALIZER), resync=10)
        await asyncio.sleep(100)
        [line] = [each.getMessage() for each in caplog.records if "Found the finalizer" in each.getMessage()]
        assert line.startswith(f"Found the finalizer {OLD}, which")

    async def test_the_finalizer_of_another_watch_of_the_operator_is_known(
        self, api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
    ) -> None:
        one, two = (
            Watch(TICKET, book(f"tests.dev/{name}"), name=name, writes_status=False)
            for name in ("one", "two")
        )
        async with operating(api, one, two):
            await asyncio.sleep(10)
            found = api.read(TICKET, ticket)["metadata"]["finalizers"]
            assert sorted(found) == ["tests.dev/one", "tests.dev/two"]
            assert "Found the finalizer" not in caplog.text

    async def test_names_of_others_stay(self, api: ModelApi, ticket: ObjectKey, start: Start) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OLD, OTHERS]})
        api.remove(TICKET, ticket)
        await start(book(FINALIZER, [OLD]))
        assert api.read(TICKET, ticket)["metadata"]["finalizers"] == [OTHERS]

    @pytest.mark.parametrize("own", [True, False], ids=["after our cleanup", "without our finalizer"])
    async def test_finalizers_of_others_on_a_deleted_object_are_shown_once(
        self, api: ModelApi, ticket: ObjectKey, start: Start, own: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        names = ["old.example.org/x", OTHERS, *([FINALIZER] if own else [])]
        api.put(TICKET, ticket.name, metadata={"finalizers": names})
        api.remove(TICKET, ticket)
        await start(book(FINALIZER), resync=10)
        await asyncio.sleep(50)
        assert api.all(EVENT) == [], "other controllers usually need some seconds"
        await asyncio.sleep(1200)
        [event] = api.all(EVENT)
        assert (event["type"], event["reason"]) == ("Normal", "FinalizersRemain")
        assert event["note"] == (
            "This operator has nothing left to do for the deletion. The object exists until other "
            f"controllers remove these finalizers: old.example.org/x, {OTHERS}. If an earlier release "
            "of this operator stored one of them, add it to the playbook's retired_finalizers."
        )
        assert "series" not in event
        assert caplog.text.count("remove these finalizers") == 1

    async def test_finalizers_of_others_that_are_removed_soon_are_not_reported(
        self, api: ModelApi, ticket: ObjectKey, start: Start
    ) -> None:
        api.put(TICKET, ticket.name, metadata={"finalizers": [OTHERS, FINALIZER]})
        await start(book(FINALIZER))
        api.remove(TICKET, ticket)
        await asyncio.sleep(30)
        api.put(TICKET, ticket.name, metadata={"finalizers": []})
        api.remove(TICKET, ticket)
        again = api.put(TICKET, ticket.name, metadata={"finalizers": [OTHERS]})
        await asyncio.sleep(600)
        assert api.exists(TICKET, again)
        assert api.all(EVENT) == []
