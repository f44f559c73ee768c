"""The streamed list over a real connection: its end, and servers that do not support it."""

from contextlib import aclosing

import pytest
from aiohttp import web

from pilothouse.kube import (
    Client,
    EventType,
    Expired,
    Forbidden,
    Unreachable,
    WatchEvent,
    WatchListUnsupported,
)
from tests.unit.kube.test_watch import bookmark, brief, line
from tests.unit.kube.views import WIDGETS, Widget, body, status


def end_of_list(version: int) -> bytes:
    annotations = {"k8s.io/initial-events-end": "true"}
    metadata = {"resourceVersion": str(version), "annotations": annotations}
    return line("BOOKMARK", {"kind": "Widget", "metadata": metadata})


async def collect(client: Client, into: list[WatchEvent[Widget]]) -> None:
    async with aclosing(client.watch_list(WIDGETS, namespace="ns", label_selector="x=y")) as events:
        async for event in events:
            into.append(event)  # noqa: PERF401 - what came before an error counts too


async def test_the_list_ends_with_a_bookmark_and_changes_follow(server, client):
    server.will(
        server.stream(
            line("ADDED", body("a", 6)),
            line("ADDED", body("b", 4)) + end_of_list(9),
            line("MODIFIED", body("a", 10)) + bookmark(12),
        )
    )
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events) == [
        ("ADDED", "a", "6"),
        ("ADDED", "b", "4"),
        ("END_OF_LIST", "", "9"),
        ("MODIFIED", "a", "10"),
        ("BOOKMARK", "", "12"),
    ]
    query = server.requests[0].query
    assert (query["watch"], query["allowWatchBookmarks"], query["labelSelector"]) == ("1", "true", "x=y")
    assert (query["sendInitialEvents"], query["resourceVersionMatch"]) == ("true", "NotOlderThan")
    assert query["resourceVersion"] == "", "the newest version, not a cached one"


@pytest.mark.parametrize(("code", "reason"), [(400, "BadRequest"), (422, "Invalid")])
async def test_a_server_that_refuses(server, client, code, reason):
    server.will(web.json_response(status(code, reason, "sendInitialEvents is forbidden"), status=code))
    with pytest.raises(WatchListUnsupported, match=r"widgets.*sendInitialEvents is forbidden"):
        await collect(client, [])
    assert len(server.requests) == 1


async def test_a_server_that_refuses_in_the_stream(server, client):
    server.will(server.stream(line("ERROR", status(422, "Invalid", "sendInitialEvents"))))
    with pytest.raises(WatchListUnsupported):
        await collect(client, [])


async def test_a_server_that_ignores_the_parameter(server, client):
    """It watches from now on, or sends existing objects without marking the end."""
    server.will(server.stream(line("ADDED", body("a", 6)), bookmark(9), silent=True))
    events: list[WatchEvent[Widget]] = []
    with pytest.raises(WatchListUnsupported, match="without marking the end of the list"):
        await collect(client, events)
    assert brief(events) == [("ADDED", "a", "6")]


async def test_a_stream_that_ends_within_the_list_is_an_error(server, client):
    server.will(server.stream(line("ADDED", body("a", 6))))
    events: list[WatchEvent[Widget]] = []
    with pytest.raises(Unreachable, match="ended before the list was complete"):
        await collect(client, events)
    assert brief(events) == [("ADDED", "a", "6")]


async def test_a_stream_that_becomes_silent_within_the_list_is_an_error(server, client):
    server.will(server.stream(line("ADDED", body("a", 6)), silent=True))
    events = client.watch_list(WIDGETS, idle=0.1)
    async with aclosing(events):
        await anext(events)
        with pytest.raises(Unreachable, match="ended before the list was complete"):
            await anext(events)


async def test_an_object_that_does_not_fit_is_part_of_the_list(server, client):
    misfit = line("ADDED", body("bad", 6, size="many"))
    server.will(server.stream(misfit, line("ADDED", body("a", 7)) + end_of_list(9)))
    events: list[WatchEvent[Widget]] = []
    await collect(client, events)
    assert brief(events) == [("ADDED", "", "6"), ("ADDED", "a", "7"), ("END_OF_LIST", "", "9")]
    assert events[0].misfit is not None
    assert events[0].misfit.metadata.name == "bad"
    assert events[0].misfit.why.startswith("Expected `int`, got `str`")


async def test_other_errors_do_not_mean_missing_support(server, client):
    server.will(web.json_response(status(403, "Forbidden", "cannot watch"), status=403))
    with pytest.raises(Forbidden):
        await collect(client, [])
    server.will(server.stream(line("ADDED", body("a", 6)), cut=True))
    with pytest.raises(Unreachable):
        await collect(client, [])


async def test_errors_after_the_list_are_errors_of_the_watch(server, client):
    gone = line("ERROR", status(410, "Expired", "too old"))
    server.will(server.stream(end_of_list(9), gone))
    events: list[WatchEvent[Widget]] = []
    with pytest.raises(Expired):
        await collect(client, events)
    assert [event.type for event in events] == [EventType.END_OF_LIST]
