"""What a watch declares: which objects are played, where, and behind which fence."""

import asyncio
import math
from collections.abc import Callable

import pytest

from pilothouse.controller import EventRecorder, Fence, Fenced, Manager, Settings
from pilothouse.informer import Informer, Store
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Reconciler, Secondary, Watch, add_watch, task
from pilothouse.playbook.cluster import Cluster
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, OWNS, SECRET, Function, TicketPlay, named
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


async def played(
    api: ModelApi, watch: Callable[[Playbook[TicketPlay]], Watch], **settings: object
) -> list[str]:
    """The names of what an operator with such a watch plays."""
    names: list[str] = []

    @task("noted")
    async def note(play: TicketPlay) -> None:
        names.append(str(play.object.metadata.key))

    chosen = Settings(health_host="127.0.0.1", health_port=0, **settings)  # type: ignore[arg-type]
    manager = Manager("tickets", chosen, api)
    add_watch(manager, watch(Playbook(Play, tasks=[note])))
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)
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
async def test_only_what_is_selected_is_played(
    api: ModelApi, options: dict[str, str], names: list[str]
) -> None:
    assert await played(api, lambda book: Watch(TICKET, book, **options)) == names  # type: ignore[arg-type]


@pytest.mark.usefixtures("tickets")
async def test_the_operators_setting_goes_before_the_watchs_namespaces(api: ModelApi) -> None:
    def watch(book: Playbook[TicketPlay]) -> Watch:
        return Watch(TICKET, book, namespaces=("elsewhere",))

    assert await played(api, watch, watch_namespaces=("default",)) == ["default/blue", "default/red"]


async def test_two_watches_may_read_the_same_kind(api: ModelApi) -> None:
    manager = Manager("tickets", Settings(health_host="127.0.0.1", health_port=0), api)
    for resync in (1, 2):
        add_watch(manager, Watch(TICKET, Playbook(Play, tasks=[]), resync=resync, owns=[CONFIG_MAP]))
    one, other = (manager.informer(CONFIG_MAP), manager.informer(CONFIG_MAP))
    assert one is other
    assert one.store.by_index("owner", "nobody") == []


async def test_a_secondary_kind_may_be_selected_too(api: ModelApi, ticket: ObjectKey) -> None:
    manager = Manager("tickets", Settings(health_host="127.0.0.1", health_port=0), api)
    api.put(SECRET, "blue", metadata={"labels": {"color": "blue"}})
    api.put(SECRET, "red", metadata={"labels": {"color": "red"}})
    add_watch(
        manager, Watch(TICKET, Playbook(Play, tasks=[]), watches=[Secondary(SECRET, selector="color=blue")])
    )
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    store = manager.informer(SECRET, label_selector="color=blue").store
    assert [key.name for key in store.keys()] == ["blue"]  # noqa: SIM118 - no mapping
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)


async def book(play: TicketPlay) -> None:
    await play.call("book", asyncio.Event().wait)


async def book_twice(play: TicketPlay) -> None:
    try:
        await book(play)
    finally:
        await play.call("log out", asyncio.Event().wait)


@pytest.mark.parametrize("function", [book, book_twice])
@pytest.mark.parametrize("until", [-math.inf, 10.0])
async def test_who_may_lead_no_more_changes_nothing_and_says_nothing(
    api: ModelApi, ticket: ObjectKey, function: Function, until: float
) -> None:
    """Neither the outside system nor, by a status, the object: both are the next leader's."""
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
