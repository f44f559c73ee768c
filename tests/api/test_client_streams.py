"""Streamed lists and metadata-only views with the real API server."""

import asyncio
from contextlib import aclosing, suppress

import pytest

from pilothouse.kube import EventType, PartialObjectMetadata, PatchType, Resource, WatchListUnsupported
from tests.api.versions import ON_BOTH
from tests.api.widgets import GROUP, WIDGETS, crd, install, make, widget
from tests.listing import listed

pytestmark = ON_BOTH

WIDGET_METADATA = Resource(GROUP, "v1", "Widget", "widgets", PartialObjectMetadata)


@pytest.fixture(autouse=True)
async def widgets(client):
    await install(client, crd(WIDGETS))


async def test_watch_list(client, namespace, kubernetes):
    """The newest Kubernetes streams lists. The oldest refuses immediately."""
    made = await make(client, namespace, 3)
    events = client.watch_list(WIDGETS, namespace=namespace)
    async with aclosing(events), asyncio.timeout(20):
        if kubernetes == "oldest":
            with pytest.raises(WatchListUnsupported):
                await anext(events)
            return
        listed = [await anext(events) for _ in range(4)]
        assert [event.type for event in listed] == [EventType.ADDED] * 3 + [EventType.END_OF_LIST]
        found = {event.object.metadata.name: event.object for event in listed[:3]}
        assert found == {each.metadata.name: each for each in made}
        newest = max(int(each.metadata.resource_version) for each in made)
        assert int(listed[3].resource_version) >= newest
        four = await client.create(WIDGETS, widget("four"), namespace=namespace)
        assert (await anext(events)).object == four


async def test_watch_list_of_nothing(client, namespace):
    events = client.watch_list(WIDGETS, namespace=namespace)
    async with aclosing(events), asyncio.timeout(20):
        with suppress(WatchListUnsupported):
            event = await anext(events)
            assert (event.type, event.object) == (EventType.END_OF_LIST, None)
            assert int(event.resource_version) > 0


async def test_metadata_only(client, namespace):
    one = await client.create(WIDGETS, widget("one", labels={"a": "b"}), namespace=namespace)
    assert (await client.get(WIDGET_METADATA, one.metadata.key)).metadata == one.metadata
    [shown] = await listed(client, WIDGET_METADATA, namespace=namespace)
    assert shown.metadata == one.metadata
    version = one.metadata.resource_version
    async with aclosing(
        client.watch(WIDGET_METADATA, resource_version=version, namespace=namespace)
    ) as events:
        await anext(events)
        changed = await client.patch(
            WIDGET_METADATA, one.metadata.key, {"metadata": {"labels": {"a": "c"}}}, type=PatchType.MERGE
        )
        assert dict(changed.metadata.labels) == {"a": "c"}
        async with asyncio.timeout(20):
            event = await anext(events)
    assert (event.type, event.object) == (EventType.MODIFIED, changed)


async def test_the_server_sends_only_the_metadata(client, namespace):
    await client.create(WIDGETS, widget("one", 7), namespace=namespace)
    seen = []
    ask = client._transport.request

    async def listen(*arguments, **options):
        seen.append(await ask(*arguments, **options))
        return seen[-1]

    client._transport.request = listen
    await listed(client, WIDGET_METADATA, namespace=namespace)
    await listed(client, WIDGETS, namespace=namespace)
    assert [b'"size":7' in body for body in seen] == [False, True]
