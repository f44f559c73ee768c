"""Scenarios of the fault matrix on a real API server, without faults: at each step all is as on the model."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType, Resource
from pilothouse.playbook import Play, Playbook, Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import Faults, Json, ModelApi, Process, Scenario, eventually, play
from pilothouse.testing.collection import Collection
from pilothouse.testing.threads import await_on
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.faults.test_flight_ticket import HeldTicket, TicketLife
from tests.running import running
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay
from tests.unit.playbook.test_modules_faults import configure, guard
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class User:
    """Does in a namespace of a real API server what a scenario's user does on the model. Used in a thread."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self._loop = asyncio.get_running_loop()

    def put(self, resource: Resource[Any], name: str, **fields: Any) -> ObjectKey:
        key = ObjectKey(self._namespace, name)
        metadata = {**fields.pop("metadata", {}), "name": name}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, **fields}
        try:
            await_on(self._loop, self._client.patch(resource, key, body, type=PatchType.MERGE))
        except NotFound:
            await_on(self._loop, self._client.create(resource, body, namespace=self._namespace))
        return key

    def read(self, resource: Resource[Any], key: ObjectKey) -> Any:
        path = resource.path(key.namespace, key.name)
        return json.loads(await_on(self._loop, self._client.request("GET", path)))

    def remove(self, resource: Resource[Any], key: ObjectKey) -> None:
        await_on(self._loop, self._client.delete(resource, key))


@asynccontextmanager
async def operator(client: Client, namespace: str, watches: Sequence[Watch]) -> AsyncIterator[None]:
    settings = Settings(watch_namespaces=(namespace,), health_host="127.0.0.1", health_port=0)
    manager = Manager("operator", settings, client)
    for watch in watches:
        add_watch(manager, watch)
    async with running(manager, within=20):
        yield


async def stored(client: Client, namespace: str, resources: Sequence[Resource[Any]]) -> Any:
    """What a scenario's state looks at, as it is on a real API server."""
    collections = [Collection(resource) for resource in resources]
    for collection in collections:
        kind = collection.resource
        for each in json.loads(await client.request("GET", kind.path(namespace)))["items"]:
            each["metadata"].pop("managedFields", None)
            # Lists of the server's own kinds leave them out.
            named = {"apiVersion": kind.api_version, "kind": kind.kind, **each}
            collection.objects[ObjectKey(namespace, each["metadata"]["name"])] = named
    return SimpleNamespace(server=SimpleNamespace(collections=lambda: collections))


def told(state: object, effects: Sequence[str], namespace: str = "default") -> Any:
    """What is compared: no UID, no namespace."""
    text = msgspec.json.encode([state, sorted(effects)]).decode()
    return json.loads(_UID.sub("UID", text).replace(namespace, "NAMESPACE"))


class OwnerLife(Scenario):
    """What a ticket owns is made, changed, deleted, put right, left alone and made again.

    The ticket is not deleted: behind the real API server nothing follows owners.
    """

    def watches(self, process: Process) -> Sequence[Watch]:
        owner: Playbook[TicketPlay] = Playbook(Play, tasks=[configure, guard])
        return [Watch(TICKET, owner, owns=[CONFIG_MAP])]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "t", spec={"seats": 7})
        yield "made"
        user.put(TICKET, "t", spec={"seats": 2})
        yield "changed, and one deleted"
        user.put(CONFIG_MAP, "t", data={"seats": "many"}, metadata={"labels": {"of": "others"}})
        yield "put right, but for what is others'"
        user.put(CONFIG_MAP, "t", data={"seats": "2", "more": "of others"})
        yield "left alone"
        user.remove(CONFIG_MAP, key)
        yield "made again"


@pytest.mark.parametrize(
    ("scenario", "definition", "kinds"),
    [
        (TicketLife, crd(FLIGHT_TICKET), [FLIGHT_TICKET.resource]),
        (HeldTicket, crd(FLIGHT_TICKET), [FLIGHT_TICKET.resource]),
        (OwnerLife, CRD, [TICKET, CONFIG_MAP]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
async def test_a_scenario_comes_to_the_same_at_every_step(
    client: Client,
    namespace: str,
    scenario: type[Scenario],
    definition: Json,
    kinds: Sequence[Resource[Any]],
) -> None:
    """Of scenarios in which every step settles."""
    modelled = await asyncio.to_thread(play, scenario())
    assert not modelled.failure
    await install(client, definition)
    played = scenario()
    user: Any = User(client, namespace)
    steps = played.play(user)
    name = await asyncio.to_thread(next, steps, None)
    async with operator(client, namespace, played.watches(Process(Faults()))):
        for step in modelled.steps:
            assert name == step.name
            expected = told(step.state, [*step.effects.elements()])

            async def is_as_expected(expected: Any = expected) -> bool:
                state = played.state(await stored(client, namespace, kinds))
                assert told(state, played.effects(), namespace) == expected
                return True

            await eventually(is_as_expected, within=40)
            name = await asyncio.to_thread(next, steps, None)
    assert name is None
