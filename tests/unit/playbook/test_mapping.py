"""Mappers that look up which objects refer to the changed one."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, Stores, Watch, by_index, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.testing import ModelApi
from tests.unit.operators import operating
from tests.unit.playbook.configured import CONFIG_MAP, SECRET, ConfigMap, TicketPlay
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


def secrets_of(ticket: Ticket) -> list[str]:
    """The names of the Secrets that a ticket refers to."""
    return [name for name in ticket.metadata.labels.get("secrets", "").split(".") if name]


REFERRED = Secondary(SECRET, mapper=by_index("secret"))


class Log(list[str]):
    """Which tickets were reconciled, and whether their Secrets were there."""

    @property
    def playbook(self) -> Playbook[TicketPlay]:
        @task("the Secrets are read")
        async def read(play: TicketPlay) -> None:
            there = [name for name in secrets_of(play.object) if play.get(SECRET, name)]
            self.append(" ".join([play.object.metadata.name, *there]))

        return Playbook(Play, tasks=[read])

    def taken(self) -> list[str]:
        """What was logged since the last call."""
        taken = sorted(self)
        self.clear()
        return taken


def watching(log: Log, *, indexes: Any = None, watches: Sequence[Secondary] = (REFERRED,)) -> Watch:
    return Watch(TICKET, log.playbook, resync=0, indexes=indexes or {"secret": secrets_of}, watches=watches)


def refer(api: ModelApi, name: str, *secrets: str, namespace: str = "default") -> None:
    api.put(TICKET, name, namespace=namespace, metadata={"labels": {"secrets": ".".join(secrets)}}, spec={})


async def changed(api: ModelApi, name: str, color: str = "", namespace: str = "default") -> None:
    api.put(SECRET, name, namespace=namespace, metadata={"labels": {"color": color}})
    await asyncio.sleep(1)


async def test_what_refers_to_an_object_is_reconciled_when_that_changes(api: ModelApi) -> None:
    log = Log()
    refer(api, "a", "one", "two")
    refer(api, "b", "two")
    refer(api, "c")
    refer(api, "elsewhere", "two", namespace="other")
    async with operating(api, watching(log)):
        assert log.taken() == ["a", "b", "c", "elsewhere"]
        await changed(api, "one")
        assert log.taken() == ["a one"]
        await changed(api, "two")
        assert log.taken() == ["a one two", "b two"]
        await changed(api, "two", "red")
        assert log.taken() == ["a one two", "b two"]
        await changed(api, "unknown")
        assert log.taken() == []
        api.remove(SECRET, ObjectKey("default", "two"))
        await asyncio.sleep(1)
        assert log.taken() == ["a one", "b"]


async def test_an_object_that_appears_after_what_it_refers_to_finds_it(api: ModelApi) -> None:
    log = Log()
    async with operating(api, watching(log)):
        await changed(api, "one")
        assert log.taken() == []
        refer(api, "a", "one")
        await asyncio.sleep(1)
        assert log.taken() == ["a one"]
        await changed(api, "one", "red")
        assert log.taken() == ["a one"]


async def test_a_deleted_object_is_not_reconciled_for_what_it_referred_to(api: ModelApi) -> None:
    log = Log()
    refer(api, "a", "one")
    async with operating(api, watching(log)):
        api.remove(TICKET, ObjectKey("default", "a"))
        await asyncio.sleep(1)
        log.clear()
        await changed(api, "one")
        assert log.taken() == []


async def test_an_object_that_refers_to_something_else_is_reconciled(api: ModelApi) -> None:
    """A change of labels alone would not be a reason."""
    log = Log()
    refer(api, "a", "one")
    async with operating(api, watching(log)):
        await changed(api, "two")
        log.clear()
        refer(api, "a", "two")
        await asyncio.sleep(1)
        assert log.taken() == ["a two"]
        await changed(api, "one")
        assert log.taken() == []


async def test_a_reference_to_another_namespace_is_a_key(api: ModelApi) -> None:
    log = Log()
    refer(api, "a", "one")
    watch = watching(log, indexes={"secret": lambda _: [ObjectKey("vault", "one")]})
    async with operating(api, watch):
        log.clear()
        await changed(api, "one")
        assert log.taken() == []
        await changed(api, "one", namespace="vault")
        assert log.taken() == ["a one"]


async def test_a_mapper_may_go_by_way_of_another_kind(api: ModelApi) -> None:
    """Secret -> the ConfigMaps that name it -> the tickets of those."""
    log = Log()

    def secret_named(config_map: ConfigMap) -> list[str]:
        return [config_map.data["secret"]] if "secret" in config_map.data else []

    def tickets_of(secret: Any, stores: Stores) -> Iterable[ObjectKey]:
        for config_map in stores.list(CONFIG_MAP, "secret", secret.metadata.name):
            if stores.get(TICKET, config_map.metadata.name, namespace="default"):
                yield config_map.metadata.key

    config_maps = Secondary(CONFIG_MAP, mapper=lambda _, stores: (), indexes={"secret": secret_named})
    refer(api, "a", "one")
    refer(api, "b", "one")
    for name in ("a", "none"):
        api.put(CONFIG_MAP, name, data={"secret": "one"})
    async with operating(api, watching(log, watches=[config_maps, Secondary(SECRET, mapper=tickets_of)])):
        log.clear()
        await changed(api, "one")
        assert log.taken() == ["a one"]


async def test_a_reference_that_a_playbook_sets_itself_loses_no_change(
    api: ModelApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Secret appears after the task has looked, and before the index shows what the task refers to."""
    seen: list[bool] = []

    @task("a Secret is chosen")
    async def choose(play: TicketPlay) -> None:
        seen.append(play.get(SECRET, "one") is not None)
        play.status = replace(play.status, booking="one")

    patch = api.patch

    async def late(resource: Any, key: ObjectKey, body: Any, **options: Any) -> Any:
        if options.get("subresource") == "status" and not api.exists(SECRET, ObjectKey("default", "one")):
            await changed(api, "one")
        return await patch(resource, key, body, **options)

    monkeypatch.setattr(api, "patch", late)
    refer(api, "a")
    indexes: dict[str, Callable[[Ticket], list[str]]] = {"secret": lambda ticket: [ticket.status.booking]}
    book: Playbook[TicketPlay] = Playbook(Play, tasks=[choose])
    async with operating(api, Watch(TICKET, book, resync=0, indexes=indexes, watches=[REFERRED])):
        await asyncio.sleep(5)
    assert seen == [False, True]


async def test_an_index_that_fails_on_an_object_leaves_the_others_alone(api: ModelApi) -> None:
    log = Log()
    refer(api, "a", "one")
    api.put(TICKET, "broken", metadata={}, spec={})
    watch = watching(log, indexes={"secret": lambda ticket: [ticket.metadata.labels["secrets"]]})
    async with operating(api, watch):
        log.clear()
        await changed(api, "one")
        assert log.taken() == ["a one"]
        api.put(TICKET, "broken", metadata={}, spec={"seats": 3})
        await asyncio.sleep(1)
        assert log.taken() == ["broken"]


async def test_two_watches_share_an_index_if_it_is_the_same(api: ModelApi) -> None:
    log = Log()
    one = watching(log)
    other = Watch(
        TICKET, log.playbook, name="other", writes_status=False, indexes=one.indexes, watches=[REFERRED]
    )
    async with operating(api, one, other):
        pass
    with pytest.raises(TypeError, match="declare the index 'secret' with different functions"):
        async with operating(
            api, one, Watch(TICKET, log.playbook, name="other", writes_status=False, indexes={"secret": str})
        ):
            pass


def one_argument(secret: object) -> Iterator[ObjectKey]:
    yield ObjectKey("", "")


async def asynchronous(secret: object, stores: Stores) -> Iterable[ObjectKey]:
    return ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Watch(TICKET, Log().playbook, watches=[REFERRED]), "reads the index 'secret'"),
        (lambda: Secondary(SECRET, mapper=one_argument), "must take two arguments"),  # type: ignore[arg-type]
        (lambda: Secondary(SECRET, mapper=asynchronous), "async def"),  # type: ignore[arg-type]
    ],
)
async def test_a_mapper_that_cannot_work_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


async def test_stores_have_what_the_watch_declares(api: ModelApi) -> None:
    log = Log()
    found: list[Stores] = []

    def look(secret: Any, stores: Stores) -> Iterable[ObjectKey]:
        found.append(stores)
        return ()

    async with operating(api, Watch(TICKET, log.playbook, watches=[Secondary(SECRET, mapper=look)])):
        await changed(api, "one")
    [stores] = found
    assert stores.get(SECRET, "one", namespace="default") is not None
    assert stores.get(TICKET, "none", namespace="default") is None
    for wrong in (lambda: stores.get(CONFIG_MAP, "x"), lambda: stores.list(TICKET, "x", "y")):
        with pytest.raises(PlaybookError, match=r"not declared|has no index 'x' of"):
            wrong()


async def unawaited(secret: Any, stores: Stores) -> list[ObjectKey]:
    return []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda: ["a"], "it returned 'a', but must return a list of the ObjectKeys of tickets.tests.dev"),
        (lambda: "a", "it returned 'a', but"),
        (lambda: [("default", "a")], "it returned a tuple, but"),
        (lambda: ObjectKey("default", "a"), "it returned a single ObjectKey, but"),
        (lambda: None, "it returned None, but"),
        (lambda: 5, "it returned 5, but"),
        (lambda: unawaited(None, cast("Any", None)), "what the mapper returned is a coroutine that was not"),
    ],
)
async def test_a_mapper_that_returns_something_else_is_reported_on_the_object(
    api: ModelApi, found: Callable[[], Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    refer(api, "a", "one")
    secondary = Secondary(SECRET, mapper=lambda secret, stores: found())
    async with operating(api, watching(log, watches=[secondary])):
        await changed(api, "one")
        [event] = api.all(EVENT)
    assert f"of a mistake in the mapper: {words}" in event["note"]
    assert event["regarding"]["name"] == "one"
    assert "Traceback" not in caplog.text
