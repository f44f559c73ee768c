"""The life of a ticket, with the real booking service and a model of the API server."""

import pytest

from booking_api.faults import Fault, Faults
from flights_operator.errors import RejectedError
from flights_operator.failures import task_failure
from flights_operator.types import FlightTicket, Phase
from pilothouse.controller import PermanentError, SyncError
from pilothouse.kube import Condition, ObjectKey
from pilothouse.playbook import PAUSED, RECONCILE
from tests.airline import Airline
from tests.unit.flights.cluster import TICKETS, Cluster, Process


def ticket(cluster: Cluster, key: ObjectKey) -> FlightTicket:
    found = cluster.ticket(key)
    assert found is not None, f"{key} does not exist"
    return found


def ready(cluster: Cluster, key: ObjectKey) -> Condition:
    (condition,) = ticket(cluster, key).status.conditions
    assert condition.type == "Ready"
    return condition


@pytest.fixture
async def booked(cluster: Cluster, process: Process) -> ObjectKey:
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    await process.sync(key)
    assert ready(cluster, key).status == "True"
    return key


async def test_a_ticket_is_booked_with_one_status_write(cluster: Cluster, process: Process, airline: Airline):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    await process.sync(key)
    (booking,) = await airline.bookings()
    assert (booking.reference, booking.seats) == (ticket(cluster, key).metadata.uid, 2)
    status = ticket(cluster, key).status
    assert (status.phase, status.booking_id, status.booked_seats) == (Phase.BOOKED, booking.id, 2)
    assert status.price == f"{booking.price.amount} {booking.price.currency}"
    assert status.observed_generation == 1
    assert (ready(cluster, key).reason, ready(cluster, key).status) == ("Booked", "True")
    assert booking.id in ready(cluster, key).message
    assert [call.subresource for call in cluster.writes] == ["", "status"]
    assert cluster.writes[0].body["metadata"]["finalizers"] == ["flights.com/booking"]
    assert dict(airline.requests) == {"POST": 1}


async def test_a_settled_ticket_costs_nothing(cluster, process, airline, booked):
    cluster.annotate(booked, "color", "blue")
    writes = len(cluster.writes)
    for _ in range(5):
        await process.sync(booked)
    assert len(cluster.writes) == writes
    assert airline.requests.total() == 1


async def test_after_a_restart_no_request_is_sent_until_the_resync(
    cluster, process, airline, settings, booked, monkeypatch
):
    async with Process(cluster, settings) as restarted:
        await restarted.sync(booked)
        assert airline.requests.total() == 1
        await restarted.sync(booked)  # the resync's
        assert airline.requests.total() == 2
        await restarted.sync(booked)
        assert airline.requests.total() == 2
    assert len(cluster.writes) == 2


async def test_a_change_during_downtime_is_made_at_the_first_reconcile(
    cluster, airline, settings, process, booked
):
    cluster.apply("t", number=3)
    async with Process(cluster, settings) as restarted:
        await restarted.sync(booked)
    assert [booking.seats for booking in await airline.bookings()] == [3]
    status = ticket(cluster, booked).status
    assert (status.phase, status.booked_seats, status.observed_generation) == (Phase.BOOKED, 3, 2)


async def test_number_and_route_are_changed(cluster, process, airline, booked):
    (before,) = await airline.bookings()
    cluster.apply("t", from_="Delhi", to="Paris", number=5)
    await process.sync(booked)
    (after,) = await airline.bookings()
    assert (after.id, after.from_, after.to, after.seats) == (before.id, "Delhi", "Paris", 5)
    assert await airline.actions() == ["created", "changed"]
    assert ready(cluster, booked).message == f"Booking {after.id} holds 5 seats from Delhi to Paris."


async def test_a_change_of_a_known_booking_takes_one_request(cluster, process, airline, booked):
    for seats in (3, 4):
        before = airline.requests.total()
        cluster.apply("t", number=seats)
        await process.sync(booked)
        assert airline.requests.total() == before + 1
        assert [booking.seats for booking in await airline.bookings()] == [seats]
    assert (airline.requests["GET"], airline.requests["PATCH"]) == (0, 2)


async def test_a_booking_that_differs_from_the_remembered_one_is_looked_up(cluster, process, airline, booked):
    (booking,) = await airline.bookings()
    await airline.change(booking.id, seats=9)
    cluster.apply("t", number=3)
    await process.sync(booked)
    assert [each.seats for each in await airline.bookings()] == [3]
    await airline.cancel(booking.id)
    cluster.apply("t", number=4)
    await process.sync(booked)
    assert [each.seats for each in await airline.bookings()] == [4]
    assert ticket(cluster, booked).status.booking_id != booking.id


async def test_a_rejected_change_of_a_remembered_booking_keeps_the_status(cluster, process, airline, booked):
    price = ticket(cluster, booked).status.price
    await airline.set_capacity("Mumbai", "London", 2)
    cluster.apply("t", number=5)
    with pytest.raises(SyncError):
        await process.sync(booked)
    status = ticket(cluster, booked).status
    assert status.phase is Phase.FAILED
    assert (status.booked_seats, status.price) == (2, price)


async def test_a_ticket_is_deleted_after_its_booking_is_cancelled(cluster, process, airline, booked):
    cluster.delete_ticket(booked)
    await process.sync(booked)
    assert cluster.ticket(booked) is None
    assert await airline.bookings() == []
    assert await airline.actions() == ["created", "cancelled", "closed"]
    assert [call.subresource for call in cluster.writes] == ["", "status", ""]


async def test_a_ticket_with_other_finalizers_shows_that_its_booking_is_cancelled(
    cluster, process, airline, booked
):
    others = ["others/a", "others/b"]
    cluster.put(TICKETS, "t", metadata={"finalizers": [others[0], "flights.com/booking", others[1]]})
    cluster.delete_ticket(booked)
    await process.sync(booked)
    held = ticket(cluster, booked)
    assert held.metadata.finalizers == tuple(others)
    status = held.status
    assert (status.phase, status.booking_id, status.booked_seats, status.price) == (
        Phase.CANCELLING,
        "",
        0,
        "",
    )
    assert (ready(cluster, booked).status, ready(cluster, booked).reason) == ("False", "Cancelled")
    assert ready(cluster, booked).message == (
        "The booking is cancelled. The ticket still has other finalizers: others/a, others/b."
    )
    assert [call.subresource for call in cluster.writes] == ["", "status", "status", ""]
    requests = airline.requests.total()
    cluster.annotate(booked, RECONCILE, "again")
    await process.sync(booked)
    assert (len(cluster.writes), airline.requests.total()) == (4, requests)


async def test_a_new_ticket_of_the_same_name_gets_a_new_booking(cluster, process, airline, booked):
    cluster.delete_ticket(booked)
    await process.sync(booked)
    cluster.apply("t", from_="Mumbai", to="London", number=1)
    await process.sync(booked)
    assert [booking.seats for booking in await airline.bookings()] == [1]


async def test_a_reconcile_request_compares_immediately(cluster, process, airline, booked):
    (booking,) = await airline.bookings()
    await airline.cancel(booking.id)
    cluster.annotate(booked, RECONCILE, "1")
    await process.sync(booked)
    (new,) = await airline.bookings()
    assert ticket(cluster, booked).status.booking_id == new.id != booking.id
    (event,) = process.recorder.events
    assert event.reason == "BookingVanished"
    assert booking.id in event.note


async def test_each_change_outside_is_corrected(cluster, process, airline, booked):
    (booking,) = await airline.bookings()
    for attempt in ("1", "2"):
        await airline.change(booking.id, seats=7)
        cluster.annotate(booked, RECONCILE, attempt)
        await process.sync(booked)
        assert [each.seats for each in await airline.bookings()] == [2]
    assert await airline.actions() == ["created", "changed", "changed", "changed", "changed"]
    assert [event.reason for event in process.recorder.events] == ["BookingChanged"] * 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"from_": "", "to": "London", "number": 2}, "spec.from is '': set a city, for example Mumbai."),
        ({"from_": "Mumbai", "to": "London"}, "spec.number is 0: set 1 to 10 seats."),
        ({"from_": "Oslo", "to": "Oslo", "number": 1}, "set two different cities"),
    ],
)
async def test_a_mistake_in_the_spec_is_named_and_not_retried(cluster, process, airline, spec, words):
    key = cluster.apply("t", **spec)
    with pytest.raises(PermanentError):
        await process.sync(key)
    assert ticket(cluster, key).status.phase is Phase.FAILED
    assert (ready(cluster, key).status, ready(cluster, key).reason) == ("False", "InvalidSpec")
    assert words in ready(cluster, key).message
    assert airline.requests.total() == 0
    cluster.apply("t", from_="Mumbai", to="London", number=2)
    await process.sync(key)
    assert ticket(cluster, key).status.phase is Phase.BOOKED


async def test_a_full_flight_is_reported_with_the_airlines_message(cluster, process, airline, booked):
    await airline.set_capacity("Mumbai", "London", 3)
    key = cluster.apply("u", from_="Mumbai", to="London", number=2)
    with pytest.raises(SyncError) as failure:
        await process.sync(key)
    assert failure.value.retry_after == 600
    assert ticket(cluster, key).status.phase is Phase.FAILED
    assert ready(cluster, key).reason == "AirlineRejected"
    assert (
        "The flight from Mumbai to London is full: 2 seats requested, 1 free." in ready(cluster, key).message
    )
    cluster.apply("t", number=4)
    with pytest.raises(SyncError):
        await process.sync(booked)
    status = ticket(cluster, booked).status
    assert (status.phase, status.booked_seats, status.observed_generation) == (Phase.FAILED, 2, 2)
    cluster.apply("u", number=1)
    await process.sync(key)
    assert ticket(cluster, key).status.phase is Phase.BOOKED


async def test_a_reference_closed_at_the_airline_is_not_booked_again(cluster, process, airline, booked):
    await airline.close_reference(ticket(cluster, booked).metadata.uid)
    cluster.annotate(booked, RECONCILE, "1")
    with pytest.raises(SyncError):
        await process.sync(booked)
    status = ticket(cluster, booked).status
    assert (status.phase, status.booking_id, status.booked_seats) == (Phase.FAILED, "", 0)
    assert "is closed, because its booking was cancelled" in ready(cluster, booked).message
    assert "Delete the ticket and create it again." in ready(cluster, booked).message
    vanished, refused = process.recorder.events
    assert (vanished.reason, refused.reason) == ("BookingVanished", "AirlineRejected")
    assert vanished.note.endswith(" no longer exists at the airline."), "the Event announces no correction"


async def test_a_paused_ticket_shows_it_and_is_compared_afterwards(cluster, process, airline, booked):
    cluster.annotate(booked, PAUSED, "true")
    cluster.apply("t", number=5)
    for _ in range(3):
        await process.sync(booked)
    status = ticket(cluster, booked).status
    assert (status.phase, status.booked_seats, status.observed_generation) == (Phase.PAUSED, 2, 1)
    assert (ready(cluster, booked).status, ready(cluster, booked).reason) == ("Unknown", "Paused")
    assert [call.subresource for call in cluster.writes] == ["", "status", "status"]
    cluster.annotate(booked, PAUSED, "false")
    await process.sync(booked)
    assert ticket(cluster, booked).status.phase is Phase.BOOKED
    assert [booking.seats for booking in await airline.bookings()] == [5]


async def test_while_the_airline_is_down_a_new_ticket_waits(cluster, process, airline):
    airline.set_faults(Faults(server_error=Fault()))
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    with pytest.raises(SyncError) as failure:
        await process.sync(key)
    assert failure.value.retry_after is not None
    assert ticket(cluster, key).status.phase is Phase.PENDING
    assert ready(cluster, key).reason == "AirlineUnreachable"
    assert "books the ticket as soon as the airline is available" in ready(cluster, key).message
    writes = len(cluster.writes)
    with pytest.raises(SyncError):
        await process.sync(key)
    assert len(cluster.writes) == writes
    airline.clear_faults()
    async with Process(cluster, process.settings) as restarted:  # its circuit is closed
        await restarted.sync(key)
    assert ticket(cluster, key).status.phase is Phase.BOOKED


async def test_while_the_airline_is_down_a_change_waits_and_a_settled_ticket_stays(
    cluster, process, airline, booked
):
    airline.set_faults(Faults(server_error=Fault()))
    cluster.annotate(booked, RECONCILE, "1")
    writes = len(cluster.writes)
    assert (await process.sync(booked)).requeue_after is not None
    assert len(cluster.writes) == writes
    cluster.apply("t", number=3)
    with pytest.raises(SyncError):
        await process.sync(booked)
    assert ticket(cluster, booked).status.phase is Phase.UPDATING
    assert ticket(cluster, booked).status.booked_seats == 2


async def test_while_the_airline_is_down_a_deleted_ticket_names_the_release_command(
    cluster, process, airline, booked
):
    airline.set_faults(Faults(server_error=Fault()))
    cluster.delete_ticket(booked)
    with pytest.raises(SyncError):
        await process.sync(booked)
    assert ticket(cluster, booked).status.phase is Phase.CANCELLING
    message = ready(cluster, booked).message
    booking_id = ticket(cluster, booked).status.booking_id
    assert (
        """kubectl patch flightticket t -n default --type=json -p '["""
        '{"op":"test","path":"/metadata/finalizers/0","value":"flights.com/booking"},'
        """{"op":"remove","path":"/metadata/finalizers/0"}]';"""
    ) in message
    assert f"booking {booking_id} then stays at the airline" in message
    airline.clear_faults()
    async with Process(cluster, process.settings) as restarted:
        await restarted.sync(booked)
    assert cluster.ticket(booked) is None
    assert await airline.bookings() == []


async def test_a_missing_key_is_named(cluster, process, airline, caplog):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    airline.key_file.rename(airline.key_file.with_name("elsewhere"))
    with pytest.raises(SyncError):
        await process.sync(key)
    assert ready(cluster, key).reason == "AirlineUnauthorized"
    assert str(airline.key_file) in ready(cluster, key).message
    assert ticket(cluster, key).status.phase is Phase.PENDING


async def test_the_release_command_keeps_other_finalizers(cluster, process, airline, booked):
    cluster.put(TICKETS, "t", metadata={"finalizers": ["others/own", "flights.com/booking"]})
    airline.set_faults(Faults(server_error=Fault()))
    cluster.delete_ticket(booked)
    with pytest.raises(SyncError):
        await process.sync(booked)
    assert '"remove","path":"/metadata/finalizers/1"' in ready(cluster, booked).message


async def test_a_forbidden_request_has_its_own_advice(cluster, process):
    key = cluster.apply("t", from_="Mumbai", to="London", number=2)
    process.watch(key)
    refusal = RejectedError("This key may not book", status=403)
    failure = task_failure(refusal, ticket(cluster, key))
    assert failure.reason == "AirlineRejected"
    assert failure.message.startswith(
        "The airline rejected the request: This key may not book. Check the permissions of the operator's"
    )


async def test_a_status_for_another_generation_settles_nothing(cluster, process, airline, booked):
    status = cluster.read(TICKETS, booked)["status"]
    cluster.apply("t", number=3)
    # Another writer may leave such a status. Only the condition shows for which spec the ticket was ready.
    cluster.put(TICKETS, "t", status=status | {"observedGeneration": 2})
    await process.sync(booked)
    assert [booking.seats for booking in await airline.bookings()] == [3]


async def test_check_mode_reports_and_changes_nothing(cluster, process, airline, booked):
    cluster.apply("t", number=3)
    process.watch(booked)
    writes, actions = len(cluster.writes), await airline.actions()
    recap, _ = await process.reconciler.check(process.store.get(booked))
    assert any("seats: 2 -> 3" in line for result in recap.results for line in result.diff)
    assert (len(cluster.writes), await airline.actions()) == (writes, actions)


async def test_check_mode_compares_a_settled_ticket_with_its_booking(cluster, process, airline, booked):
    (booking,) = await airline.bookings()
    await airline.change(booking.id, seats=4)
    process.watch(booked)
    recap, _ = await process.reconciler.check(process.store.get(booked))
    assert any("seats: 4 -> 2" in line for result in recap.results for line in result.diff)


async def test_check_mode_of_a_settled_ticket_fails_while_the_airline_is_down(
    cluster, process, airline, booked
):
    airline.set_faults(Faults(server_error=Fault()))
    process.watch(booked)
    recap, _ = await process.reconciler.check(process.store.get(booked))
    assert recap.failure is not None
    assert (recap.failure.reason, recap.step) == ("AirlineUnreachable", "the booking is known")


async def test_check_mode_of_a_deleted_ticket_fails_while_the_airline_is_down(
    cluster, process, airline, booked
):
    cluster.delete_ticket(booked)
    airline.set_faults(Faults(server_error=Fault()))
    process.watch(booked)
    recap, _ = await process.reconciler.check(process.store.get(booked))
    assert recap.failure is not None
    assert (recap.failure.reason, recap.step) == ("AirlineUnreachable", "the booking is cancelled")


async def test_check_mode_of_a_deleted_ticket_cancels_nothing(cluster, process, airline, booked):
    cluster.delete_ticket(booked)
    process.watch(booked)
    recap, patch = await process.reconciler.check(process.store.get(booked))
    assert [result.message for result in recap.results] == ["cancel the booking"]
    assert patch["bookingID"] is None
    assert len(await airline.bookings()) == 1
