"""A field of the status that the CRD of an earlier release lacks, on a real API server, which prunes it."""

import copy
import json
from typing import Any

from msgspec.structs import replace

from pilothouse.api import Kind
from pilothouse.kube import Client, ObjectKey, Resource
from pilothouse.playbook import Play, Playbook, Watch, add_watch, task
from pilothouse.process import Manager, Settings
from pilothouse.testing import ApiServer, eventually
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.running import running
from tests.unit.tickets import Ticket, TicketStatus

pytestmark = ON_BOTH

# A group of its own, because the other tests need a CRD with all fields.
TICKET: Resource[Ticket] = Kind(Ticket, group="pruned.tests.dev", version="v1").resource


def earlier_crd() -> dict[str, Any]:
    """Returns the CRD of an earlier release, whose status has no booking."""
    crd = copy.deepcopy(CRD)
    crd["metadata"]["name"] = str(TICKET)
    crd["spec"]["group"] = TICKET.group
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]["properties"]["booking"]
    return crd


@task("seats are booked")
async def book(play: Play[Ticket, TicketStatus]) -> None:
    play.status = replace(play.status, booking="b1", phase="Booked")


async def test_a_pruned_field_is_reported_on_the_object(
    api_server: ApiServer, client: Client, namespace: str
) -> None:
    await install(client, earlier_crd())
    body = {"apiVersion": TICKET.api_version, "kind": TICKET.kind, "metadata": {"name": "t"}, "spec": {}}
    key = ObjectKey(namespace, (await client.create(TICKET, body, namespace=namespace)).metadata.name)
    status: dict[str, Any] = {}

    async def reported() -> bool:
        found = json.loads(await client.request("GET", TICKET.path(key.namespace, key.name)))
        status.update(found.get("status", {}))
        return "StatusNotStored" in json.dumps(status)

    async with Client(api_server.config(), user_agent="tickets/test") as own:
        settings = Settings(watch_namespaces=(namespace,), health_host="127.0.0.1", health_port=0)
        manager = Manager("tickets", settings, own)
        add_watch(manager, Watch(TICKET, Playbook(Play, tasks=[book])))
        async with running(manager):
            await eventually(reported)
    [ready] = status["conditions"]
    assert (ready["status"], ready["reason"]) == ("False", "StatusNotStored")
    assert ready["message"].startswith("The API server did not store status.booking. Apply the CRD")
    assert (status["phase"], "booking" in status) == ("Booked", False)
