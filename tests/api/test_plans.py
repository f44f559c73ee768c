"""Plans and waits against a real API server: their annotations are stored, and a spec put back is noticed."""

from typing import Any

import pytest

from pilothouse.kube import Client, ObjectKey, PatchType
from pilothouse.playbook import Plan, Play, Playbook, Watch, add_watch, task
from pilothouse.process import Manager, Settings
from pilothouse.testing import eventually
from tests.api.tickets import CRD
from tests.api.widgets import install
from tests.running import running
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay
from tests.unit.tickets import TICKET

PLAN = "plan.pilothouse.dev/tickets.upgrade"
WAIT = "wait.pilothouse.dev/tickets"


@task("the data is stored")
async def store(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": str(play.object.spec.seats)}})


@task("readers have followed")
async def follow(play: TicketPlay) -> None:
    play.wait_for("readers have followed", play.object.spec.seats != 7, within=3600)


@pytest.fixture(autouse=True)
async def kind(client: Client) -> None:
    await install(client, CRD)


async def test_a_spec_that_is_put_back_half_way_has_the_plan_run_again(
    client: Client, namespace: str
) -> None:
    key = ObjectKey(namespace, "t")
    body = {"apiVersion": TICKET.api_version, "kind": TICKET.kind, "metadata": {"name": "t"}}
    await client.create(TICKET, {**body, "spec": {"seats": 2}}, namespace=namespace)
    settings = Settings(watch_namespaces=(namespace,), health_host="127.0.0.1", health_port=0)
    manager = Manager("tickets", settings, client)
    plan: Plan[Any] = Plan("upgrade", [store, follow], on_change=lambda play: play.object.spec.seats)
    add_watch(manager, Watch(TICKET, Playbook(Play, tasks=[plan]), owns=[CONFIG_MAP]))

    async def state() -> tuple[str, str, str, bool]:
        """What is stored, Ready of the present spec, the plan's state, and whether a wait is recorded."""
        ticket = await client.get(TICKET, key)
        generation = ticket.metadata.generation
        of_spec = [each for each in ticket.status.conditions if each.observed_generation == generation]
        ready = of_spec[0].status if of_spec else ""
        data = (await client.get(CONFIG_MAP, key)).data["seats"]
        annotations = ticket.metadata.annotations
        return data, ready, annotations.get(PLAN, ""), WAIT in annotations

    async def reached(data: str, ready: str) -> bool:
        return (await state())[:2] == (data, ready)

    async def ask(seats: int) -> None:
        await client.patch(TICKET, key, {"spec": {"seats": seats}}, type=PatchType.MERGE)

    async with running(manager):
        await eventually(lambda: reached("2", "True"))
        finished = (await state())[2]
        await ask(7)
        await eventually(lambda: reached("7", "False"))
        plan_state, waits = (await state())[2:]
        assert (plan_state.startswith("InProgress-"), waits) == (True, True)
        await ask(2)
        await eventually(lambda: reached("2", "True"))
        assert (await state())[2:] == (finished, False)
