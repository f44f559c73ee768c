"""Behavior that the contract tests cannot test on the real server: garbage collection, bookmarks, paging."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from pilothouse.kube import Cause, EventType, Expired, Invalid, ObjectKey, PatchType
from pilothouse.kube.reader import WATCH_LIST_SECONDS, WATCH_SECONDS
from pilothouse.testing import ModelApi, VirtualTimeLoop
from pilothouse.testing.model import LAST_BOOKMARK_SECONDS
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")


def owned(model: ModelApi, name: str, *owners: ObjectKey, block: bool = False) -> ObjectKey:
    references = [
        {
            "apiVersion": TICKET.api_version,
            "kind": TICKET.kind,
            "name": owner.name,
            "uid": model.read(TICKET, owner)["metadata"]["uid"],
            "blockOwnerDeletion": block,
        }
        for owner in owners
    ]
    return model.put(TICKET, name, metadata={"ownerReferences": references})


def names(model: ModelApi) -> list[str]:
    return sorted(each["metadata"]["name"] for each in model.all(TICKET))


async def test_dependents_are_deleted_after_their_last_owner(model: ModelApi) -> None:
    one, two = model.put(TICKET, "one"), model.put(TICKET, "two")
    child = owned(model, "child", one, two)
    owned(model, "grandchild", child)
    await model.delete(TICKET, one)
    model.collect_garbage()
    assert names(model) == ["child", "grandchild", "two"]
    await model.delete(TICKET, two)
    assert names(model) == ["child", "grandchild"], "only in the background"
    model.collect_garbage()
    assert names(model) == []


async def test_an_owner_deleted_in_the_foreground_is_removed_last(model: ModelApi) -> None:
    owner = model.put(TICKET, "owner")
    child = owned(model, "child", owner, block=True)
    model.put(TICKET, "child", metadata={"finalizers": ["tests.dev/held"]})
    await model.delete(TICKET, owner, propagation="Foreground")
    model.collect_garbage()
    assert names(model) == ["child", "owner"]
    await model.patch(TICKET, child, {"metadata": {"finalizers": None}}, type=PatchType.MERGE)
    model.collect_garbage()
    assert names(model) == []


async def test_orphans_stay(model: ModelApi) -> None:
    owner = model.put(TICKET, "owner")
    child = owned(model, "child", owner)
    await model.delete(TICKET, owner, propagation="Orphan")
    model.collect_garbage()
    assert names(model) == ["child"]
    assert not model.read(TICKET, child)["metadata"].get("ownerReferences")


async def test_all_pages_show_the_same_version(model: ModelApi) -> None:
    for number in range(5):
        model.put(TICKET, f"t{number}")
    sizes = []
    async for page in model.pages(TICKET, limit=2):
        model.put(TICKET, "later")
        sizes.append((len(page.items), page.resource_version))
    assert [size for size, _ in sizes] == [2, 2, 1]
    assert len({version for _, version in sizes}) == 1


async def test_a_watch_from_a_forgotten_version_expires(model: ModelApi) -> None:
    model.put(TICKET, "a")
    then = str(model.version)
    model.put(TICKET, "b")
    model.forget()
    with pytest.raises(Expired):
        await anext(model.watch(TICKET, resource_version=then))


async def test_a_watch_that_sees_nothing_gets_a_bookmark_each_minute(
    model: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    model.ends_watches = False
    model.put(TICKET, "a", "other")
    began = virtual_time.time()
    async with aclosing(model.watch(TICKET, resource_version="100", namespace="default")) as stream:
        first, second = await anext(stream), await anext(stream)
    assert (first.type, first.resource_version) == (EventType.BOOKMARK, "100")
    assert (second.type, second.resource_version) == (EventType.BOOKMARK, str(model.version))
    assert virtual_time.time() - began == 60


async def test_a_watch_ends_within_a_minute_2_seconds_after_its_last_bookmark(
    model: ModelApi, virtual_time: VirtualTimeLoop
) -> None:
    model.put(TICKET, "a", "other")
    began = virtual_time.time()
    sent = [
        (event.type, event.resource_version, virtual_time.time() - began)
        async for event in model.watch(TICKET, resource_version="100", namespace="default")
    ]
    lasted = virtual_time.time() - began
    assert WATCH_SECONDS[0] <= lasted <= WATCH_SECONDS[1]
    assert sent == [
        (EventType.BOOKMARK, "100", 0),
        (EventType.BOOKMARK, str(model.version), lasted - LAST_BOOKMARK_SECONDS),
    ]


async def test_a_streamed_list_ends_within_10_minutes(model: ModelApi, virtual_time: VirtualTimeLoop) -> None:
    model.put(TICKET, "a")
    began = virtual_time.time()
    sent = [event.type async for event in model.watch_list(TICKET)]
    assert sent == [EventType.ADDED, EventType.END_OF_LIST], "without changes there is no bookmark"
    assert WATCH_LIST_SECONDS[0] <= virtual_time.time() - began <= WATCH_LIST_SECONDS[1]


async def test_a_disconnected_watch_delivers_events_later(model: ModelApi) -> None:
    stream = model.watch(TICKET, resource_version="100")
    await anext(stream)
    model.connected.clear()
    model.put(TICKET, "a")
    next_one = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(100)  # Longer than a watch lasts: it does not end before it has delivered the event.
    assert not next_one.done()
    model.connected.set()
    assert (await next_one).type is EventType.ADDED
    await stream.aclose()


async def test_an_object_that_validate_refuses_is_invalid(model: ModelApi) -> None:
    def two_seats_at_most(resource: Any, new: Any, old: Any) -> list[Cause]:
        return [Cause("spec.seats", "at most 2")] if new["spec"]["seats"] > 2 else []

    model.server.validate = two_seats_at_most
    body = {"metadata": {"name": "a"}, "spec": {"seats": 3}}
    with pytest.raises(Invalid, match=r'Ticket.tests.dev "a" is invalid: spec.seats: at most 2') as refused:
        await model.create(TICKET, body, namespace="default")
    assert refused.value.causes == (Cause("spec.seats", "at most 2"),)
