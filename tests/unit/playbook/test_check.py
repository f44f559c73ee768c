"""Check mode reports what would change, and changes nothing."""

import asyncio
import re

import msgspec
import pytest

from pilothouse.cli.by_hand import Hand
from pilothouse.controller import EventRecorder
from pilothouse.informer import Store
from pilothouse.kube import ApiError, BadRequest, Forbidden, Invalid, NotFound, ObjectKey
from pilothouse.playbook import Playbook, Recap, Reconciler, State, TaskFailed, Watch, task
from pilothouse.process import Settings
from pilothouse.testing import Call, ModelApi
from tests.unit.playbook import configured
from tests.unit.playbook.airline import Airline, TicketPlay, playbook
from tests.unit.playbook.configured import CONFIG_MAP
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


# Objects that do not exist yet.


async def apply_web(play: configured.TicketPlay) -> None:
    found = await play.apply(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"a": "1"}})
    play.ok(f"uid {found.metadata.uid}")


async def create_web(play: configured.TicketPlay) -> None:
    found = await play.create(CONFIG_MAP, {"metadata": {"name": "web"}, "data": {"a": "1"}})
    play.ok(f"uid {found.metadata.uid}")


async def checked(api: ModelApi, key: ObjectKey, function: configured.Function) -> Recap:
    watch = Watch(TICKET, configured.playbook(function), owns=[CONFIG_MAP])
    before = api.version
    recap = (await Hand("tickets", Settings(), api).check(watch, key)).recap
    assert (api.version, api.writes) == (before, []), "nothing is changed"
    [sent] = [call for call in api.calls if call.dry_run]
    assert sent.resource == "configmaps"
    return recap


@pytest.mark.parametrize("function", [apply_web, create_web])
async def test_a_creation_is_tried_with_a_dry_run(
    api: ModelApi, ticket: ObjectKey, function: configured.Function
) -> None:
    [result] = (await checked(api, ticket, function)).results
    assert (result.state, result.diff) == (State.CHANGED, ("+ data.a: 1",))
    assert re.fullmatch("create ConfigMap web; uid .+", result.message), "as the API server would store it"


@pytest.mark.parametrize("function", [apply_web, create_web])
@pytest.mark.parametrize(
    "refusal",
    [
        Invalid(422, "Invalid", 'ConfigMap "web" is invalid: data[a]: too long'),
        Forbidden(403, "Forbidden", 'configmaps "web" is forbidden: exceeded quota: small, requested: 1'),
        Forbidden(403, "Forbidden", 'admission webhook "w.example" denied the request: the user cannot'),
        BadRequest(400, "BadRequest", 'admission webhook "w.example" denied the request: no team'),
    ],
    ids=["validation", "quota", "webhook", "webhook-400"],
)
async def test_what_the_server_would_refuse_fails_the_check(
    api: ModelApi, ticket: ObjectKey, function: configured.Function, refusal: ApiError
) -> None:
    async def refuse(call: Call) -> None:
        if call.dry_run:
            raise refusal

    api.before = refuse
    failure = (await checked(api, ticket, function)).failure
    assert failure is not None
    assert refusal.message in failure.message


@pytest.mark.parametrize("function", [apply_web, create_web])
@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (
            NotFound(404, "NotFound", 'namespaces "b" not found'),
            "the namespace b does not exist. Unless an earlier task creates it, the task will fail.",
        ),
        (NotFound(404, "", "404 page not found"), "install its CustomResourceDefinition"),
        (
            Forbidden(
                403,
                "Forbidden",
                'configmaps "web" is forbidden: User "jane" cannot patch resource "configmaps" in API group '
                '"" in the namespace "default"',
            ),
            "Grant this permission, or run the command with the credentials of the operator.",
        ),
        (
            BadRequest(400, "BadRequest", 'admission webhook "w.example" does not support dry run'),
            "Declare sideEffects: None for the webhook",
        ),
    ],
    ids=["namespace", "kind", "right", "webhook"],
)
async def test_a_creation_that_cannot_be_tried_is_reported_in_a_sentence(
    api: ModelApi, ticket: ObjectKey, function: configured.Function, refusal: ApiError, words: str
) -> None:
    async def refuse(call: Call) -> None:
        if call.dry_run:
            raise refusal

    api.before = refuse
    recap = await checked(api, ticket, function)
    [result] = recap.results
    assert recap.failure is None
    assert (result.state, result.diff) == (State.CHANGED, ("+ data.a: 1",))
    assert result.message.startswith("create ConfigMap web; the API server has not checked it: ")
    assert words in result.message
