"""Scale, eviction, log, metadata-only views and lists: the requests to the server."""

from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import (
    ObjectKey,
    PartialObjectMetadata,
    PatchType,
    Resource,
    TooManyRequests,
    Undecodable,
    evict,
    pagination,
    pod_log,
    scale_of,
)
from tests.listing import listed
from tests.unit.kube.views import WIDGETS, body, status

KEY = ObjectKey("ns", "one")
WIDGET_METADATA = Resource(WIDGETS.group, "v1", "Widget", "widgets", PartialObjectMetadata)


async def test_scale(server, client):
    answer = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "one", "namespace": "ns"},
        "spec": {"replicas": 3},
        "status": {"replicas": 2, "selector": "app=one"},
    }
    server.will(web.json_response(answer))
    resource = scale_of(WIDGETS)
    scale = await client.get(resource, KEY, subresource="scale")
    assert (scale.spec.replicas, scale.status.replicas, scale.status.selector) == (3, 2, "app=one")
    patch = {"spec": {"replicas": 3}}
    assert await client.patch(resource, KEY, patch, type=PatchType.MERGE, subresource="scale") == scale
    assert {request.path for request in server.requests} == {WIDGETS.path("ns", "one", "scale")}


async def test_evict(server, client):
    server.will(web.json_response(status(201, "", "")))
    await evict(client, KEY, uid="u-1", grace_seconds=5)
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/api/v1/namespaces/ns/pods/one/eviction")
    assert server.bodies == [
        b'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"namespace":"ns","name":"one"},'
        b'"deleteOptions":{"preconditions":{"uid":"u-1"},"gracePeriodSeconds":5}}'
    ]


async def test_an_eviction_that_a_disruption_budget_refuses_is_raised(server, client):
    causes = [{"reason": "DisruptionBudget", "message": "the budget web needs 2 pods"}]
    refusal = status(429, "TooManyRequests", "Cannot evict pod", causes=causes)
    server.will(web.json_response(refusal, status=429))
    with pytest.raises(TooManyRequests) as caught:
        await evict(client, KEY)
    assert [cause.reason for cause in caught.value.causes] == ["DisruptionBudget"]
    assert len(server.requests) == 1


async def test_log(server, client):
    server.will(web.Response(body="gr\u00fc\u00dfe\n".encode() + b"\xff\n"))
    text = await pod_log(
        client,
        KEY,
        container="c",
        previous=True,
        tail_lines=5,
        since_seconds=60,
        timestamps=True,
        limit_bytes=9,
    )
    assert text == "gr\u00fc\u00dfe\n\ufffd\n"
    [request] = server.requests
    assert request.path == "/api/v1/namespaces/ns/pods/one/log"
    assert request.headers["Accept"] == "text/plain, */*"
    assert dict(request.query) == {
        "container": "c",
        "previous": "true",
        "tailLines": "5",
        "sinceSeconds": "60",
        "timestamps": "true",
        "limitBytes": "9",
    }


async def test_log_by_default_is_bounded(server, client):
    server.will(web.Response(body=b""))
    assert await pod_log(client, KEY) == ""
    assert dict(server.requests[0].query) == {"limitBytes": "1048576"}


async def test_a_view_of_the_metadata_requests_only_metadata(server, client):
    one = {"kind": "PartialObjectMetadata", "metadata": body("one", 7)["metadata"]}
    answers: list[Any] = [one, {"metadata": {"resourceVersion": "9"}, "items": [one]}]
    server.will(*map(web.json_response, answers), server.stream(), web.json_response(one))
    found = await client.get(WIDGET_METADATA, KEY)
    assert await listed(client, WIDGET_METADATA) == [found]
    async for _ in client.watch(WIDGET_METADATA, resource_version="9"):
        pass
    await client.patch(WIDGET_METADATA, KEY, {}, type=PatchType.MERGE)
    kinds = [request.headers["Accept"] for request in server.requests]
    asked = "application/json;as={};g=meta.k8s.io;v=v1,application/json"
    single = asked.format("PartialObjectMetadata")
    assert kinds == [single, asked.format("PartialObjectMetadataList"), single, single]


async def test_a_view_with_more_fields_requests_whole_objects(server, client):
    server.will(web.json_response(body("one", 7)))
    await client.get(WIDGETS, KEY)
    assert server.requests[0].headers.getall("Accept") == ["application/json"]


async def test_list_joins_the_pages(server, client):
    first = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": [body("a", 1), body("b", 2)]}
    last = {"metadata": {"resourceVersion": "9"}, "items": [body("c", 3)]}
    server.will(web.json_response(first), web.json_response(last))
    found = await listed(client, WIDGETS, namespace="ns", label_selector="a=b")
    assert [each.metadata.name for each in found] == ["a", "b", "c"]
    assert [request.query.get("continue") for request in server.requests] == [None, "more"]
    assert {request.query["labelSelector"] for request in server.requests} == {"a=b"}


def page_of(name: str, token: str) -> web.Response:
    items = [body(name, 1)] if name else []
    return web.json_response({"metadata": {"resourceVersion": "9", "continue": token}, "items": items})


@pytest.mark.parametrize(
    ("names", "tokens", "why"),
    [
        ("aaaa", "xxxx", "page 2 has the continue token of an earlier page"),
        ("abab", "xyxy", "page 3 has the continue token of an earlier page"),
        ("abab", "wxyz", "page 3 begins with ns/a, as an earlier page does"),
        ([""] * 200, map(str, range(200)), "101 pages in a row are empty, and more follow"),
        (map(str, range(200)), map(str, range(200)), "more pages follow after 150"),
    ],
)
async def test_a_list_without_an_end_is_refused(server, client, monkeypatch, names, tokens, why):
    monkeypatch.setattr(pagination, "MOST_PAGES", 150)
    server.will(*(page_of(*each) for each in zip(names, tokens, strict=True)))
    with pytest.raises(Undecodable, match=rf"the list of widgets.\S+ does not end: {why}"):
        await listed(client, WIDGETS, namespace="ns")


async def test_a_few_empty_pages_are_accepted(server, client):
    server.will(*(page_of(name, token) for name, token in zip(["", "a", ""], ["v", "w", ""], strict=True)))
    assert [each.metadata.name for each in await listed(client, WIDGETS, namespace="ns")] == ["a"]


async def test_a_list_without_a_limit_has_one_page(server, client):
    server.will(
        web.json_response({"metadata": {"resourceVersion": "9"}, "items": [body("a", 1), body("b", 2)]})
    )
    [page] = [page async for page in client.pages(WIDGETS, limit=0)]
    assert [each.metadata.name for each in page.items] == ["a", "b"]
    assert not {"limit", "continue"} & set(server.requests[0].query)
