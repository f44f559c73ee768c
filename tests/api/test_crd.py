"""The FlightTicket's CRD on a real API server, as an upgrade of the CRD and tickets that users had before."""

import json
from typing import Any

import pytest

from flights_operator.types import FLIGHT_TICKET, FlightTicket, Phase
from pilothouse.api.crd import crd
from pilothouse.kube import Client, Invalid, KubeError, NotFound, ObjectKey, PatchType
from pilothouse.testing import eventually
from tests import seed
from tests.api.versions import ON_BOTH

pytestmark = ON_BOTH

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = f"{CRDS}/flighttickets.flights.com"
TICKETS = FLIGHT_TICKET.resource
OURS: dict[str, Any] = crd(FLIGHT_TICKET)


def ticket(name: str, spec: dict[str, Any] | None) -> dict[str, Any]:
    head = {"apiVersion": "flights.com/v1", "kind": "FlightTicket", "metadata": {"name": name}}
    return head if spec is None else {**head, "spec": spec}


# Specs that the earlier CRD accepts, although no flight can be booked with them.
OLD: dict[str, dict[str, Any] | None] = {
    "no-from": {"to": "London", "number": 2},
    "no-number": {"from": "Mumbai", "to": "London"},
    "empty-from": {"from": "", "to": "London", "number": 2},
    "empty": {},
    "no-spec": None,
}


async def remove(client: Client) -> None:
    """Deletes the kind with all tickets, so that each test begins without it."""

    async def gone() -> bool:
        try:
            await client.request("DELETE", NAME)
        except NotFound:
            return True
        return False

    await eventually(gone, within=90, every=0.1)


async def install_seed(client: Client) -> None:
    await client.request("POST", CRDS, body=seed.CRD)
    await eventually(lambda: client.request("GET", TICKETS.path()), within=90)


async def install_ours(client: Client, namespace: str) -> None:
    """Installs or replaces the CRD, as OLM does, and waits until it is effective."""
    try:
        present = json.loads(await client.request("GET", NAME))
    except NotFound:
        await client.request("POST", CRDS, body=OURS)
    else:
        metadata = {**OURS["metadata"], "resourceVersion": present["metadata"]["resourceVersion"]}
        await client.request("PUT", NAME, body={**OURS, "metadata": metadata})

    async def in_force() -> bool:
        body = ticket("probe", {"from": "Mumbai"})
        try:
            await client.request("POST", TICKETS.path(namespace), params={"dryRun": "All"}, body=body)
        except Invalid:
            return True
        return False

    await eventually(in_force, within=90, describe=lambda: client.request("GET", NAME))


@pytest.fixture(autouse=True)
async def without_the_kind(client: Client) -> None:
    await remove(client)


async def test_the_server_accepts_the_whole_crd(client: Client, namespace: str) -> None:
    await install_ours(client, namespace)
    stored = json.loads(await client.request("GET", NAME))
    assert "NonStructuralSchema" not in [condition["type"] for condition in stored["status"]["conditions"]]
    version, ours = stored["spec"]["versions"][0], OURS["spec"]["versions"][0]
    # No field was dropped as unknown.
    assert version["schema"] == ours["schema"]
    assert version["additionalPrinterColumns"] == ours["additionalPrinterColumns"]
    assert stored["spec"]["names"] == OURS["spec"]["names"]


async def test_the_seeds_manifests_work_unchanged(client: Client, namespace: str) -> None:
    await install_seed(client)
    before = await client.create(TICKETS, seed.TICKET, namespace=namespace)
    await install_ours(client, namespace)
    kept = await client.get(TICKETS, before.metadata.key)
    assert (kept.metadata.uid, kept.spec) == (before.metadata.uid, before.spec)
    again = {**seed.TICKET, "metadata": {"name": "another"}}
    created = await client.create(TICKETS, again, namespace=namespace)
    assert (created.spec.from_, created.spec.to, created.spec.number) == ("Mumbai", "London", 2)


WRONG = (
    ({"to": "b", "number": 1}, "spec.from", "set the city that the flight starts from"),
    ({"from": "", "to": "b", "number": 1}, "spec.from", "set the city that the flight starts from"),
    ({"from": "a", "number": 1}, "spec.to", "set the city that the flight goes to"),
    ({"from": "a" * 101, "to": "b", "number": 1}, "spec.from", "use at most 100 characters for the city"),
    ({"from": "a", "to": "b" * 60_000, "number": 1}, "spec.to", "use at most 100 characters for the city"),
    ({"from": "a", "to": "b"}, "spec.number", "set the number of seats to book, 1 to 10"),
    ({"from": "a", "to": "b", "number": 0}, "spec.number", "greater than or equal to 1"),
    ({"from": "a", "to": "b", "number": 11}, "spec.number", "less than or equal to 10"),
    ({"from": "a", "to": "b", "number": "2"}, "spec.number", "must be of type integer"),
    (None, "spec", "set the flight to book"),
)


async def test_the_refusal_of_an_invalid_ticket_names_the_field(client: Client, namespace: str) -> None:
    await install_ours(client, namespace)
    for spec, field, message in WRONG:
        with pytest.raises(Invalid) as caught:
            await client.create(TICKETS, ticket("wrong", spec), namespace=namespace)
        causes = [(cause.field, cause.message) for cause in caught.value.causes]
        assert any(found == field and message in text for found, text in causes), (spec, causes)


async def test_an_old_incomplete_ticket_can_be_reconciled_and_deleted(client: Client, namespace: str) -> None:
    await install_seed(client)
    for name, spec in OLD.items():
        await client.create(TICKETS, ticket(name, spec), namespace=namespace)
    await install_ours(client, namespace)
    condition = {
        "type": "Ready",
        "status": "False",
        "reason": "InvalidSpec",
        "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = {"status": {"phase": "Failed", "conditions": [condition]}}
    for name in OLD:
        key = ObjectKey(namespace, name)
        held = await patch(client, key, {"metadata": {"finalizers": ["flights.com/booking"]}})
        assert held.metadata.finalizers == ("flights.com/booking",)
        written = await patch(client, key, status, subresource="status")
        assert written.status.phase is Phase.FAILED
        assert [found.reason for found in written.status.conditions] == ["InvalidSpec"]
        await client.delete(TICKETS, key)
        await patch(client, key, {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await client.get(TICKETS, key)


async def test_rules_apply_to_an_old_incomplete_ticket_once_its_spec_changes(
    client: Client, namespace: str
) -> None:
    await install_seed(client)
    before = await client.create(TICKETS, ticket("old", OLD["no-from"]), namespace=namespace)
    await install_ours(client, namespace)
    with pytest.raises(Invalid, match="set the city that the flight starts from"):
        await patch(client, before.metadata.key, {"spec": {"number": 3}})
    corrected = await patch(client, before.metadata.key, {"spec": {"from": "Mumbai"}})
    assert corrected.spec.from_ == "Mumbai"


async def test_a_spec_cannot_be_removed(client: Client, namespace: str) -> None:
    await install_ours(client, namespace)
    created = await client.create(TICKETS, seed.TICKET, namespace=namespace)
    with pytest.raises(KubeError, match="set the flight to book"):
        await patch(client, created.metadata.key, {"spec": None})


async def test_writes_of_status_and_spec_do_not_affect_each_other(client: Client, namespace: str) -> None:
    await install_ours(client, namespace)
    created = await client.create(
        TICKETS, {**seed.TICKET, "status": {"phase": "Booked"}}, namespace=namespace
    )
    assert created.status.phase is None
    key = created.metadata.key
    written = await patch(client, key, {"spec": {"number": 9}, "status": {"phase": "Booked"}}, "status")
    assert (written.spec.number, written.status.phase, written.metadata.generation) == (2, Phase.BOOKED, 1)


async def patch(client: Client, key: ObjectKey, body: object, subresource: str = "") -> FlightTicket:
    return await client.patch(TICKETS, key, body, type=PatchType.MERGE, subresource=subresource)
