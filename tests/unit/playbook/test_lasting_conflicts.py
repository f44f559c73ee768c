"""Conflicts that last are reported on the object; single ones are not."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import Conflict, ObjectKey, PatchType
from pilothouse.playbook import Plan, Play, Playbook, Secondary, Watch, task
from pilothouse.testing import Call, ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.configured import (
    CONFIG_MAP,
    DEPLOYMENT,
    TicketPlay,
    named,
    operator,
    owned_by,
    playbook,
    ready,
)
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

WEBHOOK = Conflict(409, "Conflict", 'admission webhook "quota.team" denied the request: budget exceeded')


def reasons(api: ModelApi) -> set[str]:
    """The reasons of the Events."""
    return {each["reason"] for each in api.all(EVENT)}


class Webhook:
    """Answers matching writes with a conflict.

    Args:
        api: The API server.
        matches: Selects the writes.
        last: The number of conflicts; None: no limit.
    """

    def __init__(self, api: ModelApi, matches: Callable[[Call], bool], last: int | None = None) -> None:
        self.on = True
        self.denied = 0
        self._matches = matches
        self._last = last
        api.before = self._before

    async def _before(self, call: Call) -> None:
        if self.on and call.writes and self._matches(call) and self.denied != self._last:
            self.denied += 1
            raise WEBHOOK


def of_secondaries(call: Call) -> bool:
    return call.resource in (str(CONFIG_MAP), str(DEPLOYMENT))


def of_metadata(call: Call) -> bool:
    return call.resource == str(TICKET) and call.subresource == ""


def of_phase(call: Call) -> bool:
    return call.subresource == "status" and "phase" in call.body["status"]


async def apply(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"a": "1"}})


async def create(play: TicketPlay) -> None:
    await play.create(CONFIG_MAP, {"data": {"a": "1"}})


async def delete(play: TicketPlay) -> None:
    await play.delete(DEPLOYMENT, "web")


async def scale(play: TicketPlay) -> None:
    await play.scale(DEPLOYMENT, "web", 3)


async def patch(play: TicketPlay) -> None:
    await play.patch(DEPLOYMENT, "web", {"spec": {"paused": True}})


async def record(play: TicketPlay) -> None:
    await play.record(replace(play.status, phase="claimed"))


async def set_phase(play: TicketPlay) -> None:
    play.status = replace(play.status, phase="done")


async def nothing(play: TicketPlay) -> None:
    pass


@task("clean up")
async def clean_up(play: TicketPlay) -> None:
    pass


def with_finalizer() -> Playbook[Any]:
    return Playbook(Play, tasks=[named(nothing)], cleanup=[clean_up], finalizer="tests.dev/cleanup")


def with_plan() -> Playbook[Any]:
    plan: Plan[TicketPlay] = Plan("upgrade", [named(nothing)], on_change=lambda play: play.object.spec.seats)
    return Playbook(Play, tasks=[plan])


@pytest.mark.parametrize(
    ("book", "matches"),
    [
        *((playbook(module), of_secondaries) for module in (apply, create, delete, scale, patch)),
        (playbook(record), of_phase),
        (playbook(set_phase), of_phase),
        (with_finalizer(), of_metadata),
        (with_plan(), of_metadata),
    ],
    ids=["apply", "create", "delete", "scale", "patch", "record", "status", "finalizer", "plan"],
)
async def test_a_conflict_that_lasts_is_reported_until_it_ends(
    api: ModelApi, ticket: ObjectKey, book: Playbook[Any], matches: Callable[[Call], bool]
) -> None:
    api.put(DEPLOYMENT, "web", metadata=owned_by(api, ticket), spec={"replicas": 1})
    webhook = Webhook(api, matches)
    async with operator(api, book):
        await asyncio.sleep(600)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "Conflict")
        assert str(WEBHOOK) in message
        assert reasons(api) == {"Conflict"}
        assert 10 < webhook.denied < 40, "with back-off; a delete is tried twice"
        written = [call for call in api.writes if call.subresource == "status"]
        reports = [call for call in written if not of_phase(call)]
        assert len(reports) == 1, "written once"
        webhook.on = False
        await asyncio.sleep(1100)
        assert ready(api, ticket)[0] == "True"


async def test_a_ready_object_does_not_stay_ready_while_conflicts_last(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async def note(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})

    async with operator(api, playbook(note)):
        assert ready(api, ticket)[0] == "True"
        Webhook(api, of_secondaries)
        api.put(TICKET, ticket.name, spec={"seats": 3})
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "Conflict"


async def test_conflicts_during_a_deletion_are_reported(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, with_finalizer()):
        webhook = Webhook(api, of_metadata)
        api.remove(TICKET, ticket)
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "Conflict"
        assert reasons(api) == {"Conflict"}
        webhook.on = False
        await asyncio.sleep(200)
        assert not api.exists(TICKET, ticket)


async def test_conflicts_of_every_write_are_reported_by_an_event(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    Webhook(api, lambda call: call.resource == str(TICKET))
    async with operator(api, playbook(nothing)):
        await asyncio.sleep(600)
    assert reasons(api) == {"Conflict"}
    warnings = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len([each for each in warnings if str(WEBHOOK) in each]) <= 3


async def test_an_object_whose_status_is_not_ours_gets_an_event(api: ModelApi, ticket: ObjectKey) -> None:
    Webhook(api, of_secondaries)
    watch = Watch(TICKET, playbook(apply), owns=[CONFIG_MAP], writes_status=False)
    async with operating(api, watch):
        await asyncio.sleep(60)
        assert reasons(api) == {"Conflict"}
        assert "status" not in api.read(TICKET, ticket)


@pytest.mark.parametrize("conflicts", [1, 4, 7])
async def test_conflicts_that_soon_end_are_not_reported(
    api: ModelApi, ticket: ObjectKey, conflicts: int
) -> None:
    webhook = Webhook(api, of_secondaries, last=conflicts)
    async with operator(api, playbook(apply)):
        await asyncio.sleep(60)
    assert webhook.denied == conflicts
    assert reasons(api) == set()
    assert ready(api, ticket)[0] == "True"


async def test_conflicts_of_a_busy_object_are_not_reported(api: ModelApi, ticket: ObjectKey) -> None:
    """A client changes the object during a few reconciles in quick succession."""
    left = 6
    user = api.another_client("user")

    async def be_faster(call: Call) -> None:
        nonlocal left
        if call.subresource == "status" and left:
            left -= 1
            await user.patch(TICKET, ticket, {"spec": {"seats": 10 + left}}, type=PatchType.MERGE)

    api.before = be_faster
    async with operator(api, playbook(set_phase)):
        await asyncio.sleep(60)
    assert left == 0
    assert reasons(api) == set()
    assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize("module", ["patch", "apply"])
async def test_a_task_that_changes_its_own_object_is_no_other_client(
    api: ModelApi, ticket: ObjectKey, module: str
) -> None:
    async def touch(play: TicketPlay) -> None:
        number = str(int(play.object.metadata.annotations.get("number", "0")) + 1)
        body = {"metadata": {"annotations": {"number": number}}}
        if module == "patch":
            await play.patch(TICKET, ticket.name, body, owned=False)
        else:
            await play.apply(TICKET, body, owned=False, adopt=True)
        assert play.object.metadata.annotations["number"] == number

    async with operator(api, playbook(touch), watches=[Secondary(TICKET)]):
        await asyncio.sleep(120)
        assert ready(api, ticket)[:2] == ("True", "Reconciled")
        assert "Conflict" not in [each["reason"] for each in api.all(EVENT)]
