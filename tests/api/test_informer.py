"""The informer with the real API server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from pilothouse.controller import owner_mapper
from pilothouse.informer import Informer, InformerFactory, drop_last_applied
from pilothouse.kube import Client, ObjectKey, ObjectMeta, PartialObjectMetadata, PatchType, Resource
from pilothouse.testing import eventually, objects
from tests.api.versions import ON_BOTH
from tests.api.widgets import CRDS, GROUP, WIDGETS, Spec, Widget, crd, install, kind, make, widget

pytestmark = ON_BOTH


@pytest.fixture(autouse=True)
async def widgets(client):
    await install(client, crd(WIDGETS))


@asynccontextmanager
async def running(informer: Informer[Any]) -> AsyncIterator[Informer[Any]]:
    task = asyncio.create_task(informer.run())
    try:
        yield informer
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def recorder(informer: Informer[Widget]) -> list[tuple[str, str, bool]]:
    """Returns a list that collects the calls of a handler: (what happened, name, initial)."""
    handled: list[tuple[str, str, bool]] = []

    def handler(old: Widget | None, new: Widget | None, initial: bool) -> None:
        last = new or old
        assert last is not None
        what = "added" if old is None else "deleted" if new is None else "changed"
        handled.append((what, last.metadata.name, initial))

    informer.add_handler(handler)
    return handled


async def test_store_follows_the_collection(client: Client, namespace: str):
    await client.create(WIDGETS, widget("before"), namespace=namespace)
    informer = Informer(client, WIDGETS, namespaces=[namespace])
    handled = recorder(informer)
    async with running(informer), asyncio.timeout(20):
        await informer.wait_synced()
        assert handled == [("added", "before", True)]
        made = await client.create(WIDGETS, widget("after"), namespace=namespace)
        assert await informer.wait_reached(made.metadata.resource_version, 5, namespace)
        assert informer.store.get(made.metadata.key) == made
        changed = await client.patch(WIDGETS, made.metadata.key, {"spec": {"size": 2}}, type=PatchType.MERGE)
        assert await informer.wait_reached(changed.metadata.resource_version, 5)
        assert informer.store.get(made.metadata.key) == changed
        await client.delete(WIDGETS, made.metadata.key)
        await eventually(lambda: informer.store.get(made.metadata.key) is None)
    assert handled[1:] == [
        ("added", "after", False),
        ("changed", "after", False),
        ("deleted", "after", False),
    ]


async def test_an_own_write_is_handled_once(client: Client, namespace: str):
    informer = Informer(client, WIDGETS, namespaces=[namespace])
    handled = recorder(informer)
    async with running(informer), asyncio.timeout(20):
        await informer.wait_synced()
        made = await client.create(WIDGETS, widget("mine"), namespace=namespace)
        informer.store.observe(made)
        assert informer.store.get(made.metadata.key) is not None
        assert await informer.wait_reached(made.metadata.resource_version, 5)
    assert handled == [("added", "mine", False)]


async def test_several_namespaces_and_a_selector(client: Client, namespace: str):
    other = f"{namespace}-b"
    await client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": other}})
    informer = Informer(client, WIDGETS, namespaces=[namespace, other], label_selector="see=yes")
    async with running(informer), asyncio.timeout(20):
        await informer.wait_synced()
        await client.create(WIDGETS, widget("unseen"), namespace=other)
        seen = [
            await client.create(WIDGETS, widget("seen", labels={"see": "yes"}), namespace=each)
            for each in (namespace, other, "default")
        ]
        for each in seen[:2]:
            assert await informer.wait_reached(each.metadata.resource_version, 5, each.metadata.namespace)
        assert set(informer.store.keys()) == {each.metadata.key for each in seen[:2]}
        await client.patch(
            WIDGETS, seen[0].metadata.key, {"metadata": {"labels": None}}, type=PatchType.MERGE
        )
        await eventually(lambda: set(informer.store.keys()) == {seen[1].metadata.key})


async def test_restart_of_the_server_loses_nothing(api_server, client: Client, namespace: str):
    informer = Informer(client, WIDGETS, namespaces=[namespace])
    handled = recorder(informer)
    async with running(informer), asyncio.timeout(60):
        await informer.wait_synced()
        first = await client.create(WIDGETS, widget("first"), namespace=namespace)
        await informer.wait_reached(first.metadata.resource_version, 5)
        api_server.stop("kube-apiserver")
        await eventually(lambda: informer.failing)
        assert "no response from the API server" in informer.failing
        assert informer.synced, "what was known stays known"
        api_server.start_api_server()
        await asyncio.to_thread(api_server.wait_ready)
        second = await client.create(WIDGETS, widget("second"), namespace=namespace)
        await eventually(
            lambda: informer.store.get(second.metadata.key),
            within=40,
            describe=objects(client, WIDGETS, namespace),
        )
        assert informer.failing == ""
    assert [name for _, name, _ in handled] == ["first", "second"]


async def test_an_object_deleted_during_an_outage_is_handled_as_deleted(
    api_server, client: Client, namespace: str
):
    """The watch is cut, objects change, and the history is compacted before the informer is back: 410."""
    made = await make(client, namespace, 3)
    informer = Informer(client, WIDGETS, namespaces=[namespace])
    handled = recorder(informer)
    async with running(informer), asyncio.timeout(60):
        await informer.wait_synced()
    await client.delete(WIDGETS, made[0].metadata.key)
    await client.patch(WIDGETS, made[1].metadata.key, {"spec": {"size": 7}}, type=PatchType.MERGE)
    new = await client.create(WIDGETS, widget("new"), namespace=namespace)
    api_server.stop("kube-apiserver")
    api_server.compact(int(new.metadata.resource_version))
    api_server.start_api_server()
    await asyncio.to_thread(api_server.wait_ready)
    handled.clear()
    async with running(informer), asyncio.timeout(60):
        await eventually(lambda: informer.store.get(new.metadata.key), within=40)
    assert set(handled) == {
        ("deleted", made[0].metadata.name, True),
        ("changed", made[1].metadata.name, True),
        ("added", "new", True),
    }


async def test_bookmarks_advance_the_version_of_a_quiet_collection(
    client: Client, namespace: str, monkeypatch
):
    """Writes to other kinds raise the version. A bookmark before the end of each stream reports it."""
    monkeypatch.setattr("pilothouse.kube.reader.WATCH_SECONDS", (5, 5))
    monkeypatch.setattr("pilothouse.kube.reader.WATCH_LIST_SECONDS", (5, 5))
    elsewhere = await client.create(WIDGETS, widget("elsewhere"), namespace="default")
    informer = Informer(client, WIDGETS, namespaces=[namespace])

    async def seen_what_happened_elsewhere() -> bool:
        patch = {"metadata": {"annotations": {"at": str(asyncio.get_running_loop().time())}}}
        await client.patch(WIDGETS, elsewhere.metadata.key, patch, type=PatchType.MERGE)
        return informer.store.progress.seen(namespace) > before

    async with running(informer), asyncio.timeout(60):
        await informer.wait_synced()
        before = informer.store.progress.seen(namespace)
        await eventually(seen_what_happened_elsewhere, within=20, every=0.5)
    assert len(informer.store) == 0


async def test_a_missing_kind_is_reported_and_recovers(client: Client, namespace: str):
    gadgets = kind("gadget")
    informer = Informer(client, gadgets, namespaces=[namespace])
    async with running(informer), asyncio.timeout(90):
        await eventually(lambda: informer.failing)
        assert "install its CustomResourceDefinition" in informer.failing
        assert f"gadgets.testing.pilothouse.dev in namespace {namespace}" in informer.failing
        assert not informer.synced
        await install(client, crd(gadgets))
        await informer.wait_synced()
        assert informer.failing == ""
        body = widget("one") | {"kind": "Gadget"}
        await client.create(gadgets, body, namespace=namespace)
        await eventually(lambda: informer.store.get(ObjectKey(namespace, "one")))
        await client.request("DELETE", f"{CRDS}/gadgets.testing.pilothouse.dev")
        await eventually(lambda: informer.store.get(ObjectKey(namespace, "one")) is None)
        await eventually(lambda: informer.failing, within=30)
        await install(client, crd(gadgets))
        await client.create(gadgets, body, namespace=namespace)
        await eventually(lambda: informer.store.get(ObjectKey(namespace, "one")), within=60)
        assert informer.failing == ""


class Sized(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: Spec | None = None


SIZED = Resource(GROUP, "v1", "Widget", "widgets", Sized)
NAMED = Resource(GROUP, "v1", "Widget", "widgets", PartialObjectMetadata)
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


async def test_views_share_a_watch_that_streams_its_list(
    client: Client, namespace: str, kubernetes: str, monkeypatch
):
    """Each store has the same content as with its own watch. The oldest Kubernetes lists in pages."""

    def pages(*_: object, **__: object) -> None:
        raise AssertionError("the list was not streamed")

    body = widget("one", annotations={LAST_APPLIED: "{}"})
    made = await client.create(WIDGETS, body, namespace=namespace)
    await client.patch(
        WIDGETS, made.metadata.key, {"status": {"phase": "x"}}, type=PatchType.MERGE, subresource="status"
    )
    if kubernetes == "newest":
        monkeypatch.setattr(client, "pages", pages)
    factory = InformerFactory(client)
    whole = factory.informer(WIDGETS, namespaces=[namespace])
    sized = factory.informer(SIZED, namespaces=[namespace])
    named = factory.informer(NAMED, namespaces=[namespace])
    informers: list[Informer[Any]] = [whole, sized, named]
    task = asyncio.create_task(factory.run())
    try:
        async with asyncio.timeout(20):
            await factory.wait_synced()
            second = await client.create(WIDGETS, widget("two", 2), namespace=namespace)
            for informer in informers:
                assert await informer.wait_reached(second.metadata.resource_version, 5, namespace)
        for name in ("one", "two"):
            key = ObjectKey(namespace, name)
            live = await client.get(WIDGETS, key)
            plain = drop_last_applied(live)
            assert whole.store.get(key) == plain
            assert sized.store.get(key) == Sized(plain.metadata, plain.spec)
            assert named.store.get(key) == PartialObjectMetadata(plain.metadata)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_controller_that_reads_only_metadata_follows_owners(client: Client, namespace: str):
    owner = await client.create(WIDGETS, widget("owner"), namespace=namespace)
    informer = Informer(client, NAMED, namespaces=[namespace])
    mapped = owner_mapper(WIDGETS)
    async with running(informer), asyncio.timeout(20):
        await informer.wait_synced()
        reference = {
            "apiVersion": WIDGETS.api_version,
            "kind": WIDGETS.kind,
            "name": "owner",
            "uid": owner.metadata.uid,
            "controller": True,
        }
        child = await client.create(
            WIDGETS, widget("child", ownerReferences=[reference]), namespace=namespace
        )
        assert await informer.wait_reached(child.metadata.resource_version, 5, namespace)
        seen = informer.store.get(child.metadata.key)
        assert seen is not None
        assert list(mapped(seen)) == [owner.metadata.key]
