"""The watch over a real connection: partial lines, ends of all kinds, silence, objects that do not fit."""

import json
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import ApiError, Client, Expired, ServerError, StaticToken, Unreachable, WatchEvent
from pilothouse.kube.transport import IDLE_SECONDS
from tests.unit.kube.views import WIDGETS, Widget, body, status


def line(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}, separators=(",", ":")).encode() + b"\n"


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"kind": "Widget", "metadata": {"resourceVersion": str(version)}})


async def collect(client: Client, into: list[WatchEvent[Widget]], **options: Any) -> None:
    events = client.watch(WIDGETS, resource_version="5", namespace="ns", **options)
    async with aclosing(events):
        async for event in events:
            into.append(event)  # noqa: PERF401 - what came before an error counts too


def brief(events: list[WatchEvent[Widget]]) -> list[tuple[str, str, str]]:
    return [(e.type.value, e.object.metadata.name if e.object else "", e.resource_version) for e in events]


async def test_events_in_order_until_the_server_ends_it(server, client):
    server.will(
        server.stream(
            line("ADDED", body("a", 6)) + line("MODIFIED", body("a", 7)),
            bookmark(9),
            line("DELETED", body("a", 10)),
        )
    )
    events: list[WatchEvent[Widget]] = []
    await collect(client, events, label_selector="x=y")
    assert brief(events) == [
        ("BOOKMARK", "", "5"),
        ("ADDED", "a", "6"),
        ("MODIFIED", "a", "7"),
        ("BOOKMARK", "", "9"),
        ("DELETED", "a", "10"),
    ]
    query = server.requests[0].query
    assert (query["watch"], query["allowWatchBookmarks"], query["resourceVersion"]) == ("1", "true", "5")
    assert query["labelSelector"] == "x=y"
    assert 40 <= int(query["timeoutSeconds"]) < IDLE_SECONDS <= 60, (
        "a watch that is silent for longer is stuck"
    )


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
async def test_lines_arrive_in_any_pieces(server, client, size):
    text = b"".join(line("ADDED", body(f"w{number}", 10 + number)) for number in range(5)) + b"\n"
    server.will(server.stream(*(text[start : start + size] for start in range(0, len(text), size))))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert [version for _, _, version in brief(events)[1:]] == ["10", "11", "12", "13", "14"]


async def test_a_line_of_a_megabyte(server, client):
    big = body("big", 6) | {"status": {"text": "x" * 1_000_000}}
    server.will(server.stream(line("ADDED", big) + bookmark(7)))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events)[1:] == [("ADDED", "big", "6"), ("BOOKMARK", "", "7")]


async def test_an_expired_version_in_the_stream(server, client):
    gone = status(410, "Expired", "too old resource version: 5 (9)")
    server.will(server.stream(line("ERROR", gone)))
    with pytest.raises(Expired, match="too old"):
        await collect(client, [])


async def test_an_expired_version_in_the_response(server, client):
    server.will(web.json_response(status(410, "Expired", "too old resource version"), status=410))
    events: list[WatchEvent[Widget]] = []
    with pytest.raises(Expired):
        await collect(client, events)
    assert events == [], "the watch was not accepted"
    assert len(server.requests) == 1, "the informer retries, not the client"


async def test_an_error_in_the_stream(server, client):
    server.will(server.stream(bookmark(6), line("ERROR", status(500, "InternalError", "etcd is away"))))
    with pytest.raises(ServerError, match="etcd is away"):
        await collect(client, [])


async def test_a_broken_connection(server, client):
    server.will(server.stream(line("ADDED", body("a", 6)), cut=True))
    events: list[WatchEvent[Widget]] = []
    with pytest.raises(Unreachable):
        await collect(client, events)


async def test_half_a_line_at_the_end_is_not_an_event(server, client):
    server.will(server.stream(line("ADDED", body("a", 6)) + line("ADDED", body("b", 7))[:40]))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events)[1:] == [("ADDED", "a", "6")]


async def test_silence_ends_the_stream(server, client):
    server.will(server.stream(line("ADDED", body("a", 6)), silent=True))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events, idle=0.2)
    assert brief(events)[1:] == [("ADDED", "a", "6")]
    server.closing.set()


async def test_an_object_that_does_not_fit_does_not_end_the_watch(server, client):
    bad, worse = body("bad", 6, size="many"), body("bad", 8, size="more")
    server.will(server.stream(line("MODIFIED", bad), line("ADDED", body("good", 7)) + line("DELETED", worse)))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events)[1:] == [("MODIFIED", "", "6"), ("ADDED", "good", "7"), ("DELETED", "", "8")]
    assert [event.misfit.metadata.key.name for event in events if event.misfit] == ["bad", "bad"]
    for misfit in [event.misfit for event in events if event.misfit]:
        assert misfit.why.startswith("Expected `int`, got `str`")
        assert "$.spec.size" in misfit.why


async def test_the_order_of_a_lines_fields_does_not_matter(server, client):
    turned = b'{"object":{"metadata":{"resourceVersion":"8"}},"type":"BOOKMARK"}\n'
    server.will(server.stream(turned))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events)[1:] == [("BOOKMARK", "", "8")]


async def test_a_refused_token_is_renewed_once(server, connect):
    client = await connect(token=StaticToken("t"))
    denied = web.json_response(status(401, "Unauthorized", "no"), status=401)
    server.will(denied, server.stream(bookmark(6)))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events)[1:] == [("BOOKMARK", "", "6")]


@pytest.mark.parametrize("code", [429, 503])
async def test_the_error_of_a_refused_watch_has_the_retry_after(server, client, code):
    server.will(
        web.json_response(status(code, "Busy", "not now"), status=code, headers={"Retry-After": "12"})
    )
    for events in (client.watch(WIDGETS, resource_version="5"), client.watch_list(WIDGETS)):
        with pytest.raises(ApiError, match="not now") as caught:
            await anext(events)
        assert (caught.value.status, caught.value.retry_after) == (code, 12)


async def test_many_watches_do_not_block_requests(server, client):
    """A watch uses a connection for minutes, and would exhaust a pool that is shared with requests."""
    server.will(server.stream(silent=True))
    streams = [client.watch(WIDGETS, resource_version="5") for _ in range(40)]
    for stream in streams:
        await anext(stream)
    server.will(web.json_response({}))
    await client.request("GET", "/version", deadline=5)
    server.closing.set()
    for stream in streams:
        await stream.aclose()
