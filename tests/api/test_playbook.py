"""Manager, controller and playbook engine against a real API server."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.controller.lease import LEASE
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType
from pilothouse.playbook import PAUSED, Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, eventually, objects
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.running import running
from tests.unit.playbook.airline import FINALIZER, Airline, playbook
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH

TICKETS = 200


class CountingClient(Client):
    """Counts the requests of an operator."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.counts: Counter[str] = Counter()

    async def get(self, resource: Any, key: ObjectKey, **options: Any) -> Any:
        self.counts["get"] += 1
        return await super().get(resource, key, **options)

    async def patch(self, resource: Any, key: ObjectKey, body: object, **options: Any) -> Any:
        self.counts[f"patch {resource.plural}/{options.get('subresource', '')}"] += 1
        return await super().patch(resource, key, body, **options)

    async def create(self, resource: Any, body: object, **options: Any) -> Any:
        self.counts[f"create {resource.plural}"] += 1
        return await super().create(resource, body, **options)


@pytest.fixture(autouse=True)
async def kind(client: Client) -> None:
    await install(client, CRD)


@asynccontextmanager
async def operator(
    api_server: ApiServer, namespace: str, airline: Airline, **settings: Any
) -> AsyncIterator[CountingClient]:
    async with CountingClient(api_server.config(), user_agent="tickets/test") as client:
        chosen = Settings(
            watch_namespaces=(namespace,),
            health_host="127.0.0.1",
            health_port=0,
            pod_namespace=namespace,
            pod_name="pod-1",
            **settings,
        )
        manager = Manager("tickets", chosen, client)
        add_watch(manager, Watch(TICKET, playbook(airline)))
        async with running(manager):
            yield client


def ticket(name: str, seats: int, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": TICKET.api_version,
        "kind": TICKET.kind,
        "metadata": {"name": name, **metadata},
        "spec": {"seats": seats},
    }


async def raw(client: Client, key: ObjectKey) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await client.request("GET", TICKET.path(*key)))
    return found


async def create(client: Client, namespace: str, name: str, seats: int, **metadata: Any) -> ObjectKey:
    made = await client.create(TICKET, ticket(name, seats, **metadata), namespace=namespace)
    return made.metadata.key


async def wait_ready(client: Client, key: ObjectKey, generation: int = 1) -> dict[str, Any]:
    async def ready() -> dict[str, Any]:
        obj = await raw(client, key)
        conditions = obj.get("status", {}).get("conditions", [])
        is_ready = any(
            each["status"] == "True" and each["observedGeneration"] == generation for each in conditions
        )
        return obj if is_ready else {}

    found: dict[str, Any] = await eventually(ready, describe=objects(client, TICKET, key.namespace))
    return found


async def test_a_ticket_lives_from_creation_to_deletion(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    airline = Airline()
    async with operator(api_server, namespace, airline) as own:
        key = await create(client, namespace, "my-ticket", 2)
        obj = await wait_ready(client, key)
        assert obj["metadata"]["finalizers"] == [FINALIZER]
        assert obj["status"]["phase"] == "Booked"
        assert airline.bookings == {obj["metadata"]["uid"]: 2}
        await client.patch(TICKET, key, {"spec": {"seats": 3}}, type=PatchType.MERGE)
        await wait_ready(client, key, generation=2)
        assert airline.bookings == {obj["metadata"]["uid"]: 3}
        await client.delete(TICKET, key)

        async def gone() -> bool:
            try:
                await raw(client, key)
            except NotFound:
                return True
            return False

        await eventually(gone, describe=objects(client, TICKET, namespace))
        assert airline.effects == ["book", "change", "cancel"]
        assert own.counts == {"patch tickets/": 2, "patch tickets/status": 2}


async def test_many_tickets_cost_two_writes_each_and_a_restart_none(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    airline = Airline()
    expected = {"patch tickets/": TICKETS, "patch tickets/status": TICKETS}
    async with operator(api_server, namespace, airline) as own:
        keys = await asyncio.gather(*(create(client, namespace, f"ticket-{n}", 1) for n in range(TICKETS)))

        async def all_written() -> bool:
            return own.counts["patch tickets/status"] >= TICKETS

        await eventually(all_written, within=60, describe=lambda: dict(own.counts))
        for key in keys:
            await wait_ready(client, key)
        assert len(airline.bookings) == TICKETS
        assert own.counts == expected
    async with operator(api_server, namespace, airline) as own:
        newest = await create(client, namespace, "after-the-restart", 1)
        await wait_ready(client, newest)

        async def written() -> bool:
            return own.counts == {"patch tickets/": 1, "patch tickets/status": 1}

        await eventually(written, describe=lambda: dict(own.counts))
        assert airline.effects == ["book"] * (TICKETS + 1)


async def test_a_failure_shows_as_condition_and_event(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    airline = Airline()
    async with operator(api_server, namespace, airline):
        key = await create(client, namespace, "greedy", 11)

        async def failed() -> bool:
            conditions = (await raw(client, key)).get("status", {}).get("conditions", [])
            return any(each["reason"] == "TooManySeats" for each in conditions)

        await eventually(failed, describe=objects(client, TICKET, namespace))

        async def reported() -> list[dict[str, Any]]:
            path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
            found: list[dict[str, Any]] = json.loads(await client.request("GET", path))["items"]
            return found

        [event] = await eventually(reported)
        assert event["regarding"]["name"] == "greedy"
        assert event["note"] == "11 seats: ask for 10 at most."
        await client.patch(TICKET, key, {"spec": {"seats": 1}}, type=PatchType.MERGE)
        await wait_ready(client, key, generation=2)


async def test_a_paused_ticket_waits(api_server: ApiServer, client: Client, namespace: str) -> None:
    airline = Airline()
    async with operator(api_server, namespace, airline):
        paused = await create(client, namespace, "paused", 1, annotations={PAUSED: "true"})
        other = await create(client, namespace, "other", 1)
        await wait_ready(client, other)
        conditions = (await raw(client, paused))["status"]["conditions"]
        assert [(each["status"], each["reason"]) for each in conditions] == [("Unknown", "Paused")]
        await client.patch(
            TICKET, paused, {"metadata": {"annotations": {PAUSED: None}}}, type=PatchType.MERGE
        )
        await wait_ready(client, paused)


async def test_a_graceful_stop_gives_the_lease_up(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    airline = Airline()
    key = await create(client, namespace, "t", 1)
    async with operator(api_server, namespace, airline, leader_elect=True):
        await wait_ready(client, key)
        lease = await client.get(LEASE, ObjectKey(namespace, "tickets"))
        assert lease.spec.holder_identity.startswith("pod-1_")
    lease = await client.get(LEASE, ObjectKey(namespace, "tickets"))
    assert lease.spec.holder_identity == ""
