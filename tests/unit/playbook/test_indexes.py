"""An index function that fails for an object hides no object: the play fails, or the object reports it."""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.informer import Store
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, Stores, Watch, add_watch, by_index
from pilothouse.process import Manager, Settings
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, ConfigMap, named, operator, ready
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


def colors(obj: ConfigMap) -> list[str]:
    return [obj.data["color"]]


class Panic(BaseException):
    """As PyO3's PanicException."""


def panicking(obj: ConfigMap) -> list[str]:
    raise Panic


async def list_red(play: Any) -> None:
    play.list(CONFIG_MAP, "color", "red")


def watching(indexes: dict[str, Any]) -> list[Secondary]:
    return [Secondary(CONFIG_MAP, indexes=indexes)]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (colors, "unexpected KeyError"),
        (lambda obj: obj.metadata.name, "unexpected TypeError"),
        (lambda obj: None, "unexpected TypeError"),
        (lambda obj: [["unhashable"]], "unexpected TypeError"),
        (lambda obj: exit(1), "unexpected SystemExit"),
        (panicking, "unexpected Panic"),
    ],
    ids=["error", "text", "None", "unhashable", "SystemExit", "panic"],
)
async def test_a_list_by_an_index_that_lacks_an_object_fails_the_task(
    api: ModelApi, ticket: ObjectKey, values: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = api.put(CONFIG_MAP, "plain")
    book: Playbook[Any] = Playbook(Play, tasks=[named(list_red)])
    async with operator(api, book, owns=(), watches=watching({"color": values})):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "IndexFailed")
        assert message == (
            f"The index 'color' lacks ConfigMap {key}, because the index function failed for it: {why}. The "
            "operator's log has the details. Correct the function: it must return a list of values for every "
            "object."
        )
        reported = [each for each in api.all(EVENT) if each["regarding"]["kind"] == "ConfigMap"]
        assert [(each["reason"], each["regarding"]["name"]) for each in reported] == [
            ("IndexFailed", "plain")
        ]
        assert caplog.text.count("Traceback") == 1
        api.remove(CONFIG_MAP, key)
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True", "it recovers"


async def test_a_list_works_again_once_the_object_has_values(api: ModelApi, ticket: ObjectKey) -> None:
    found: list[int] = []

    async def count(play: Any) -> None:
        found.append(len(play.list(CONFIG_MAP, "color", "red")))

    api.put(CONFIG_MAP, "one")
    book: Playbook[Any] = Playbook(Play, tasks=[named(count)])
    async with operator(api, book, owns=(), watches=watching({"color": colors}), resync=5):
        assert ready(api, ticket)[1] == "IndexFailed"
        api.put(CONFIG_MAP, "one", data={"color": "red"})
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"
        assert found[-1] == 1


def seats(obj: Ticket) -> Iterator[str]:
    yield str(1 // obj.spec.seats)


async def test_an_object_that_an_index_of_its_own_kind_lacks_reports_that(
    api: ModelApi, ticket: ObjectKey
) -> None:
    ran: list[str] = []

    async def run(play: Any) -> None:
        ran.append(play.object.metadata.name)

    bad = api.put(TICKET, "bad", spec={"seats": 0})
    async with tickets(api, Playbook(Play, tasks=[named(run)])):
        await asyncio.sleep(600)
        assert sorted(ran) == ["bad", ticket.name], "it is reconciled, and not retried"
        assert ready(api, ticket)[0] == "True"
        status, reason, message = ready(api, bad)
        assert (status, reason) == ("False", "IndexFailed")
        assert "The index 'seats' lacks Ticket default/bad" in message
        api.put(TICKET, "bad", spec={"seats": 1})
        await asyncio.sleep(5)
        assert ready(api, bad)[0] == "True"
        api.put(TICKET, "bad", spec={"seats": 0}, metadata={"finalizers": ["tests.dev/x"]})
        await asyncio.sleep(5)
        assert ready(api, bad)[1] == "IndexFailed"


@asynccontextmanager
async def tickets(api: ModelApi, book: Playbook[Any], mapper: Any = None) -> Any:
    """An operator whose watch has an index of the tickets."""
    manager = Manager("tickets", Settings(health_host="127.0.0.1", health_port=0), api)
    others = [Secondary(CONFIG_MAP, mapper=mapper or by_index("seats"))]
    add_watch(manager, Watch(TICKET, book, indexes={"seats": seats}, watches=others, resync=0))
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    yield
    assert not process.done()
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)


async def test_a_mapper_with_a_wrong_index_is_a_sentence_on_the_changed_object(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    def mapper(obj: Any, stores: Stores) -> Iterable[ObjectKey]:
        return [each.metadata.key for each in stores.list(TICKET, "seat", "1")]

    api.put(CONFIG_MAP, "one")
    async with tickets(api, Playbook(Play, tasks=[]), mapper):
        [event] = api.all(EVENT)
        assert event["regarding"]["name"] == "one"
        assert (
            "of a mistake in the mapper: the watch has no index 'seat' of tickets.tests.dev. Its"
            in event["note"]
        )
        assert not [record for record in caplog.records if record.exc_info]


async def test_an_index_whose_function_fails_later_keeps_no_stale_entry() -> None:
    store: Store[ConfigMap] = Store("configmaps")
    broken = False

    def values(obj: ConfigMap) -> list[str]:
        if broken:
            raise RuntimeError
        return ["a"]

    store.add_index("i", values)
    obj = ConfigMap(_meta("one", "1"))
    store.upsert(obj, "")
    assert store.by_index("i", "a") == [obj]
    broken = True
    store.upsert(ConfigMap(_meta("one", "2")), "")
    assert store.by_index("i", "a") == []
    assert store.index_failures("i") == {ObjectKey("", "one"): "unexpected RuntimeError"}
    store.remove(_meta("one", "3"), "")
    assert store.index_failures("i") == {}
    assert store.by_index("i", "a") == []


def _meta(name: str, version: str) -> Any:
    from pilothouse.kube import ObjectMeta

    return ObjectMeta(name=name, resource_version=version)
