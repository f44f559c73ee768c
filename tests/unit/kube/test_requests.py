"""Requests over a real connection: credentials, timeouts and retries."""

import asyncio
import json
import socket

import pytest
from aiohttp import web

from pilothouse.kube import (
    ApiError,
    Client,
    ClientConfig,
    FileToken,
    Invalid,
    NotFound,
    ObjectKey,
    PatchType,
    Resource,
    ServerError,
    StaticToken,
    TlsFiles,
    TooManyRequests,
    Unauthorized,
    Undecodable,
    Unreachable,
    Unstructured,
)
from pilothouse.telemetry import metrics
from tests.unit.kube.authority import Authority
from tests.unit.kube.conftest import drop
from tests.unit.kube.views import WIDGETS, body, status

KEY = ObjectKey("ns", "one")
ONE = body("one", 7)


def ok(value: object = ONE) -> web.Response:
    return web.json_response(value)


def refuse(
    code: int, reason: str = "", headers: dict[str, str] | None = None, **details: object
) -> web.Response:
    return web.json_response(status(code, reason, f"no: {reason}", **details), status=code, headers=headers)


async def test_get_reads_the_view(server, client):
    server.will(ok())
    one = await client.get(WIDGETS, KEY)
    assert (one.metadata.key, one.metadata.resource_version, one.spec.size) == (KEY, "7", 1)
    [request] = server.requests
    assert request.path == "/apis/testing.pilothouse.dev/v1/namespaces/ns/widgets/one"
    assert request.headers["User-Agent"] == "tests/1"
    assert "Authorization" not in request.headers


async def test_patch_sends_its_type_and_field_manager(server, client):
    server.will(ok())
    await client.patch(
        WIDGETS, KEY, {"spec": {"size": 2}}, type=PatchType.APPLY, subresource="status", force=True
    )
    [request] = server.requests
    assert request.method == "PATCH"
    assert request.path.endswith("/widgets/one/status")
    assert dict(request.query) == {"fieldManager": "tests", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert server.bodies == [b'{"spec":{"size":2}}']


async def test_a_body_over_1_mib_is_sent_whole(server, client):
    """A custom resource may have up to 1.5 MiB. aiohttp's warning about such bodies would fail the test."""
    large = {"data": {"text": "x" * 1_400_000}}
    server.will(ok())
    await client.patch(WIDGETS, KEY, large, type=PatchType.MERGE)
    assert [json.loads(sent) for sent in server.bodies] == [large]
    assert server.requests[-1].content_type == "application/merge-patch+json"


async def test_a_dry_run_is_requested(server, client):
    server.will(ok())
    await client.patch(WIDGETS, KEY, {}, type=PatchType.APPLY, dry_run=True)
    [request] = server.requests
    assert dict(request.query) == {"fieldManager": "tests", "dryRun": "All"}


async def test_an_object_can_be_read_unstructured(server, client):
    whole = Resource(WIDGETS.group, WIDGETS.version, WIDGETS.kind, WIDGETS.plural, Unstructured)
    server.will(ok(), ok([1]))
    read = await client.get(whole, KEY)
    assert (read.metadata.key, read.content) == (KEY, ONE)
    with pytest.raises(Undecodable):
        await client.get(whole, KEY)


async def test_delete_sends_its_preconditions(server, client):
    server.will(ok({"kind": "Status", "status": "Success"}))
    await client.delete(WIDGETS, KEY, uid="u-1", grace_seconds=0)
    assert server.bodies == [
        b'{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background",'
        b'"preconditions":{"uid":"u-1"},"gracePeriodSeconds":0}'
    ]


@pytest.mark.parametrize("code", [500, 502, 503, 504])
async def test_get_is_retried_after_server_errors(server, client, code):
    server.will(refuse(code), refuse(code), ok())
    assert (await client.get(WIDGETS, KEY)).spec.size == 1
    assert len(server.requests) == 3


async def test_get_fails_after_five_attempts(server, client):
    server.will(refuse(500, "InternalError"))
    with pytest.raises(ServerError, match="InternalError"):
        await client.get(WIDGETS, KEY)
    assert len(server.requests) == 5


async def test_get_is_retried_after_a_lost_connection(server, client):
    server.will(drop, drop, ok())
    assert (await client.get(WIDGETS, KEY)).spec.size == 1


@pytest.mark.parametrize("failure", [refuse(500), refuse(503, headers={"Retry-After": "0"})])
async def test_a_write_is_not_retried_after_a_server_error(server, client, failure):
    server.will(failure, ok())
    with pytest.raises(ServerError):
        await client.create(WIDGETS, ONE, namespace="ns")
    assert len(server.requests) == 1


async def test_a_write_whose_response_was_lost_may_have_been_executed(server, client):
    server.will(drop, ok())
    with pytest.raises(Unreachable) as caught:
        await client.patch(WIDGETS, KEY, {}, type=PatchType.MERGE)
    assert caught.value.maybe_sent
    assert len(server.requests) == 1


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "POST", "PATCH"])
async def test_a_write_is_not_retried_on_a_reused_connection(server, client, verb):
    """By default, aiohttp would retry a PUT or DELETE there, possibly on another object of the same name."""
    server.will(ok(), drop, ok())
    await client.get(WIDGETS, KEY)
    with pytest.raises(Unreachable):
        await client.request(verb, WIDGETS.path(*KEY), body={})
    assert len(server.requests) == 2


async def test_a_write_to_a_closed_port_was_not_sent(connect):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = await connect(url=f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}") as caught:
        await client.create(WIDGETS, ONE, namespace="ns")
    assert not caught.value.maybe_sent


async def test_the_tls_settings_are_not_part_of_a_connection_error(tmp_path):
    authority = Authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = ClientConfig(f"https://127.0.0.1:{port}", tls=TlsFiles(ca_file=str(authority.ca_file)))
    async with Client(config, user_agent="test") as client:
        with pytest.raises(Unreachable, match=f"Cannot connect to host 127.0.0.1:{port} \\[") as caught:
            await client.create(WIDGETS, ONE, namespace="ns")
    assert "ssl" not in str(caught.value)


async def test_any_verb_respects_the_retry_after_of_a_429(server, client):
    server.will(refuse(429, "TooManyRequests", {"Retry-After": "1"}), ok())
    started = asyncio.get_running_loop().time()
    await client.create(WIDGETS, ONE, namespace="ns")
    assert 1.0 <= asyncio.get_running_loop().time() - started < 5.0
    assert len(server.requests) == 2


async def test_a_429_with_a_retry_after_beyond_the_timeout_is_raised(server, client):
    server.will(refuse(429, "TooManyRequests", {"Retry-After": "60"}))
    with pytest.raises(TooManyRequests) as caught:
        await client.get(WIDGETS, KEY)
    assert caught.value.retry_after == 60
    assert len(server.requests) == 1


async def test_a_refused_eviction_is_raised(server, client):
    server.will(refuse(429, "TooManyRequests", causes=[{"reason": "DisruptionBudget", "message": "budget"}]))
    with pytest.raises(TooManyRequests) as caught:
        await client.request("POST", "/api/v1/namespaces/ns/pods/p/eviction", body={})
    assert [cause.reason for cause in caught.value.causes] == ["DisruptionBudget"]
    assert len(server.requests) == 1


async def test_a_request_to_a_silent_server_times_out(server, client):
    async def hang(request: web.Request) -> web.StreamResponse:
        await server.closing.wait()
        return web.Response()

    server.will(hang)
    with pytest.raises(Unreachable, match=r"GET /version: .* timed out after"):
        await client.request("GET", "/version", deadline=0.2)
    server.closing.set()


async def test_a_request_to_a_slow_server_times_out(server, client):
    """The timeout is for the whole response. Single bytes do not extend it."""

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not server.closing.is_set():
            await response.write(b" ")
            await asyncio.sleep(0.02)
        return response

    server.will(trickle)
    with pytest.raises(Unreachable, match="timed out after"):
        await client.request("GET", "/version", deadline=0.2)
    server.closing.set()


async def test_the_token_is_read_again_when_refused(server, connect, tmp_path):
    path = tmp_path / "token"
    path.write_text("old\n")
    client = await connect(token=FileToken(path))
    server.will(ok())
    await client.get(WIDGETS, KEY)
    path.write_text("new\n")
    await client.get(WIDGETS, KEY)
    server.will(refuse(401, "Unauthorized"), ok())
    await client.create(WIDGETS, ONE, namespace="ns")
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer old", "Bearer old", "Bearer old", "Bearer new"]


async def test_a_bad_token_is_retried_once(server, connect):
    client = await connect(token=StaticToken("bad"))
    server.will(refuse(401, "Unauthorized"))
    with pytest.raises(Unauthorized):
        await client.get(WIDGETS, KEY)
    assert len(server.requests) == 2


async def test_the_error_for_a_response_that_does_not_fit_names_object_and_field(server, client):
    server.will(ok(body("one", 7, size="many")))
    with pytest.raises(Undecodable, match=r"ns/one cannot be read.*`int`.*\$\.spec\.size"):
        await client.get(WIDGETS, KEY)


async def test_invalid_names_every_field(server, client):
    causes = [
        {"field": "spec.size", "message": "must be at most 10", "reason": "FieldValueInvalid"},
        {"field": "spec.to", "message": "must differ from spec.from", "reason": "FieldValueForbidden"},
    ]
    server.will(refuse(422, "Invalid", causes=causes))
    with pytest.raises(Invalid) as caught:
        await client.create(WIDGETS, ONE, namespace="ns")
    assert [(cause.field, cause.message) for cause in caught.value.causes] == [
        ("spec.size", "must be at most 10"),
        ("spec.to", "must differ from spec.from"),
    ]


async def test_redirects_are_not_followed(server, client):
    server.will(web.Response(status=302, headers={"Location": "/elsewhere"}))
    with pytest.raises(ApiError) as caught:
        await client.get(WIDGETS, KEY)
    assert caught.value.status == 302
    assert len(server.requests) == 1


async def test_requests_are_counted(server, client):
    def count(code: str) -> float:
        labels = {"code": code, "method": "GET", "host": server.url.removeprefix("http://")}
        return metrics.REGISTRY.get_sample_value("rest_client_requests_total", labels) or 0

    # An earlier test's server may have had the same port.
    codes = ("500", "200", "404")
    before = [count(code) for code in codes]
    server.will(refuse(500), ok(), refuse(404, "NotFound"))
    await client.get(WIDGETS, KEY)
    with pytest.raises(NotFound):
        await client.get(WIDGETS, KEY)
    assert [count(code) - was for code, was in zip(codes, before, strict=True)] == [1, 1, 1]


async def test_a_closed_client_raises_an_error(server, connect):
    client = await connect()
    await client.__aexit__(None, None, None)
    with pytest.raises(RuntimeError, match="async with"):
        await client.get(WIDGETS, KEY)
