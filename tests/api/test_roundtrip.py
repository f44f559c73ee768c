"""What the API server accepts is decoded, and what is encoded it accepts, for whatever a schema lets in."""

import json
import os
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from etcd_operator.types import ETCD_CLUSTER
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api import Kind
from pilothouse.api.crd import crd, object_schema
from pilothouse.kube import Client, Invalid
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.unit.api.kitchen_sink import KITCHEN_SINK
from tests.unit.api.strategies import valid

pytestmark = ON_BOTH

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    derandomize="CI" in os.environ,
    # An example changes nothing (dryRun), so one namespace serves them all.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def parts(kind: Kind[Any], name: str, **known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of the spec or status of a kind; `known` are fields that rules say more about than schemas."""
    schema: dict[str, Any] = object_schema(kind)["properties"][name]
    fields = {field: valid(part) for field, part in schema["properties"].items()}
    return st.fixed_dictionaries({**known}, optional={n: s for n, s in fields.items() if n not in known})


async def accepted(
    client: Client, kind: Kind[Any], path: str, body: dict[str, Any], method: str = "POST"
) -> Any:
    """What the server makes of an object: pruned, with its defaults. What a rule refuses is no example."""
    resource = kind.resource
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
    rules = {rule["message"] for rule in _rules(object_schema(kind))}
    try:
        return json.loads(await client.request(method, path, params={"dryRun": "All"}, body=whole))
    except Invalid as error:
        causes = [cause.message for cause in error.causes]
        if not causes or not all(any(rule in message for rule in rules) for message in causes):
            raise
        reject()


def _rules(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [rule for each in schema for rule in _rules(each)]
    if not isinstance(schema, dict):
        return []
    return [*schema.get("x-kubernetes-validations", ()), *_rules(list(schema.values()))]


def same(kind: Kind[Any], name: str, stored: dict[str, Any]) -> dict[str, Any]:
    """Decodes an object, and returns the spec or status that is encoded of what was decoded."""
    decoded = msgspec.json.decode(json.dumps(stored), type=kind.resource.view)
    encoded: dict[str, Any] = json.loads(msgspec.json.encode(getattr(decoded, name)))
    return encoded


async def check_spec(client: Client, namespace: str, kind: Kind[Any], spec: dict[str, Any]) -> None:
    path = kind.resource.path(namespace)
    stored = await accepted(client, kind, path, {"metadata": {"name": "new"}, "spec": spec})
    encoded = same(kind, "spec", stored)
    again = await accepted(client, kind, path, {"metadata": {"name": "new"}, "spec": encoded})
    assert view(kind, again).spec == view(kind, stored).spec


def view(kind: Kind[Any], stored: dict[str, Any]) -> Any:
    return msgspec.json.decode(json.dumps(stored), type=kind.resource.view)


async def check_status(client: Client, namespace: str, kind: Kind[Any], status: dict[str, Any]) -> None:
    present = json.loads(await client.request("GET", kind.resource.path(namespace, "some")))
    path = kind.resource.path(namespace, "some", "status")
    stored = await accepted(client, kind, path, {**present, "status": status}, "PUT")
    encoded = same(kind, "status", stored)
    again = await accepted(client, kind, path, {**present, "status": encoded}, "PUT")
    assert view(kind, again).status == view(kind, stored).status


@pytest.fixture
async def tickets(client: Client, namespace: str) -> str:
    await install(client, crd(FLIGHT_TICKET))
    body = {
        "apiVersion": "flights.com/v1",
        "kind": "FlightTicket",
        "metadata": {"name": "some"},
        "spec": {"from": "a", "to": "b", "number": 1},
    }
    await client.request("POST", FLIGHT_TICKET.resource.path(namespace), body=body)
    return namespace


@pytest.fixture
async def sinks(client: Client, namespace: str) -> str:
    await install(client, crd(KITCHEN_SINK))
    resource = KITCHEN_SINK.resource
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "some"}}
    await client.request("POST", resource.path(namespace), body=body)
    return namespace


@pytest.fixture
async def clusters(client: Client, namespace: str) -> str:
    await install(client, crd(ETCD_CLUSTER))
    resource = ETCD_CLUSTER.resource
    body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "some"}}
    await client.request("POST", resource.path(namespace), body={**body, "spec": {"size": 1}})
    return namespace


def pods() -> st.SearchStrategy[Any]:
    schema: dict[str, Any] = object_schema(ETCD_CLUSTER)["properties"]["spec"]["properties"]["pod"]
    return st.none() | valid({**schema, "nullable": False}).map(lambda pod: {**pod, "ClusterDomain": ".a"})


CITY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)


@EXAMPLES
@given(spec=parts(FLIGHT_TICKET, "spec", **{"from": CITY, "to": CITY, "number": st.integers(1, 10)}))
async def test_the_spec_of_a_ticket(client: Client, tickets: str, spec: dict[str, Any]) -> None:
    await check_spec(client, tickets, FLIGHT_TICKET, spec)


@EXAMPLES
@given(status=parts(FLIGHT_TICKET, "status"))
async def test_the_status_of_a_ticket(client: Client, tickets: str, status: dict[str, Any]) -> None:
    await check_status(client, tickets, FLIGHT_TICKET, status)


@EXAMPLES
@given(spec=parts(KITCHEN_SINK, "spec"))
async def test_a_spec_of_everything(client: Client, sinks: str, spec: dict[str, Any]) -> None:
    await check_spec(client, sinks, KITCHEN_SINK, spec)


@EXAMPLES
@given(status=parts(KITCHEN_SINK, "status"))
async def test_a_status_of_everything(client: Client, sinks: str, status: dict[str, Any]) -> None:
    await check_status(client, sinks, KITCHEN_SINK, status)


@EXAMPLES
@given(
    spec=parts(
        ETCD_CLUSTER,
        "spec",
        size=st.integers(1, 7),
        version=st.sampled_from(["", "3.6.14"]),
        repository=st.sampled_from(["", "registry:5000/etcd"]),
        autoCompaction=st.fixed_dictionaries({}, optional={"retention": st.sampled_from(["1h", "8", ""])}),
        pod=pods(),
        TLS=st.sampled_from([None, {"static": None}, {"static": {"member": {"peerSecret": "a"}}}]),
    )
)
async def test_the_spec_of_an_etcd_cluster(client: Client, clusters: str, spec: dict[str, Any]) -> None:
    await check_spec(client, clusters, ETCD_CLUSTER, spec)


@EXAMPLES
@given(status=parts(ETCD_CLUSTER, "status", size=st.integers(0, 9)))
async def test_the_status_of_an_etcd_cluster(client: Client, clusters: str, status: dict[str, Any]) -> None:
    await check_status(client, clusters, ETCD_CLUSTER, status)
