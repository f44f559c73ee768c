"""Objects of other kinds: their changes queue the right keys, and keys wait for own writes of them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec
import pytest

from pilothouse.controller import Controller, Mapper, Outcome, PermanentError, any_change, owner_mapper
from pilothouse.controller.controller import every_object
from pilothouse.controller.predicates import Predicate
from pilothouse.informer import InformerFactory
from pilothouse.kube import Forbidden, KubeError, ObjectKey, ObjectMeta, Resource, Unreachable
from pilothouse.testing import Call, ModelApi, eventually
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


class Seat(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


SEAT: Resource[Seat] = Resource("tests.dev", "v1", "Seat", "seats", Seat)

BY_OWNER = owner_mapper(TICKET)

Sync = Callable[["Setup", ObjectKey], Awaitable[None]]


def owned_by(name: str, *, group: str = "tests.dev", kind: str = "Ticket", controller: bool = True) -> Any:
    reference = {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "name": name,
        "uid": f"uid-{name}",
        "controller": controller,
    }
    return {"ownerReferences": [reference]}


class Setup:
    """Tickets and their seats. `synced` lists the reconciled tickets, and how many seats each found."""

    def __init__(
        self, api: ModelApi, sync: Sync | None, admits: Callable[[Ticket], bool] = every_object
    ) -> None:
        self.api = api
        self.factory = InformerFactory(api)
        self.tickets = self.factory.informer(TICKET)
        self.seats = self.factory.informer(SEAT)
        self.seats.store.add_index(
            "ticket", lambda seat: [each.name for each in seat.metadata.owner_references]
        )
        self.synced: list[tuple[str, int]] = []
        self.times: list[float] = []
        self._sync = sync
        self.controller = Controller[Ticket]("ticket", api, self.tickets, self.sync, admits=admits)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.synced]

    async def sync(self, key: ObjectKey) -> Outcome:
        self.synced.append((key.name, len(self.seats.store.by_index("ticket", key.name))))
        self.times.append(asyncio.get_running_loop().time())
        if self._sync:
            await self._sync(self, key)
        return Outcome()

    async def make_seat(self, key: ObjectKey) -> None:
        body = {
            "apiVersion": "tests.dev/v1",
            "kind": "Seat",
            "metadata": {"name": key.name, **owned_by(key.name)},
        }
        made = await self.api.create(SEAT, body, namespace=key.namespace)
        self.controller.own_writes.wrote_secondary(key, self.seats, made)


@asynccontextmanager
async def running(
    api: ModelApi,
    sync: Sync | None = None,
    mapper: Mapper[Any] = BY_OWNER,
    predicate: Predicate[Any] = any_change,
) -> AsyncIterator[Setup]:
    setup = Setup(api, sync)
    setup.controller.watch(setup.seats, mapper, predicate)
    async with AsyncExitStack() as stack:
        informing = asyncio.create_task(setup.factory.run())
        stack.push_async_callback(cancelled, informing)
        await setup.factory.wait_synced()
        working = asyncio.create_task(setup.controller.run())
        stack.push_async_callback(cancelled, working)
        await asyncio.sleep(0.01)
        yield setup
        assert not informing.done()
        assert not working.done()


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_owner_is_reconciled_when_a_secondary_appears_changes_or_vanishes(api: ModelApi) -> None:
    for name in ("a", "b"):
        api.put(TICKET, name)
    async with running(api) as setup:
        setup.synced.clear()
        key = api.put(SEAT, "s", metadata=owned_by("a"))
        await asyncio.sleep(1)
        assert setup.synced == [("a", 1)]
        api.put(SEAT, "s", metadata={"labels": {"x": "y"}})
        await asyncio.sleep(1)
        assert setup.synced == [("a", 1), ("a", 1)]
        api.remove(SEAT, key)
        await asyncio.sleep(1)
        assert setup.synced == [("a", 1), ("a", 1), ("a", 0)]


async def test_secondaries_of_the_initial_list_cause_no_second_reconcile(api: ModelApi) -> None:
    api.put(TICKET, "a")
    for name in ("s", "t"):
        api.put(SEAT, name, metadata=owned_by("a"))
    async with running(api) as setup:
        assert setup.synced == [("a", 2)]


async def test_both_owners_are_reconciled_when_a_secondary_changes_its_owner(api: ModelApi) -> None:
    for name in ("a", "b", "c"):
        api.put(TICKET, name)
    api.put(SEAT, "s", metadata=owned_by("a"))
    async with running(api) as setup:
        setup.synced.clear()
        api.put(SEAT, "s", metadata=owned_by("b"))
        await asyncio.sleep(1)
        assert sorted(setup.synced) == [("a", 0), ("b", 1)]


@pytest.mark.parametrize(
    "owner",
    [
        {},
        owned_by("a", kind="Ticketing"),
        owned_by("a", group="other.dev"),
        owned_by("a", controller=False),
    ],
)
async def test_only_an_owner_of_the_right_kind_and_group_is_reconciled(api: ModelApi, owner: Any) -> None:
    api.put(TICKET, "a")
    async with running(api) as setup:
        api.put(SEAT, "s", metadata=owner)
        await asyncio.sleep(1)
        assert setup.names == ["a"]


async def test_the_owner_of_a_cluster_scoped_kind_has_no_namespace() -> None:
    fleet: Resource[Seat] = Resource("tests.dev", "v2", "Fleet", "fleets", Seat, namespaced=False)
    (reference,) = owned_by("f", kind="Fleet")["ownerReferences"]
    seat = msgspec.convert(
        {"metadata": {"name": "s", "namespace": "ns", "ownerReferences": [reference]}}, Seat
    )
    assert list(owner_mapper(fleet)(seat)) == [ObjectKey("", "f")]


async def test_any_mapping_and_any_predicate(api: ModelApi) -> None:
    for name in ("a", "b", "c"):
        api.put(TICKET, name)

    def named(seat: Seat) -> list[ObjectKey]:
        return [ObjectKey("default", name) for name in seat.metadata.labels.get("for", "").split("-")]

    def labelled(old: Seat | None, new: Seat | None) -> bool:
        return new is not None and "for" in new.metadata.labels

    async with running(api, None, named, labelled) as setup:
        setup.synced.clear()
        api.put(SEAT, "s")
        await asyncio.sleep(1)
        assert setup.names == []
        api.put(SEAT, "s", metadata={"labels": {"for": "a-b"}})
        await asyncio.sleep(1)
        assert sorted(name for name in setup.names if name) == ["a", "b"]


async def test_a_failing_mapper_does_not_affect_other_objects(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(seat: Seat) -> list[ObjectKey]:
        if seat.metadata.name == "bad":
            raise ZeroDivisionError
        return [ObjectKey("default", "a")]

    api.put(TICKET, "a")
    async with running(api, None, broken) as setup:
        api.put(SEAT, "bad")
        api.put(SEAT, "good")
        await asyncio.sleep(1)
        assert setup.names == ["a", "a"]
    assert "A handler failed on default/bad" in caplog.text


async def test_a_permanent_failure_is_retried_when_a_secondary_changes(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> None:
        raise PermanentError("there is no seat")

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        api.put(SEAT, "s", metadata=owned_by("a"))
        await asyncio.sleep(1)
        assert setup.synced == [("a", 0), ("a", 1)]


async def test_a_key_waits_until_the_watch_shows_the_secondary_that_it_created(api: ModelApi) -> None:
    """If another change queued the key immediately, its reconcile would read a stale store of seats."""

    async def sync(setup: Setup, key: ObjectKey) -> None:
        if len(setup.synced) == 1:
            api.connected.clear()
            await setup.make_seat(key)
            setup.controller.queue.add(key)

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        assert len(setup.seats.store) == 1, "the created object is in the store immediately"
        await asyncio.sleep(3)
        assert setup.synced == [("a", 0)], "it waits"
        api.put(TICKET, "other")
        setup.controller.queue.add(ObjectKey("default", "other"))
        await asyncio.sleep(0.1)
        assert setup.names == ["a", "other"], "other keys do not wait"
        api.connected.set()
        await asyncio.sleep(0.1)
        assert ("a", 1) in setup.synced
        assert not [call for call in api.calls if call.verb == "get"]
        assert setup.controller.own_writes._secondary == {}


async def test_after_five_seconds_all_missing_writes_are_read_live(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> None:
        if len(setup.synced) == 1:
            api.connected.clear()
            await setup.make_seat(key)
            await setup.make_seat(ObjectKey(key.namespace, "second"))
            setup.controller.queue.add(key)

    key = api.put(TICKET, "a")
    async with running(api, sync) as setup:
        # Another client changes the first seat in between.
        api.put(SEAT, "a", metadata={"labels": {"x": "y"}})
        await asyncio.sleep(100)
        first, second = setup.times[:2]
        assert second - first == pytest.approx(5, abs=0.1)
        assert {call.key.name for call in api.calls if call.verb == "get"} == {"a", "second"}
        seat = setup.seats.store.get(key)
        assert seat is not None
        assert seat.metadata.labels == {"x": "y"}


@pytest.mark.parametrize(
    "error", [Unreachable("refused", maybe_sent=False), ZeroDivisionError(), SystemExit(1)]
)
async def test_a_failed_live_read_is_retried(api: ModelApi, error: BaseException) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> None:
        if len(setup.synced) == 1:
            api.connected.clear()
            await setup.make_seat(key)
            setup.controller.queue.add(key)

    refusals = [error]

    async def refuse(call: Call) -> None:
        if call.verb == "get" and refusals:
            raise refusals.pop()

    api.put(TICKET, "a")
    api.before = refuse
    async with running(api, sync) as setup:
        await asyncio.sleep(8)
        assert setup.names == ["a"], "it is not reconciled with a store that may be stale"
        await asyncio.sleep(8)
        assert setup.names == ["a", "a"]
        assert not refusals


async def test_a_deleted_secondary_delays_no_key(api: ModelApi) -> None:
    async def sync(setup: Setup, key: ObjectKey) -> None:
        if len(setup.synced) == 1:
            api.connected.clear()
            await setup.make_seat(key)
            api.remove(SEAT, key)
            setup.controller.queue.add(key)

    api.put(TICKET, "a")
    async with running(api, sync) as setup:
        await asyncio.sleep(6)
        assert setup.names == ["a", "a"]


async def test_a_missing_secondary_kind_is_logged_and_recovers(
    api: ModelApi, caplog: pytest.LogCaptureFixture
) -> None:
    """No reconcile runs before all kinds that it reads are listed, and no restart is needed."""
    caplog.set_level(logging.INFO, "pilothouse.informer")
    refusals: list[KubeError] = [Forbidden(403, "Forbidden", 'User "x" cannot list')] * 3

    class Refusing(ModelApi):
        async def pages(self, resource: Resource[Any], **options: Any) -> Any:
            if resource is SEAT and refusals:
                raise refusals.pop()
            async for page in super().pages(resource, **options):
                yield page

    refusing = Refusing()
    refusing.put(TICKET, "a")
    refusing.put(SEAT, "s", metadata=owned_by("a"))
    setup = Setup(refusing, None)
    setup.controller.watch(setup.seats, owner_mapper(TICKET))
    informing = asyncio.create_task(setup.factory.run())
    await eventually(lambda: setup.seats.failing)
    assert setup.tickets.synced
    assert setup.factory.waiting_for == [f"seats.tests.dev have not been listed yet: {setup.seats.failing}"]
    assert "needs permission to list and watch seats.tests.dev" in setup.seats.failing
    await setup.factory.wait_synced()
    working = asyncio.create_task(setup.controller.run())
    await asyncio.sleep(1)
    assert setup.synced == [("a", 1)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    for task in (working, informing):
        await cancelled(task)


async def test_only_admitted_objects_are_reconciled_and_others_once_they_are_admitted(api: ModelApi) -> None:
    for name in "abcd":
        api.put(TICKET, name)
    mine = {"a", "b"}
    setup = Setup(api, None, admits=lambda ticket: ticket.metadata.name in mine)
    informing = asyncio.create_task(setup.factory.run())
    await setup.factory.wait_synced()
    working = asyncio.create_task(setup.controller.run())
    await asyncio.sleep(1)
    assert setup.names == ["a", "b"]
    mine = {"b", "c"}
    setup.controller.enqueue_all()
    await asyncio.sleep(1)
    assert setup.names == ["a", "b", "b", "c"]
    api.put(TICKET, "a", spec={"seats": 5})
    await asyncio.sleep(1)
    assert len(setup.names) == 4
    for task in (working, informing):
        await cancelled(task)
