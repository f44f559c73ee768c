"""A watch declares which objects are reconciled, in which namespaces, and which changes count."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from pilothouse.controller import (
    EventRecorder,
    Fence,
    Fenced,
    Predicate,
    any_change,
    generation_changed,
    labels_changed,
)
from pilothouse.controller.events import EVENT
from pilothouse.informer import Informer, Store
from pilothouse.kube import EMPTY, ObjectKey
from pilothouse.playbook import Play, Playbook, Reconciler, Secondary, Watch, add_watch, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.playbook.cluster import Cluster
from pilothouse.telemetry import metrics
from pilothouse.testing import ModelApi
from tests.unit.operators import manager_of, operating
from tests.unit.playbook.airline import FINALIZER
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, OWNS, SECRET, Function, TicketPlay, named
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


async def played(api: ModelApi, watch: Callable[[Playbook[TicketPlay]], Watch], **settings: Any) -> list[str]:
    """Returns the names of the objects that an operator with the given watch reconciles."""
    names: list[str] = []

    @task("noted")
    async def note(play: TicketPlay) -> None:
        names.append(str(play.object.metadata.key))

    async with operating(api, watch(Playbook(Play, tasks=[note])), **settings):
        return sorted(names)


@pytest.fixture
def tickets(api: ModelApi) -> None:
    api.put(TICKET, "blue", metadata={"labels": {"color": "blue"}})
    api.put(TICKET, "red", metadata={"labels": {"color": "red"}})
    api.put(TICKET, "far", namespace="elsewhere")


@pytest.mark.usefixtures("tickets")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["default/blue", "default/red", "elsewhere/far"]),
        ({"selector": "color=blue"}, ["default/blue"]),
        ({"field_selector": "metadata.name=red"}, ["default/red"]),
        ({"namespaces": ("elsewhere",)}, ["elsewhere/far"]),
    ],
)
async def test_only_selected_objects_are_reconciled(
    api: ModelApi, options: dict[str, str], names: list[str]
) -> None:
    assert await played(api, lambda book: Watch(TICKET, book, **options)) == names  # type: ignore[arg-type]


@pytest.mark.usefixtures("tickets")
async def test_the_operators_setting_overrides_the_namespaces_of_the_watch(api: ModelApi) -> None:
    def watch(book: Playbook[TicketPlay]) -> Watch:
        return Watch(TICKET, book, namespaces=("elsewhere",))

    assert await played(api, watch, watch_namespaces=("default",)) == ["default/blue", "default/red"]


async def test_two_watches_may_read_the_same_kind(api: ModelApi) -> None:
    manager = manager_of(
        api,
        *[
            Watch(TICKET, Playbook(Play, tasks=[]), name=name, owns=[CONFIG_MAP], selector=f"watch={name}")
            for name in ("one", "other")
        ],
    )
    one, other = (manager.informer(CONFIG_MAP), manager.informer(CONFIG_MAP))
    assert one is other
    assert one.store.by_index("owner", "nobody") == []


async def test_a_secondary_kind_may_be_selected_too(api: ModelApi, ticket: ObjectKey) -> None:
    api.put(SECRET, "blue", metadata={"labels": {"color": "blue"}})
    api.put(SECRET, "red", metadata={"labels": {"color": "red"}})
    watch = Watch(TICKET, Playbook(Play, tasks=[]), watches=[Secondary(SECRET, selector="color=blue")])
    async with operating(api, watch) as manager:
        store = manager.informer(SECRET, label_selector="color=blue").store
        assert [key.name for key in store.keys()] == ["blue"]  # noqa: SIM118 - no mapping


async def book(play: TicketPlay) -> None:
    await play.call("book", asyncio.Event().wait)


async def book_twice(play: TicketPlay) -> None:
    try:
        await book(play)
    finally:
        await play.call("log out", asyncio.Event().wait)


@pytest.mark.parametrize("function", [book, book_twice])
@pytest.mark.parametrize("until", [-math.inf, 10.0])
async def test_a_deposed_leader_changes_nothing_and_reports_nothing(
    api: ModelApi, ticket: ObjectKey, function: Function, until: float
) -> None:
    """Neither the outside system nor the object's status: the next leader writes both."""
    fence = Fence(asyncio.get_running_loop().time() + until)
    store: Store[Ticket] = Store("tickets")
    store.observe(await api.get(TICKET, ticket))
    informers = [Informer(api, resource) for resource in OWNS]
    cluster = Cluster(api, fence, TICKET, manager="tickets", informers=informers)
    playbook: Playbook[TicketPlay] = Playbook(Play, tasks=[named(function)])
    reconciler = Reconciler(api, TICKET, store, playbook, EventRecorder(api, "tests"), cluster)
    with pytest.raises(Fenced):
        await reconciler.sync(ticket)
    assert api.writes == []


@pytest.mark.parametrize(
    "secondaries",
    [
        [Secondary(SECRET, selector="a=1"), Secondary(SECRET, selector="a=2")],
        [Secondary(SECRET), Secondary(replace(SECRET, version="v2"))],
        [Secondary(TICKET), Secondary(TICKET, field_selector="metadata.name=a")],
    ],
)
async def test_a_kind_that_is_declared_twice_with_different_views_is_refused(
    secondaries: list[Secondary],
) -> None:
    with pytest.raises(
        PlaybookError, match=r"declares .* twice, with different views, selectors or transforms"
    ):
        Watch(TICKET, Playbook(Play, tasks=[]), watches=secondaries)


@pytest.mark.usefixtures("tickets")
async def test_two_watches_of_a_kind_have_names_and_metrics_of_their_own(api: ModelApi) -> None:
    book: Playbook[TicketPlay] = Playbook(Play, tasks=[])
    one = Watch(TICKET, book, workers=5)
    red = Watch(TICKET, book, workers=3, name="red-tickets", selector="color=red", writes_status=False)
    async with operating(api, one, red) as manager:
        shown = metrics.render().decode()
        assert 'controller_runtime_max_concurrent_reconciles{controller="ticket"} 5.0' in shown
        assert 'controller_runtime_max_concurrent_reconciles{controller="red-tickets"} 3.0' in shown
        held = metrics.STORE_OBJECTS.labels(str(TICKET))
        before = sum(each.value for metric in held.collect() for each in metric.samples)
        api.put(TICKET, "pale-red", metadata={"labels": {"color": "red"}})
        await asyncio.sleep(1)
        after = sum(each.value for metric in held.collect() for each in metric.samples)
        assert after - before == 2, "one in each store"
        with pytest.raises(PlaybookError, match=r"two controllers are named 'ticket'\. .* name=\.\.\."):
            add_watch(manager, Watch(TICKET, book, writes_status=False))


async def test_an_object_that_leaves_the_selection_with_our_finalizer_is_reported(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    def book(name: str) -> ObjectKey:
        return api.put(TICKET, name, metadata={"labels": {"color": "red"}})

    @task("cleaned up")
    async def cleaned(play: TicketPlay) -> None:
        pass

    leaves, goes = book("leaves"), book("goes")
    playbook: Playbook[TicketPlay] = Playbook(Play, tasks=[], cleanup=[cleaned], finalizer=FINALIZER)
    async with operating(api, Watch(TICKET, playbook, selector="color=red")):
        api.remove(TICKET, goes)
        api.put(TICKET, leaves.name, metadata={"labels": {}})
        await asyncio.sleep(1)
    [warning] = [each.getMessage() for each in caplog.records if "finalizer" in each.getMessage()]
    assert warning.startswith(
        "Ticket default/leaves has the finalizer tests.dev/booking and is no longer selected by 'color=red'"
    )
    [event] = [each for each in api.all(EVENT) if each["reason"] == "NoLongerSelected"]
    assert event["type"] == "Warning"
    assert event["regarding"]["name"] == leaves.name
    assert event["note"] == warning
    assert "Make it match the selector again, or clean up manually and remove the finalizer." in warning


def without_labels(ticket: Ticket) -> Ticket:
    return replace_struct(ticket, metadata=replace_struct(ticket.metadata, labels=EMPTY))


@pytest.mark.parametrize(
    ("options", "plays"),
    [
        ({}, 1),
        ({"predicate": labels_changed}, 2),
        ({"predicate": labels_changed, "transform": without_labels}, 1),
    ],
)
async def test_predicate_and_transform_of_a_watch(
    api: ModelApi, ticket: ObjectKey, options: dict[str, Any], plays: int
) -> None:
    labels: list[int] = []

    async def look(play: TicketPlay) -> None:
        labels.append(len(play.object.metadata.labels))

    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[named(look)]), **options)):
        api.put(TICKET, ticket.name, metadata={"labels": {"color": "red"}})
        await asyncio.sleep(1)
    assert len(labels) == plays
    assert sum(labels) == plays - 1


@pytest.mark.parametrize(("predicate", "plays"), [(any_change, 2), (generation_changed, 1)])
async def test_the_predicate_of_a_secondary(
    api: ModelApi, ticket: ObjectKey, predicate: Predicate[Any], plays: int
) -> None:
    played: list[None] = []

    async def look(play: TicketPlay) -> None:
        played.append(None)

    api.put(DEPLOYMENT, "web")
    secondary = Secondary(DEPLOYMENT, lambda deployment, stores: [ticket], predicate=predicate)
    async with operating(api, Watch(TICKET, Playbook(Play, tasks=[named(look)]), watches=[secondary])):
        before = len(played)
        api.put(DEPLOYMENT, "web", status={"readyReplicas": 1})
        await asyncio.sleep(1)
        assert len(played) - before == plays - 1
