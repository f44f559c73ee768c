"""Modules on the object that is reconciled: it cannot own itself, and no advice is to delete it."""

import asyncio

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import Function, TicketPlay, operator, playbook, ready
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

MANIFEST = {"metadata": {"name": "my-ticket"}, "spec": {"seats": 3}}
PATCH = "because it is the object that is reconciled. To change it, use play.patch(..., owned=False)."
NEEDS = "needs owned=False, because it is the object that is reconciled, which does not own itself."


async def apply(play: TicketPlay) -> None:
    await play.apply(TICKET, MANIFEST)


async def adopt(play: TicketPlay) -> None:
    await play.apply(TICKET, MANIFEST, adopt=True)


async def apply_unowned(play: TicketPlay) -> None:
    await play.apply(TICKET, MANIFEST, owned=False)


async def create(play: TicketPlay) -> None:
    await play.create(TICKET, MANIFEST)


async def delete(play: TicketPlay) -> None:
    await play.delete(TICKET, "my-ticket")


async def patch(play: TicketPlay) -> None:
    await play.patch(TICKET, "my-ticket", {"spec": {"seats": 3}})


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (apply, f"play.apply cannot own Ticket default/my-ticket, {PATCH}"),
        (adopt, f"play.apply cannot own Ticket default/my-ticket, {PATCH}"),
        (apply_unowned, f"play.apply cannot own Ticket default/my-ticket, {PATCH}"),
        (create, f"play.create cannot own Ticket default/my-ticket, {PATCH}"),
        (delete, f"play.delete of Ticket default/my-ticket {NEEDS}"),
        (patch, f"play.patch of Ticket default/my-ticket {NEEDS}"),
    ],
)
async def test_the_object_that_is_reconciled_does_not_own_itself(
    api: ModelApi, ticket: ObjectKey, function: Function, sentence: str
) -> None:
    async with operator(api, playbook(function), owns=[TICKET]):
        await asyncio.sleep(5)
        status, _, message = ready(api, ticket)
        assert status == "False"
        assert message.endswith(sentence)
        stored = api.read(TICKET, ticket)
        assert (stored["spec"]["seats"], stored["metadata"].get("ownerReferences")) == (2, None)


async def test_the_object_that_is_reconciled_can_be_patched(api: ModelApi, ticket: ObjectKey) -> None:
    async def patch_itself(play: TicketPlay) -> None:
        await play.patch(TICKET, "my-ticket", {"spec": {"seats": 3}}, owned=False)

    async with operator(api, playbook(patch_itself), owns=[TICKET]):
        await asyncio.sleep(5)
        assert ready(api, ticket)[0] == "True"
        assert api.read(TICKET, ticket)["spec"]["seats"] == 3
