"""Scenarios of the fault matrix on a real API server, without faults: at each step all is as on the model."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.controller import Manager, Settings
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType, Resource
from pilothouse.playbook import Watch, add_watch
from pilothouse.testing import Faults, Process, Scenario, eventually, play
from pilothouse.testing.collection import Collection
from pilothouse.testing.threads import await_on
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.faults.test_flight_ticket import HeldTicket, TicketLife
from tests.running import running

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


async def stored(client: Client, namespace: str, resource: Resource[Any]) -> Any:
    """What a scenario's state looks at, as it is on a real API server."""
    collection = Collection(resource)
    for each in json.loads(await client.request("GET", resource.path(namespace)))["items"]:
        each["metadata"].pop("managedFields", None)
        collection.objects[ObjectKey(namespace, each["metadata"]["name"])] = each
    return SimpleNamespace(server=SimpleNamespace(collections=lambda: [collection]))


def told(state: object, effects: Sequence[str], namespace: str = "default") -> Any:
    """What is compared: no UID, no namespace."""
    text = msgspec.json.encode([state, sorted(effects)]).decode()
    return json.loads(_UID.sub("UID", text).replace(namespace, "NAMESPACE"))


@pytest.mark.parametrize("scenario", [TicketLife, HeldTicket])
async def test_a_scenario_comes_to_the_same_at_every_step(
    client: Client, namespace: str, scenario: type[Scenario]
) -> None:
    """Of scenarios in which every step settles."""
    modelled = await asyncio.to_thread(play, scenario())
    assert not modelled.failure
    await install(client, crd(FLIGHT_TICKET))
    played = scenario()
    user: Any = User(client, namespace)
    steps = played.play(user)
    name = await asyncio.to_thread(next, steps, None)
    async with operator(client, namespace, played.watches(Process(Faults()))):
        for step in modelled.steps:
            assert name == step.name
            expected = told(step.state, [*step.effects.elements()])

            async def is_as_expected(expected: Any = expected) -> bool:
                state = played.state(await stored(client, namespace, FLIGHT_TICKET.resource))
                assert told(state, played.effects(), namespace) == expected
                return True

            await eventually(is_as_expected, within=40)
            name = await asyncio.to_thread(next, steps, None)
    assert name is None
