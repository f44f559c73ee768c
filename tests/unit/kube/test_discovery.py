"""Discovery finds resources by name."""

from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import Discovery, NotFound, PartialObjectMetadata, Resource


def served(plural: str, kind: str, *short: str, scope: str = "Namespaced") -> dict[str, Any]:
    return {
        "resource": plural,
        "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": scope,
        "singularResource": kind.lower(),
        "shortNames": list(short),
        "verbs": ["get"],
    }


def group(name: str, **versions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "versions": [{"version": each, "resources": kinds} for each, kinds in versions.items()],
    }


CORE = {
    "items": [group("", v1=[served("pods", "Pod", "po"), served("nodes", "Node", "no", scope="Cluster")])]
}
METRICS = group("metrics.k8s.io", v1beta1=[served("pods", "PodMetrics")])
TICKETS = group(
    "flights.com",
    v2=[served("tickets", "Ticket", "ft")],
    v1=[served("tickets", "Ticket", "ft"), served("old", "Old")],
)


@pytest.fixture
def discovery(server, client):
    server.will(web.json_response(CORE), web.json_response({"items": [METRICS, TICKETS]}))
    return Discovery(client)


@pytest.mark.parametrize("name", ["Ticket", "ticket", "tickets", "TICKETS", "ft", "ft.flights.com"])
async def test_any_name_of_a_kind_finds_it(discovery, name):
    expected = Resource("flights.com", "v2", "Ticket", "tickets", PartialObjectMetadata)
    assert await discovery.resolve(name, PartialObjectMetadata) == expected


async def test_the_core_group_has_precedence_and_another_can_be_selected(discovery):
    assert (await discovery.resolve("pods", PartialObjectMetadata)).api_version == "v1"
    found = await discovery.resolve("pods.metrics.k8s.io", PartialObjectMetadata)
    assert (found.api_version, found.kind) == ("metrics.k8s.io/v1beta1", "PodMetrics")
    assert not (await discovery.resolve("no", PartialObjectMetadata)).namespaced


async def test_discovery_is_repeated_only_for_an_unknown_name(server, discovery):
    await discovery.resolve("pods", PartialObjectMetadata)
    await discovery.resolve("ft", PartialObjectMetadata)
    assert [request.path for request in server.requests] == ["/api", "/apis"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert {request.headers["Accept"] for request in server.requests} == {accept}
    new = group("new.com", v1=[served("things", "Thing")])
    server.will(web.json_response(CORE), web.json_response({"items": [new]}))
    assert (await discovery.resolve("things", PartialObjectMetadata)).group == "new.com"
    assert len(server.requests) == 4


async def test_the_error_for_an_unknown_name_says_what_to_check(discovery):
    with pytest.raises(NotFound, match=r"'ghosts'.*kubectl api-resources"):
        await discovery.resolve("ghosts", PartialObjectMetadata)
