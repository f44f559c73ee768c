"""The client with the real API server: reads, writes and refusals."""

import asyncio
import json
from contextlib import aclosing

import pytest

from pilothouse.kube import (
    AlreadyExists,
    Client,
    ClientConfig,
    Conflict,
    EventType,
    Expired,
    Forbidden,
    Invalid,
    MethodNotAllowed,
    NotFound,
    ObjectKey,
    PatchType,
    RequestEntityTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from pilothouse.testing import eventually
from tests.api.restarts import start_again
from tests.api.versions import ON_BOTH
from tests.api.widgets import CRDS, WIDGETS, crd, make, raw, widget

pytestmark = ON_BOTH


@pytest.fixture(autouse=True)
async def widgets(client):
    from tests.api.widgets import install

    await install(client, crd(WIDGETS))


async def test_create_then_get(client, namespace):
    created = await client.create(WIDGETS, widget("one", 3, labels={"a": "b"}), namespace=namespace)
    assert created.metadata.key == ObjectKey(namespace, "one")
    assert (created.spec.size, created.metadata.generation, dict(created.metadata.labels)) == (
        3,
        1,
        {"a": "b"},
    )
    assert created.metadata.creation_timestamp is not None
    assert await client.get(WIDGETS, created.metadata.key) == created


async def test_an_unknown_name_is_not_found(client, namespace):
    with pytest.raises(NotFound, match='"none" not found'):
        await client.get(WIDGETS, ObjectKey(namespace, "none"))


async def test_creating_an_existing_object_is_refused(client, namespace):
    await client.create(WIDGETS, widget("one"), namespace=namespace)
    with pytest.raises(AlreadyExists):
        await client.create(WIDGETS, widget("one"), namespace=namespace)


async def test_a_violated_rule_names_the_field(client, namespace):
    with pytest.raises(Invalid) as caught:
        await client.create(WIDGETS, widget("big", 11), namespace=namespace)
    [cause] = caught.value.causes
    assert cause.field == "spec.size"
    assert "less than or equal to 10" in cause.message


async def test_all_pages_show_the_same_version(client, namespace):
    made = await make(client, namespace, 7)
    pages = []
    async with aclosing(client.pages(WIDGETS, namespace=namespace, limit=3)) as stream:
        async for page in stream:
            pages.append(page)
            if len(pages) == 1:
                await client.create(WIDGETS, widget("late"), namespace=namespace)
    assert [len(page.items) for page in pages] == [3, 3, 1]
    assert len({page.resource_version for page in pages}) == 1
    assert {each.metadata.name for page in pages for each in page.items} == {
        each.metadata.name for each in made
    }


async def test_selectors(client, namespace):
    await client.create(WIDGETS, widget("red", labels={"colour": "red"}), namespace=namespace)
    await client.create(WIDGETS, widget("blue", labels={"colour": "blue"}), namespace=namespace)

    async def names(**selectors: str) -> list[str]:
        pages = client.pages(WIDGETS, namespace=namespace, **selectors)
        return [each.metadata.name async for page in pages for each in page.items]

    assert await names(label_selector="colour in (red)") == ["red"]
    assert await names(field_selector="metadata.name=blue") == ["blue"]


async def test_watch_yields_every_change_in_order(client, namespace):
    first = await client.create(WIDGETS, widget("one"), namespace=namespace)
    events = client.watch(WIDGETS, resource_version=first.metadata.resource_version, namespace=namespace)
    async with aclosing(events), asyncio.timeout(10):
        opened = await anext(events)
        assert (opened.type, opened.object) == (EventType.BOOKMARK, None)
        assert opened.resource_version == first.metadata.resource_version
        two = await client.create(WIDGETS, widget("two"), namespace=namespace)
        changed = await client.patch(WIDGETS, two.metadata.key, {"spec": {"size": 5}}, type=PatchType.MERGE)
        await client.delete(WIDGETS, two.metadata.key)
        seen = [await anext(events) for _ in range(3)]
    assert [event.type for event in seen] == [EventType.ADDED, EventType.MODIFIED, EventType.DELETED]
    assert [event.object for event in seen[:2]] == [two, changed]
    versions = [int(event.resource_version) for event in seen]
    assert versions == sorted(versions)


async def test_watch_yields_an_object_larger_than_a_read_buffer(client, namespace):
    notes = {f"note-{number}": "x" * 60_000 for number in range(4)}
    first = await client.create(WIDGETS, widget("one"), namespace=namespace)
    events = client.watch(WIDGETS, resource_version=first.metadata.resource_version, namespace=namespace)
    async with aclosing(events), asyncio.timeout(10):
        await anext(events)
        big = await client.create(WIDGETS, widget("big", annotations=notes), namespace=namespace)
        event = await anext(events)
    assert event.object == big
    assert dict(event.object.metadata.annotations) == notes


async def test_a_compacted_version_is_expired(client, namespace):
    await make(client, namespace, 1)
    events = client.watch(WIDGETS, resource_version="1", namespace=namespace)
    with pytest.raises(Expired):
        async for _ in events:
            pass


async def test_a_compacted_page_is_expired(api_server, client, namespace):
    await make(client, namespace, 4)
    pages = client.pages(WIDGETS, namespace=namespace, limit=2)
    async with aclosing(pages):
        page = await anext(pages)
        later = await make(client, namespace, 1)
        assert int(later[0].metadata.resource_version) > int(page.resource_version)
        api_server.stop("kube-apiserver")
        api_server.compact(int(later[0].metadata.resource_version))
        await start_again(api_server, client, WIDGETS)
        with pytest.raises(Expired):
            await anext(pages)


async def test_a_stale_patch_conflicts(client, namespace):
    old = await client.create(WIDGETS, widget("one"), namespace=namespace)
    await client.patch(WIDGETS, old.metadata.key, {"spec": {"size": 2}}, type=PatchType.MERGE)
    stale = {"metadata": {"resourceVersion": old.metadata.resource_version}, "spec": {"size": 3}}
    with pytest.raises(Conflict):
        await client.patch(WIDGETS, old.metadata.key, stale, type=PatchType.MERGE)
    assert (await client.get(WIDGETS, old.metadata.key)).spec.size == 2


async def test_status_and_spec_are_written_separately(client, namespace):
    made = await client.create(WIDGETS, widget("one", 4), namespace=namespace)
    patched = await client.patch(
        WIDGETS,
        made.metadata.key,
        {"spec": {"size": 9}, "status": {"phase": "Done"}},
        type=PatchType.MERGE,
        subresource="status",
    )
    assert (patched.spec.size, patched.status.phase, patched.metadata.generation) == (4, "Done", 1)


async def test_json_patch_and_apply(client, namespace):
    made = await client.create(WIDGETS, widget("one", 4), namespace=namespace)
    operations = [
        {"op": "test", "path": "/spec/size", "value": 4},
        {"op": "replace", "path": "/spec/size", "value": 5},
    ]
    assert (await client.patch(WIDGETS, made.metadata.key, operations, type=PatchType.JSON)).spec.size == 5
    with pytest.raises(Conflict, match="size"):
        await client.patch(WIDGETS, made.metadata.key, widget("one", 6), type=PatchType.APPLY)
    applied = await client.patch(
        WIDGETS, made.metadata.key, widget("one", 6), type=PatchType.APPLY, force=True
    )
    assert applied.spec.size == 6
    managers = {
        each["manager"] for each in (await raw(client, namespace, "one"))["metadata"]["managedFields"]
    }
    assert "pilothouse-tests" in managers


async def test_a_finalizer_holds_a_deleted_object(client, namespace):
    made = await client.create(
        WIDGETS, widget("one", finalizers=["testing.pilothouse.dev/hold"]), namespace=namespace
    )
    await client.delete(WIDGETS, made.metadata.key)
    held = await client.get(WIDGETS, made.metadata.key)
    assert held.metadata.deletion_timestamp is not None
    assert held.metadata.finalizers == ("testing.pilothouse.dev/hold",)
    release = {"metadata": {"finalizers": [], "resourceVersion": held.metadata.resource_version}}
    await client.patch(WIDGETS, made.metadata.key, release, type=PatchType.MERGE)
    with pytest.raises(NotFound):
        await client.get(WIDGETS, made.metadata.key)


async def test_delete_does_not_delete_another_object_of_the_same_name(client, namespace):
    made = await client.create(WIDGETS, widget("one"), namespace=namespace)
    with pytest.raises(Conflict):
        await client.delete(WIDGETS, made.metadata.key, uid="00000000-0000-0000-0000-000000000000")
    await client.delete(WIDGETS, made.metadata.key, uid=made.metadata.uid)
    with pytest.raises(NotFound):
        await client.delete(WIDGETS, made.metadata.key)


async def test_a_wrong_token_is_unauthorized(api_server):
    async with Client(api_server.config("wrong"), user_agent="tests/1") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.get(WIDGETS, ObjectKey("default", "one"))


async def test_a_missing_permission_is_named(api_server, client, namespace):
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    await client.request("POST", accounts, body={"metadata": {"name": "guest"}})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = json.loads(await client.request("POST", f"{accounts}/guest/token", body=request))
    async with Client(api_server.config(answer["status"]["token"]), user_agent="tests/1") as guest:
        with pytest.raises(Forbidden, match=f"system:serviceaccount:{namespace}:guest.*cannot get resource"):
            await guest.get(WIDGETS, ObjectKey(namespace, "one"))


async def test_kubeconfig(api_server, namespace, client):
    made = await client.create(WIDGETS, widget("one"), namespace=namespace)
    config = ClientConfig.from_kubeconfig(str(api_server.kubeconfig()))
    async with Client(config, user_agent="tests/1") as other:
        assert await other.get(WIDGETS, made.metadata.key) == made


@pytest.mark.filterwarnings("ignore:Sending a large body")  # aiohttp's opinion; the server is to refuse it
@pytest.mark.parametrize(
    ("verb", "path", "content_type", "size", "expected"),
    [
        ("PATCH", "/one", "application/strategic-merge-patch+json", 2, UnsupportedMediaType),
        ("DELETE", "/one/status", "application/json", 2, MethodNotAllowed),
        ("POST", "", "application/json", 4 * 1024 * 1024, RequestEntityTooLarge),
    ],
)
async def test_requests_that_the_server_does_not_support(
    client, namespace, verb, path, content_type, size, expected
):
    await client.create(WIDGETS, widget("one"), namespace=namespace)
    body = json.dumps(widget("two", annotations={"big": "x" * size})).encode()
    with pytest.raises(expected):
        await client.request(verb, WIDGETS.path(namespace) + path, body=body, content_type=content_type)


async def test_an_object_that_does_not_fit_its_view_does_not_hide_others(client, namespace):
    """A CRD may accept more than the view: the seed's CRD accepts unknown fields."""
    loose = crd(WIDGETS)
    name = loose["metadata"]["name"]
    version = loose["spec"]["versions"][0]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] = {
        "x-kubernetes-preserve-unknown-fields": True
    }
    params = {"fieldManager": "tests", "force": "true"}
    await client.request("PATCH", f"{CRDS}/{name}", params=params, body=loose, content_type=PatchType.APPLY)
    bad = json.dumps(widget("bad", size="many")).encode()  # type: ignore[arg-type]  # wrong on purpose
    path = WIDGETS.path(namespace)
    await eventually(lambda: client.request("POST", path, body=bad), within=20)
    good = await client.create(WIDGETS, widget("good"), namespace=namespace)
    pages = [page async for page in client.pages(WIDGETS, namespace=namespace)]
    assert [each for page in pages for each in page.items] == [good]
    (misfit,) = (each for page in pages for each in page.misfits)
    assert misfit.metadata.name == "bad"
    assert misfit.why.startswith("Expected ")
    assert "size" in misfit.why
