"""The whole flights operator in one process, with a real kube-apiserver and the real booking service."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from booking_api.faults import Fault, Faults, Hold
from flights_operator.__main__ import NAME, watches
from flights_operator.types import FINALIZER, FLIGHT_TICKET, FlightTicket
from pilothouse.api.crd import crd
from pilothouse.kube import Client, Invalid, NotFound, ObjectKey, PatchType
from pilothouse.playbook import RECONCILE, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.telemetry import metrics
from pilothouse.testing import ApiServer, eventually, objects
from tests import seed
from tests.airline import KEY, Airline, running_airline
from tests.api.versions import ON_BOTH
from tests.api.widgets import CRDS, install
from tests.running import running

pytestmark = ON_BOTH

TICKETS = FLIGHT_TICKET.resource
CRD = f"{CRDS}/flighttickets.flights.com"


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path) as airline:
        yield airline


@pytest.fixture
async def kind(client: Client) -> None:
    await install(client, crd(FLIGHT_TICKET))


@asynccontextmanager
async def running_operator(
    api_server: ApiServer, airline: Airline, namespace: str, *, token: str = "", **variables: str
) -> AsyncIterator[Manager]:
    """Runs the operator as its process does, and stops it gracefully at the end."""
    environment = {
        "AIRLINE_URL": airline.url,
        "AIRLINE_API_KEY_FILE": str(airline.key_file),
        "WATCH_NAMESPACE": namespace,
        "HEALTH_ADDRESS": "127.0.0.1:0",
        **variables,
    }
    async with (
        Client(api_server.config(token), user_agent=f"{NAME}/test") as client,
        watches(environment) as watched,
    ):
        manager = Manager(NAME, Settings.load(environment), client)
        for watch in watched:
            add_watch(manager, watch)
        async with running(manager, within=40):
            yield manager


@pytest.fixture
async def operator(
    api_server: ApiServer, airline: Airline, namespace: str, kind: None
) -> AsyncIterator[Manager]:
    async with running_operator(api_server, airline, namespace) as manager:
        yield manager


class User:
    """A user of tickets in the test's namespace."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client, self.namespace = client, namespace

    async def create(self, name: str, **spec: Any) -> FlightTicket:
        body = {
            "apiVersion": "flights.com/v1",
            "kind": "FlightTicket",
            "metadata": {"name": name},
            "spec": {"from": "Mumbai", "to": "London", "number": 2} | spec,
        }
        return await self.client.create(TICKETS, body, namespace=self.namespace)

    async def change(self, name: str, **body: Any) -> FlightTicket:
        return await self.client.patch(TICKETS, self.key(name), body, type=PatchType.MERGE)

    async def delete(self, name: str) -> None:
        await self.client.delete(TICKETS, self.key(name))

    async def read(self, name: str) -> FlightTicket:
        return await self.client.get(TICKETS, self.key(name))

    async def all(self) -> list[FlightTicket]:
        return [
            ticket
            async for page in self.client.pages(TICKETS, namespace=self.namespace)
            for ticket in page.items
        ]

    def key(self, name: str) -> ObjectKey:
        return ObjectKey(self.namespace, name)

    async def until(self, name: str, phase: str, within: float = 20, **status: Any) -> FlightTicket:
        """Waits until the operator has processed the newest spec of a ticket and set its phase."""

        async def reached() -> FlightTicket | None:
            ticket = await self.read(name)
            seen = ticket.status.observed_generation == ticket.metadata.generation
            same = all(getattr(ticket.status, field) == value for field, value in status.items())
            return ticket if seen and same and ticket.status.phase == phase else None

        describe = objects(self.client, TICKETS, self.namespace)
        ticket = await eventually(reached, within=within, describe=describe)
        assert ticket
        return ticket

    async def until_gone(self, name: str, within: float = 20) -> None:
        async def gone() -> bool:
            try:
                await self.read(name)
            except NotFound:
                return True
            return False

        await eventually(gone, within=within, describe=objects(self.client, TICKETS, self.namespace))


@pytest.fixture
def user(client: Client, namespace: str) -> User:
    return User(client, namespace)


async def ready(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/readyz"
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status == 200


async def test_create_change_delete(user: User, airline: Airline, operator: Manager):
    ticket = await user.create("t")
    ticket = await user.until("t", "Booked")
    (booking,) = await airline.bookings()
    assert (booking.reference, booking.seats) == (ticket.metadata.uid, 2)
    assert ticket.status.booking_id == booking.id
    await user.change("t", spec={"number": 5, "to": "Paris"})
    await user.until("t", "Booked", booked_seats=5, booking_id=booking.id)
    assert [(each.to, each.seats) for each in await airline.bookings()] == [("Paris", 5)]
    await user.delete("t")
    await user.until_gone("t")
    assert await airline.bookings() == []
    assert await airline.actions() == ["created", "changed", "cancelled", "closed"]


async def test_200_tickets_at_the_same_time(user: User, airline: Airline, operator: Manager):
    names = [f"t{number}" for number in range(200)]
    writes = patches("200")
    await asyncio.gather(*(user.create(name) for name in names))

    async def all_booked() -> bool:
        return all(ticket.status.phase == "Booked" for ticket in await user.all())

    await eventually(all_booked, within=60)
    bookings = await airline.bookings()
    assert sorted(each.reference for each in bookings) == sorted(
        each.metadata.uid for each in await user.all()
    )
    assert dict(airline.requests) == {"POST": 200}
    assert patches("200") - writes == 2 * 200, "the finalizer and one status each"
    await asyncio.gather(*(user.delete(name) for name in names))
    await eventually(lambda: user_has_none(user), within=60)
    assert await airline.bookings() == []


def patches(code: str) -> float:
    """Returns the number of patches that this process has sent and that had this status code."""
    samples = [sample for metric in metrics.REQUESTS.collect() for sample in metric.samples]
    return sum(
        sample.value
        for sample in samples
        if (sample.labels.get("method"), sample.labels.get("code")) == ("PATCH", code)
    )


async def user_has_none(user: User) -> bool:
    return not await user.all()


async def test_the_airline_goes_down_and_comes_back(user: User, airline: Airline, operator: Manager):
    await user.create("before")
    await user.until("before", "Booked")
    airline.set_faults(Faults(drop=Fault()))
    await user.create("new")
    await user.change("before", spec={"number": 4})
    await user.create("leaving")
    waiting = await user.until("new", "Pending")
    assert waiting.status.conditions[0].reason == "AirlineUnreachable"
    await user.until("before", "Updating", booked_seats=2)
    await user.delete("leaving")
    leaving = await user.until("leaving", "Cancelling")
    assert "kubectl patch flightticket leaving" in leaving.status.conditions[0].message
    assert await ready(operator.server.port)
    airline.clear_faults()
    await user.until("new", "Booked", within=60)
    await user.until("before", "Booked", within=60, booked_seats=4)
    await user.until_gone("leaving", within=60)
    assert len(await airline.bookings()) == 2


async def test_the_release_command_in_the_condition_keeps_other_finalizers(
    user: User, airline: Airline, operator: Manager
):
    await user.create("t")
    await user.until("t", "Booked")
    await user.change("t", metadata={"finalizers": ["tests.dev/other", FINALIZER]})
    airline.set_faults(Faults(drop=Fault()))
    await user.delete("t")
    ticket = await user.until("t", "Cancelling")
    command = re.search(
        r"kubectl patch flightticket t -n (\S+) --type=json -p '(.*)';", ready_message(ticket)
    )
    assert command, ready_message(ticket)
    assert command[1] == user.namespace
    patch = json.loads(command[2])
    released = await user.client.patch(TICKETS, user.key("t"), patch, type=PatchType.JSON)
    assert released.metadata.finalizers == ("tests.dev/other",)
    with pytest.raises(Invalid):  # the remaining finalizer is not ours
        await user.client.patch(TICKETS, user.key("t"), patch, type=PatchType.JSON)
    await user.change("t", metadata={"finalizers": None})
    await user.until_gone("t")


def ready_message(ticket: FlightTicket) -> str:
    (message,) = [each.message for each in ticket.status.conditions if each.type == "Ready"]
    return message


async def test_a_restart_sends_requests_only_for_what_changed_during_the_downtime(
    user: User, airline: Airline, api_server: ApiServer, namespace: str, kind: None
):
    names = [f"t{number}" for number in range(20)]
    async with running_operator(api_server, airline, namespace):
        for name in names:
            await user.create(name)
        for name in names:
            await user.until(name, "Booked")
    await user.change("t7", spec={"number": 9})
    await user.delete("t8")
    asked = airline.requests.total()
    async with running_operator(api_server, airline, namespace):
        await user.until("t7", "Booked", booked_seats=9)
        await user.until_gone("t8")
    assert airline.requests.total() - asked == 3  # look-up and change of t7, cancellation of t8


async def test_changes_outside_are_corrected_at_the_resync(
    user: User, airline: Airline, api_server: ApiServer, namespace: str, kind: None
):
    async with running_operator(api_server, airline, namespace, RESYNC_PERIOD="1s"):
        await user.create("vanished")
        await user.create("changed", to="Paris")
        gone = (await user.until("vanished", "Booked")).status.booking_id
        await airline.cancel(gone)
        await airline.change((await user.until("changed", "Booked")).status.booking_id, seats=7)

        async def corrected() -> bool:
            booked = {each.to: (each.id, each.seats) for each in await airline.bookings()}
            again = (await user.read("vanished")).status.booking_id
            return booked.get("London") == (again, 2) and again != gone and booked["Paris"][1] == 2

        await eventually(corrected, within=20)


async def test_killed_while_the_airline_holds_the_booking(
    user: User, airline: Airline, api_server: ApiServer, namespace: str, kind: None
):
    """The process ends before it has the answer. The next one must neither lose nor repeat the booking."""
    stages: list[Literal["before", "after"]] = ["before", "after"]
    for number, stage in enumerate(stages * 3):
        airline.set_faults(Faults(hold=Hold(methods=["POST"], count=1, stage=stage)))
        async with running_operator(api_server, airline, namespace, GRACEFUL_SHUTDOWN_TIMEOUT="0s"):
            ticket = await user.create(f"t{number}")
            await eventually(lambda: airline.held)
        async with running_operator(api_server, airline, namespace):
            await user.until(ticket.metadata.name, "Booked")
            airline.clear_faults()
            await eventually(lambda: not airline.held)
        assert await airline.actions(ticket.metadata.uid) == ["created"]


async def test_a_crd_and_ticket_from_before_the_operator_are_adopted(
    user: User, client: Client, airline: Airline, api_server: ApiServer, namespace: str, caplog, monkeypatch
):
    """A user created the CRD and a ticket before the operator ran: the ticket is kept and booked."""
    monkeypatch.setattr("pilothouse.playbook.status_writer.MISSING_STATUS_SECONDS", 1.0)
    await remove_kind(client)
    await install(client, seed.CRD)
    made = await client.create(TICKETS, seed.TICKET, namespace=namespace)
    name = made.metadata.name
    async with running_operator(api_server, airline, namespace) as manager:
        await eventually(lambda: airline.requests["POST"])
        await eventually(lambda: "status subresource" in caplog.text, describe=lambda: caplog.text)
        assert await ready(manager.server.port)
        await install(client, crd(FLIGHT_TICKET))
        ticket = await user.until(name, "Booked", within=50)
    assert ticket.metadata.uid == made.metadata.uid
    (booking,) = await airline.bookings()
    assert booking.reference == made.metadata.uid
    assert await airline.actions() == ["created"]


async def remove_kind(client: Client) -> None:
    """Removes the kind and all its tickets, with their finalizers, because no operator is running."""
    with suppress(NotFound):
        async for page in client.pages(TICKETS):
            for ticket in page.items:
                body = {"metadata": {"finalizers": None}}
                await client.patch(TICKETS, ticket.metadata.key, body, type=PatchType.MERGE)

    async def gone() -> bool:
        try:
            await client.request("DELETE", CRD)
        except NotFound:
            return True
        return False

    await eventually(gone, within=30, describe=lambda: client.request("GET", CRD))


async def test_the_process_starts_works_and_stops(
    user: User, airline: Airline, api_server: ApiServer, namespace: str, kind: None
):
    """Runs python3 -m flights_operator as the image does, with a kubeconfig instead of a service account."""
    port = await free_port()
    process = await operator_process(
        KUBECONFIG=str(api_server.kubeconfig()),
        AIRLINE_URL=airline.url,
        AIRLINE_API_KEY_FILE=str(airline.key_file),
        WATCH_NAMESPACE=namespace,
        POD_NAMESPACE=namespace,
        LEADER_ELECT="true",
        HEALTH_ADDRESS=f"127.0.0.1:{port}",
    )
    await user.create("t")
    await user.until("t", "Booked", within=40)
    assert await ready(port)
    process.terminate()
    _, log = await asyncio.wait_for(process.communicate(), 35)
    assert process.returncode == 0, log.decode()
    assert KEY.encode() not in log


async def test_a_missing_setting_ends_the_process_with_one_error_line(api_server: ApiServer):
    process = await operator_process(KUBECONFIG=str(api_server.kubeconfig()))
    _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert b"AIRLINE_URL is not set. Set it in the operator's environment." in log
    assert b"Traceback" not in log


async def operator_process(**variables: str) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "flights_operator"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root / "operator"), **variables},
        stderr=asyncio.subprocess.PIPE,
    )


async def free_port() -> int:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = int(server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()
    return port


@pytest.mark.parametrize("wrong", [{"bookingID": "HACKED", "bookedSeats": 9}, {"phase": "Pending"}, None])
async def test_a_status_written_by_another_client_is_corrected(
    user: User, airline: Airline, operator: Manager, wrong: dict[str, Any] | None
):
    await user.create("t")
    right = (await user.until("t", "Booked")).status
    body = {"status": wrong}
    await user.client.patch(TICKETS, user.key("t"), body, type=PatchType.MERGE, subresource="status")
    await user.until("t", "Booked", booking_id=right.booking_id, booked_seats=right.booked_seats)
    assert await airline.actions() == ["created"]


async def test_a_reconcile_request_compares_the_booking(user: User, airline: Airline, operator: Manager):
    await user.create("t")
    old = (await user.until("t", "Booked")).status.booking_id
    await airline.cancel(old)
    await user.change("t", metadata={"annotations": {RECONCILE: "now"}})

    async def booked_again() -> bool:
        return (await user.read("t")).status.booking_id != old

    await eventually(booked_again)
    assert len(await airline.bookings()) == 1
