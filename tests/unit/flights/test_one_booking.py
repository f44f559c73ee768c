"""One booking per ticket, even if processes are killed, replies lost, or requests late or repeated."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from booking_api.faults import Fault, Faults, Hold, Latency
from flights_operator.booking import Booking
from flights_operator.settings import FlightsSettings
from pilothouse.controller import SyncError
from pilothouse.kube import Conflict, ObjectKey
from pilothouse.playbook import RECONCILE
from pilothouse.testing import eventually
from tests.airline import Airline
from tests.unit.flights.cluster import Cluster, Killed, Process

Stage = Literal["before", "after"]
Begin = Callable[[Cluster, Airline, ObjectKey], Awaitable[None]]


async def check(cluster: Cluster, airline: Airline, key: ObjectKey, reference: str) -> None:
    """Checks that the booking and the status match the spec, or that a deleted ticket has no booking."""
    bookings = [booking for booking in await airline.bookings() if booking.reference == reference]
    ticket = cluster.ticket(key)
    actions = await airline.actions(reference)
    story = f"{key}: {actions}, {bookings}, {ticket}"
    if ticket is None:
        assert bookings == [], story
        return
    (booking,) = bookings
    spec, status = ticket.spec, ticket.status
    assert (booking.from_, booking.to, booking.seats) == (spec.from_, spec.to, spec.number), story
    assert (status.booking_id, status.booked_seats) == (booking.id, booking.seats), story
    assert (status.phase, status.observed_generation) == ("Booked", ticket.metadata.generation), story


async def create(cluster: Cluster, airline: Airline, key: ObjectKey) -> None:
    """Does nothing: the ticket is new."""


async def change(cluster: Cluster, airline: Airline, key: ObjectKey) -> None:
    cluster.apply(key.name, to="Paris", number=5)


async def delete(cluster: Cluster, airline: Airline, key: ObjectKey) -> None:
    cluster.delete_ticket(key)


async def vanish(cluster: Cluster, airline: Airline, key: ObjectKey) -> None:
    ticket = cluster.ticket(key)
    assert ticket
    await airline.cancel(ticket.status.booking_id)
    cluster.apply(key.name, number=3)


@pytest.mark.parametrize("lost_reply", [False, True])
@pytest.mark.parametrize(
    ("begin", "instants", "actions"),
    [
        (create, 6, ["created"]),
        (change, 6, ["created", "changed"]),
        (delete, 4, ["created", "cancelled", "closed"]),
        (vanish, 6, ["created", "cancelled", "created"]),
    ],
)
async def test_killed_at_every_call(
    cluster: Cluster,
    airline: Airline,
    settings: FlightsSettings,
    begin: Begin,
    instants: int,
    actions: list[str],
    lost_reply: bool,
):
    """Kills the operator before and after each of its calls to the airline and to the API server."""
    for strike in itertools.count():
        key = cluster.apply(f"t{strike}", from_="Mumbai", to="London", number=1)
        reference = (cluster.ticket(key) or pytest.fail("the ticket does not exist")).metadata.uid
        if begin is not create:
            async with Process(cluster, settings) as before:
                await before.sync(key)
        await begin(cluster, airline, key)
        if lost_reply:
            airline.set_faults(Faults(lost_reply=Fault(methods=["POST", "PATCH", "DELETE"], count=1)))
        killed = False
        try:
            async with Process(cluster, settings, strike=strike) as process:
                await process.sync(key)
        except Killed:
            killed = True
        async with Process(cluster, settings) as process:
            await process.settle(key)
        await check(cluster, airline, key, reference)
        assert await airline.actions(reference) == actions
        if not killed:
            assert strike == instants + (2 if lost_reply and begin in (create, vanish) else 0)
            return


async def test_two_operators_at_the_same_time(cluster, airline, settings):
    """Both see a ticket without a booking. Leader election prevents it, but it may happen for a moment."""
    airline.set_faults(Faults(latency=Latency(seconds=0.02)))
    async with Process(cluster, settings) as one, Process(cluster, settings) as two:
        for number in range(5):
            key = cluster.apply(f"t{number}", from_="Mumbai", to="London", number=2)
            reference = cluster.ticket(key).metadata.uid
            for process in (one, two):
                process.watch(key)
            await asyncio.gather(one.sync(key), two.sync(key), return_exceptions=True)
            await one.settle(key)
            await check(cluster, airline, key, reference)
            cluster.apply(key.name, number=number + 3)
            await asyncio.gather(one.sync(key), two.sync(key), return_exceptions=True)
            await two.settle(key)
            await check(cluster, airline, key, reference)
            assert (await airline.actions(reference)).count("created") == 1


async def test_an_operator_that_missed_the_deletion_does_not_book_again(cluster, airline, settings):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    async with Process(cluster, settings) as one, Process(cluster, settings) as late:
        await one.sync(key)
        cluster.apply("t", number=3)
        late.watch(key)
        cluster.delete_ticket(key)
        await one.settle(key)
        with pytest.raises(SyncError):
            await late.sync(key, stale=True)
        assert cluster.ticket(key) is None
        assert await airline.bookings() == []


async def held_then_killed(
    process: Process, airline: Airline, key: ObjectKey, method: str, stage: Stage
) -> None:
    """Kills the operator while the airline holds its request, like a force-deleted pod."""
    airline.set_faults(Faults(hold=Hold(methods=[method], count=1, stage=stage)))
    sync = asyncio.create_task(process.sync(key))
    await eventually(lambda: airline.held)
    sync.cancel()
    await asyncio.wait([sync])


async def released(airline: Airline) -> None:
    """Lets the airline finish the requests that it holds."""
    airline.clear_faults()
    await eventually(lambda: not airline.held)
    await airline.bookings()


@pytest.mark.parametrize("stage", ["before", "after"])
@pytest.mark.parametrize("released_first", [False, True])
async def test_killed_while_the_airline_holds_the_booking(cluster, airline, settings, stage, released_first):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    reference = cluster.ticket(key).metadata.uid
    async with Process(cluster, settings) as process:
        await held_then_killed(process, airline, key, "POST", stage)
    if released_first:
        await released(airline)
    async with Process(cluster, settings) as process:
        await process.settle(key)
    await released(airline)
    await check(cluster, airline, key, reference)
    assert await airline.actions() == ["created"]


@pytest.mark.parametrize("stage", ["before", "after"])
async def test_deleted_while_the_airline_holds_the_booking(cluster, airline, settings, stage):
    """The airline rejects the request of the killed operator, because the ticket was deleted before."""
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    async with Process(cluster, settings) as process:
        await held_then_killed(process, airline, key, "POST", stage)
    cluster.delete_ticket(key)
    async with Process(cluster, settings) as process:
        await process.settle(key)
    assert cluster.ticket(key) is None
    await released(airline)
    assert await airline.bookings() == []


async def test_changed_again_while_the_airline_holds_a_change(cluster, airline, settings):
    """The older change arrives last and must not win."""
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    reference = cluster.ticket(key).metadata.uid
    async with Process(cluster, settings) as process:
        await process.sync(key)
        cluster.apply("t", number=4)
        await held_then_killed(process, airline, key, "PATCH", "before")
    cluster.apply("t", number=3)
    async with Process(cluster, settings) as process:
        await process.settle(key)
    await released(airline)
    await check(cluster, airline, key, reference)
    assert await airline.actions() == ["created", "changed"]


@pytest.mark.parametrize("what", ["delete", "change"])
async def test_deleted_or_changed_while_it_is_being_booked(cluster, airline, settings, what):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    reference = cluster.ticket(key).metadata.uid
    async with Process(cluster, settings) as process:
        airline.set_faults(Faults(hold=Hold(methods=["POST"], count=1)))
        sync = asyncio.create_task(process.sync(key))
        await eventually(lambda: airline.held)
        if what == "delete":
            cluster.delete_ticket(key)
        else:
            cluster.apply("t", number=6)
        await released(airline)
        with pytest.raises(Conflict):
            await sync
        await process.settle(key)
    await check(cluster, airline, key, reference)
    assert (await airline.actions()).count("created") == 1


async def test_changed_outside_between_lookup_and_change(cluster, airline, settings):
    """If-Match detects it. The operator looks up the booking again and corrects it."""
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    reference = cluster.ticket(key).metadata.uid
    async with Process(cluster, settings) as process:
        await process.sync(key)
        cluster.apply("t", number=4)
        airline.set_faults(Faults(hold=Hold(methods=["PATCH"], count=1)))
        sync = asyncio.create_task(process.sync(key))
        await eventually(lambda: airline.held)
        (booking,) = await airline.bookings()
        await airline.change(booking.id, seats=9)
        await released(airline)
        await sync
    await check(cluster, airline, key, reference)


async def test_a_booking_that_another_client_keeps_changing_is_reported(
    cluster, airline, settings, monkeypatch
):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    async with Process(cluster, settings) as process:
        await process.sync(key)
        cluster.annotate(key, RECONCILE, "1")
        find, seats = process.airline.find, itertools.cycle([7, 8])

        async def find_changed(reference: str) -> Booking | None:
            found = await find(reference)
            assert found
            await airline.change(found.id, seats=next(seats))
            return found

        monkeypatch.setattr(process.airline, "find", find_changed)
        cluster.apply("t", number=3)
        with pytest.raises(SyncError, match="Another client keeps changing the booking"):
            await process.sync(key)
