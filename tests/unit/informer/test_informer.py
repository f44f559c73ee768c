"""The informer's promises, on a model of the API server under virtual time."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from pilothouse.informer import Informer
from pilothouse.informer.reflector import SHORT_WATCH_SECONDS
from pilothouse.kube import (
    ApiError,
    Cause,
    Expired,
    Forbidden,
    NotFound,
    ObjectKey,
    ServerError,
    TooManyRequests,
)
from pilothouse.telemetry.metrics import render
from pilothouse.testing import eventually
from tests.unit.informer.collection import LOST, THINGS, Collection, Thing, shadow

pytestmark = pytest.mark.usefixtures("virtual_time")

TOO_LARGE = ApiError(
    504, "Timeout", "Too large resource version", (Cause("", "", "ResourceVersionTooLarge"),)
)


@asynccontextmanager
async def running(informer: Informer[Thing]) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def collection() -> Collection:
    return Collection()


@pytest.fixture
async def informer(collection: Collection) -> Informer[Thing]:
    return Informer(collection.api, THINGS)


def contents(informer: Informer[Thing]) -> dict[ObjectKey, Thing]:
    return {obj.metadata.key: obj for obj in informer.store.values()}


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled(informer: Informer[Thing], collection: Collection, within: float = 120) -> None:
    await eventually(
        lambda: contents(informer) == collection.objects,
        within=within,
        every=1,
        describe=lambda: f"{contents(informer)} is not {collection.objects}; {collection.asked}",
    )


async def test_lists_then_watches(collection, informer):
    collection.put("a")
    collection.put("b")
    handled: list[tuple[bool, bool, bool]] = []
    informer.add_handler(lambda old, new, initial: handled.append((old is None, new is None, initial)))
    async with running(informer):
        assert not informer.synced
        await informer.wait_synced()
        assert (len(informer.store), informer.store.resource_version) == (2, "12")
        collection.put("a")
        collection.remove("b")
        await settled(informer, collection)
    assert handled == [(True, False, True), (True, False, True), (False, False, False), (False, True, False)]
    assert informer.store.resource_version == "14"


@pytest.mark.parametrize("streams", [False, True])
async def test_an_object_that_no_longer_fits_the_view_stays_as_last_known_until_it_is_deleted(streams):
    collection = Collection(streams=streams)
    informer = Informer(collection.api, THINGS)
    kept, remade = collection.put("kept"), collection.put("remade")
    handled: list[tuple[str, bool]] = []
    async with running(informer):
        await informer.wait_synced()

        def handle(old: Thing | None, new: Thing | None, initial: bool) -> None:
            last = new or old
            assert last is not None
            handled.append((last.metadata.name, new is None))

        informer.add_handler(handle)
        handled.clear()
        # Changed during an outage of the watch: first a list shows it, and then an event.
        collection.misfits |= {kept.metadata.key, remade.metadata.key}
        collection.lose()
        await eventually(lambda: informer.failing)
        collection.put("kept")
        collection.objects[remade.metadata.key] = Thing(
            msgspec.structs.replace(remade.metadata, uid="another", resource_version="14")
        )
        collection.version = 14
        collection.forget()
        await eventually(lambda: informer.store.resource_version == "14", within=60)
        assert handled == [("remade", True)], "an object of the same name with another UID"
        assert collection.put("kept").metadata.resource_version == "15"
        await eventually(lambda: informer.store.resource_version == "15")
        assert contents(informer) == {kept.metadata.key: kept}
        collection.remove("kept")
        await eventually(lambda: len(handled) == 2)
    assert handled[1] == ("kept", True)
    assert contents(informer) == {}


async def test_a_handler_added_late_is_called_for_existing_objects(collection, informer):
    collection.put("a")
    async with running(informer):
        await informer.wait_synced()
        handled: list[tuple[object, str, bool]] = []
        informer.add_handler(lambda old, new, initial: handled.append((old, new.metadata.name, initial)))
    assert handled == [(None, "a", True)]


async def test_a_watch_continues_after_the_stream_ended(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        collection.put("a")
        await settled(informer, collection)
        await asyncio.sleep(300)
        collection.cut(None)
        started = now()
        await eventually(lambda: collection.asked[-1] == ("watch", "", "11"))
        assert now() - started < 0.5, "there is no pause after a normal end"
    assert [each[0] for each in collection.asked] == ["list", "watch", "watch"]


async def test_a_watch_continues_immediately_after_a_useful_stream_broke(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        for number in range(60):
            collection.put(f"event-{number}")
            await settled(informer, collection)
            collection.cut(LOST)
            started, watches = now(), len(collection.asked)
            await eventually(lambda: len(collection.asked) > watches)  # noqa: B023 - awaited here
            assert now() - started < 0.5
        assert informer.failing == ""
        await asyncio.sleep(SHORT_WATCH_SECONDS)
        collection.cut(LOST)
        collection.put("last")
        await settled(informer, collection)
    assert {each[0] for each in collection.asked[1:]} == {"watch"}


async def test_a_watch_continues_after_a_pause_if_the_stream_broke_immediately(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        collection.cut(LOST)
        await eventually(lambda: "connection reset" in informer.failing)
        started = now()
        await eventually(lambda: not informer.failing)
        assert 0.7 <= now() - started <= 1.7


async def test_a_streamed_list_that_ends_early_is_reported():
    collection = Collection(streams=True)
    collection.put("a")
    collection.ends_lists = 1
    informer = Informer(collection.api, THINGS)
    async with running(informer):
        await eventually(lambda: informer.failing)
        assert not informer.synced
        await informer.wait_synced()
    assert collection.asked == [("stream", ""), ("stream", "")]


async def test_one_streamed_list_that_ended_early_does_not_disable_streaming():
    collection = Collection(streams=True)
    collection.put("a")
    collection.ends_lists = 1
    informer = Informer(collection.api, THINGS)
    async with running(informer):
        await informer.wait_synced()
        for name in ("b", "c"):
            collection.lose()
            collection.put(name)
            await eventually(lambda: informer.failing)
            collection.put(name)
            collection.forget()
            await settled(informer, collection)
    assert [each[0] for each in collection.asked if each[0] != "watch"] == ["stream"] * 4


async def test_after_two_incomplete_streams_a_list_is_read_in_pages_and_the_next_one_is_streamed():
    """A server may ignore the parameter and send nothing. The kind would never be listed."""
    collection = Collection(streams=True)
    collection.put("a")
    collection.ends_lists = 2
    informer = Informer(collection.api, THINGS)
    async with running(informer):
        await informer.wait_synced()
        assert [each[0] for each in collection.asked][:3] == ["stream", "stream", "list"]
        collection.lose()
        collection.put("b")
        await eventually(lambda: informer.failing)
        collection.put("b")
        collection.forget()
        await settled(informer, collection)
    assert [each[0] for each in collection.asked][-1] == "stream"


async def test_a_list_that_expires_between_pages_is_read_without_pages(collection, informer):
    handled: dict[ObjectKey, Thing] = {}
    informer.add_handler(shadow(handled))
    collection.put("a")
    collection.put("b")
    collection.expires_pages = 1
    collection.lag = 1
    async with running(informer):
        await asyncio.sleep(1.5)
        assert set(handled) == {ObjectKey("ns", "a")}, "the first page"
        collection.remove("a")
        await informer.wait_synced()
        assert handled == collection.objects, "objects of the first page that were deleted are removed"
        assert informer.failing == ""
    assert [each[0] for each in collection.asked] == ["list", "list without pages", "watch"]


async def test_an_expired_version_is_listed_again_immediately(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        collection.put("a")
        await settled(informer, collection)
        collection.cut(LOST)
        collection.put("b")
        collection.forget()
        started = now()
        await eventually(lambda: len(informer.store) == 2)
        assert now() - started < 0.5
        assert informer.failing == ""
    assert [each[0] for each in collection.asked] == ["list", "watch", "watch", "list", "watch"]


@pytest.mark.parametrize("streams", [False, True])
async def test_watches_that_expire_after_each_list_are_reported(streams):
    """If listing takes longer than the server keeps its history, there is a pause between lists."""
    collection = Collection(streams=streams)
    collection.put("a")
    collection.expires_watches = 1000
    informer = Informer(collection.api, THINGS)
    async with running(informer):
        await asyncio.sleep(60)
        assert len([each for each in collection.asked if each[0] != "watch"]) < 12
        assert informer.failing or informer.synced
        collection.expires_watches = 0
        await asyncio.sleep(70)
        assert informer.failing == ""


async def test_there_is_a_pause_if_the_server_ends_each_stream_after_one_event(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        for number in range(20):
            collection.put(f"event-{number}")
            await settled(informer, collection)
        watches, began = len(collection.asked), now()
        while now() - began < 5:
            collection.put("busy")
            await asyncio.sleep(0.01)
            collection.cut(None)
            await asyncio.sleep(0.01)
        assert len(collection.asked) - watches < 60
        collection.cuts.clear()
        await asyncio.sleep(100)
        assert informer.failing == ""


@pytest.mark.parametrize("streams", [False, True])
async def test_lists_that_expire_repeatedly_are_reported(streams):
    collection = Collection(streams=streams)
    collection.put("a")
    informer = Informer(collection.api, THINGS)
    expired = Expired(410, "Expired", "too old")
    async with running(informer):
        await informer.wait_synced()
        collection.lose()
        await eventually(lambda: informer.failing)
        collection.put("a")
        collection.forget()
        collection.refusals += [expired] * 4
        await eventually(lambda: "too old" in informer.failing, within=20)
        assert 'pilothouse_watch_failing{resource="things.testing.pilothouse.dev"} 1.0' in render().decode()
        await settled(informer, collection)
        assert informer.failing == ""
        collection.refusals.append(expired)
        collection.cut(LOST)
        collection.put("b")
        await settled(informer, collection)
        assert informer.failing == "", "one is routine"


async def test_an_unreachable_server_is_retried_after_a_pause(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        collection.put("a")
        await settled(informer, collection)
        collection.lose()
        await eventually(lambda: informer.failing)
        assert "connection reset" in informer.failing
        assert 'pilothouse_watch_failing{resource="things.testing.pilothouse.dev"} 1.0' in render().decode()
        collection.put("b")
        started = now()
        await eventually(lambda: not informer.failing)
        assert 'pilothouse_watch_failing{resource="things.testing.pilothouse.dev"} 0.0' in render().decode()
        assert 0.7 <= now() - started <= 1.7
        await settled(informer, collection)
    assert collection.asked[1:] == [("watch", "", "10"), ("watch", "", "11"), ("watch", "", "11")]


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    "refused", [TooManyRequests(429, retry_after=12.0), ServerError(503, retry_after=12.0)]
)
async def test_retry_after_is_respected(streams, refused):
    collection = Collection(streams=streams)
    informer = Informer(collection.api, THINGS)
    collection.refusals.append(refused)
    async with running(informer):
        started = now()
        await informer.wait_synced()
        assert 12 <= now() - started < 13, "a list"
        collection.refusals.append(refused)
        collection.cut(LOST)
        await eventually(lambda: str(refused) in informer.failing, every=0.1)
        started = now()
        await eventually(lambda: not informer.failing, within=30, every=0.1)
        assert 11.8 <= now() - started < 13, "a watch"


async def test_retry_after_is_limited_to_30_s(collection, informer):
    collection.refusals.append(TooManyRequests(429, retry_after=300.0))
    async with running(informer):
        started = now()
        await informer.wait_synced()
        assert 30 <= now() - started < 31


async def test_the_pause_grows_to_30_s_and_is_reset_by_a_useful_watch(collection, informer):
    collection.refusals += [LOST] * 12
    async with running(informer):
        started, gaps = now(), []
        for attempts in range(2, 14):
            await eventually(lambda: len(collection.asked) >= attempts, within=90)  # noqa: B023 - awaited here
            gaps.append(now() - started)
            started = now()
        assert all(0.8 * 2**n * 0.9 <= gap <= 1.6 * 2**n * 1.1 for n, gap in enumerate(gaps[:5])), gaps
        assert all(25 <= gap <= 61 for gap in gaps[7:]), gaps
        await informer.wait_synced()
        await asyncio.sleep(2 * SHORT_WATCH_SECONDS)
        collection.lose()
        await eventually(lambda: informer.failing)
        started = now()
        await eventually(lambda: not informer.failing)
        assert now() - started <= 1.7


async def test_a_watch_that_ends_immediately_is_reported(collection, informer):
    for _ in range(5):
        collection.cut(None)
    async with running(informer):
        await eventually(lambda: "ended the watch immediately" in informer.failing)
        await asyncio.sleep(100)
        assert informer.failing == ""
    assert len(collection.asked) == 7


async def test_an_expired_version_is_listed_again(collection, informer):
    handled: dict[ObjectKey, Thing] = {}
    events: list[tuple[str, bool, bool]] = []
    informer.add_handler(shadow(handled))
    for name in ("kept", "changed", "deleted"):
        collection.put(name)
    async with running(informer):
        await informer.wait_synced()
        informer.add_handler(
            lambda old, new, initial: events.append(((new or old).metadata.name, new is None, initial))
        )
        events.clear()
        collection.lose()
        await eventually(lambda: informer.failing)
        collection.put("changed")
        collection.remove("deleted")
        collection.put("new")
        collection.forget()
        await settled(informer, collection)
    assert sorted(events) == [("changed", False, True), ("deleted", True, True), ("new", False, True)]
    assert handled == collection.objects
    assert informer.failing == "", "a relist after an absence is routine"


async def test_a_restored_etcd_goes_back_in_versions(collection, informer):
    handled: dict[ObjectKey, Thing] = {}
    informer.add_handler(shadow(handled))
    for number in range(5):
        collection.put(f"old-{number}")
    async with running(informer):
        await informer.wait_synced()
        collection.lose()
        await eventually(lambda: informer.failing)
        collection.restore()
        collection.put("old-1")
        collection.refusals.append(TOO_LARGE)
        await settled(informer, collection)
        assert informer.store.resource_version == "6"
    assert handled == collection.objects


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (
            NotFound(404, "NotFound", "the server could not find the requested resource"),
            "install its CustomResourceDefinition",
        ),
        (Forbidden(403, "Forbidden", 'User "x" cannot list'), "needs permission to list and watch"),
    ],
)
async def test_a_missing_kind_or_permission_is_logged_once_and_recovers(
    collection, informer, refusal, sentence, caplog
):
    caplog.set_level(logging.INFO, "pilothouse.informer")
    collection.put("a")
    collection.refusals += [refusal] * 6
    async with running(informer):
        await asyncio.sleep(20)
        assert sentence in informer.failing
        assert "things.testing.pilothouse.dev" in informer.failing
        assert not informer.synced
        await informer.wait_synced()
        assert informer.failing == ""
        await settled(informer, collection)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_kind_that_is_removed_and_installed_again(collection, informer):
    collection.put("a")
    async with running(informer):
        await informer.wait_synced()
        missing = NotFound(404, "NotFound", "gone")
        collection.refusals += [missing] * 3
        collection.lose()
        collection.objects.clear()
        collection.put("b")
        await settled(informer, collection)
    assert informer.failing == ""


async def test_a_failing_handler_does_not_affect_others(collection, informer, caplog):
    handled: dict[ObjectKey, Thing] = {}

    def broken(old: Thing | None, new: Thing | None, initial: bool) -> None:
        raise ZeroDivisionError

    informer.add_handler(broken)
    informer.add_handler(shadow(handled))
    async with running(informer):
        await informer.wait_synced()
        collection.put("a")
        await settled(informer, collection)
    assert handled == collection.objects
    assert "A handler failed on ns/a" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_several_namespaces_have_separate_watches(collection):
    informer = Informer(collection.api, THINGS, namespaces=["one", "two", "one"])
    for namespace in ("one", "two", "three"):
        collection.put("a", namespace)
    async with running(informer):
        await informer.wait_synced()
        assert set(informer.store.keys()) == {ObjectKey("one", "a"), ObjectKey("two", "a")}
        newer = collection.put("b", "two")
        assert await informer.wait_reached(newer.metadata.resource_version, 5, "two")
        assert not await informer.wait_reached(newer.metadata.resource_version, 5), (
            "namespace one has not reached the version"
        )
        collection.remove("a", "one")
        await eventually(lambda: informer.store.get(ObjectKey("one", "a")) is None)
    assert sorted(each for each in collection.asked if each[0] == "list") == [
        ("list", "one"),
        ("list", "two"),
    ]


async def test_waiting_for_a_version(collection, informer):
    collection.lag = 2
    async with running(informer):
        await informer.wait_synced()
        started = now()
        assert await informer.wait_reached(informer.store.resource_version, 5)
        assert now() == started, "a version that has been seen returns immediately"
        assert not await informer.wait_reached("999", 5)
        assert now() - started == pytest.approx(5)
        started = now()
        made = collection.put("a")
        assert await informer.wait_reached(made.metadata.resource_version, 5)
        assert now() - started == pytest.approx(2)
        assert informer.store.get(made.metadata.key) == made, "the store contains the object"


async def test_own_writes_are_in_the_store_immediately_and_handled_once(collection, informer):
    handled: list[str] = []
    informer.add_handler(lambda old, new, initial: handled.append(new.metadata.resource_version))
    collection.lag = 3
    async with running(informer):
        await informer.wait_synced()
        mine = collection.put("a")
        informer.store.observe(mine)
        assert informer.store.get(mine.metadata.key) == mine
        assert informer.store.resource_version == "10", "the watch has not reached the own write"
        assert await informer.wait_reached(mine.metadata.resource_version, 5)
        assert handled == ["11"]
        theirs = collection.put("a")
        await eventually(lambda: informer.store.get(mine.metadata.key) == theirs)
        informer.store.observe(mine)
        assert informer.store.get(mine.metadata.key) == theirs, "an older result is ignored"
    assert handled == ["11", "12"]


async def test_the_result_of_an_own_write_is_ignored_after_the_deletion(collection, informer):
    async with running(informer):
        await informer.wait_synced()
        answer = collection.put("a")
        collection.remove("a")
        await informer.wait_reached(str(collection.version), 5)
        informer.store.observe(answer)
        assert len(informer.store) == 0


async def test_the_deletion_of_an_earlier_object_does_not_remove_its_successor(collection, informer):
    handled: list[Thing | None] = []
    collection.put("a")
    collection.lag = 3
    async with running(informer):
        await informer.wait_synced()
        informer.add_handler(lambda old, new, initial: handled.append(new))
        handled.clear()
        collection.remove("a")
        successor = collection.put("a")
        informer.store.observe(successor)
        await informer.wait_reached(successor.metadata.resource_version, 20)
        assert informer.store.get(successor.metadata.key) == successor
    assert handled == [successor], "the handler is not called for a deletion"


async def test_a_list_does_not_undo_an_own_write(collection, informer):
    collection.put("a")
    collection.lag = 5
    async with running(informer):
        await asyncio.sleep(7)  # the first page is read, the second is on its way
        mine, other = collection.put("a"), collection.put("b")
        informer.store.observe(mine)
        informer.store.observe(other)
        await informer.wait_synced()
        assert informer.store.get(mine.metadata.key) == mine
        assert informer.store.get(other.metadata.key) == other
        collection.remove("b")
        await settled(informer, collection)


async def test_cancelling_ends_it(collection, informer):
    task = asyncio.create_task(informer.run())
    await informer.wait_synced()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_server_that_streams_lists_and_watches_in_one_request():
    collection = Collection(streams=True)
    collection.put("a")
    informer = Informer(collection.api, THINGS)
    handled: list[tuple[list[str], bool]] = []
    informer.add_handler(
        lambda old, new, initial: handled.append(([each.metadata.name for each in (new,) if each], initial))
    )
    async with running(informer):
        await informer.wait_synced()
        assert (handled, informer.store.resource_version) == ([(["a"], True)], "11")
        collection.put("b")
        await settled(informer, collection)
        collection.cut(None)
        await eventually(lambda: collection.asked[-1] == ("watch", "", "12"))
    assert handled == [(["a"], True), (["b"], False)]
    assert collection.asked == [("stream", ""), ("watch", "", "12")]


async def test_a_streamed_list_counts_only_once_it_is_complete():
    collection = Collection(streams=True)
    handled: dict[ObjectKey, Thing] = {}
    for name in ("a", "b", "c"):
        collection.put(name)
    informer = Informer(collection.api, THINGS)
    informer.add_handler(shadow(handled))
    collection.lag = 1
    async with running(informer):
        await asyncio.sleep(1.5)
        collection.remove("a")
        changed = collection.put("b")
        assert not await informer.wait_reached(changed.metadata.resource_version, 1.4)
        assert informer.store.progress.seen() == 0, "an incomplete list has no version"
        collection.cut(LOST)
        await eventually(lambda: informer.failing)
        assert not informer.synced
        await settled(informer, collection)
        await informer.wait_synced()
        assert informer.store.resource_version == changed.metadata.resource_version
    assert handled == collection.objects
    assert [each[0] for each in collection.asked] == ["stream", "stream"]


async def test_an_object_that_is_deleted_during_a_streamed_list_is_removed():
    collection = Collection(streams=True)
    for name in ("a", "b"):
        collection.put(name)
    informer = Informer(collection.api, THINGS)
    collection.lag = 1
    async with running(informer):
        await asyncio.sleep(1.5)
        collection.remove("a")
        await informer.wait_synced()
        assert contents(informer) == collection.objects


async def test_streaming_is_tried_once_if_the_server_does_not_support_it(collection, informer):
    collection.put("a")
    started = now()
    async with running(informer):
        await informer.wait_synced()
        assert now() == started, "missing support is not an error"
        collection.streams = True
        collection.cut(LOST)
        collection.forget()
        collection.put("b")
        collection.forget()
        await settled(informer, collection)
    assert [each[0] for each in collection.asked] == ["list", "watch", "watch", "list", "watch"]
