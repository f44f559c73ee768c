"""The flights operator as users run it: installed by OLM, with a real booking service."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from devcluster.shell import CommandError
from flights_operator.types import FlightTicket
from release import install, packages
from tests.cluster.flights import NAMESPACE, Flights, ready_condition
from tests.cluster.load import Writes, create_tickets, delete_tickets, open_client, wait_booked

pytestmark = pytest.mark.timeout(900)

TICKETS = 1000
#: Force deletions of the operator's pod, each while the airline holds its request.
KILLS = 20
#: Lets the next pod become the leader within seconds after the last one was killed. Set in the Subscription.
SHORT_LEASE = {"LEASE_DURATION": "4s", "RENEW_DEADLINE": "2s", "RETRY_PERIOD": "0.5s"}


def test_a_ticket_from_before_the_operator_is_kept_and_booked(flights: Flights) -> None:
    ticket = flights.wait_phase("my-flight-ticket", "Booked", namespace="default")
    assert ticket["metadata"]["uid"] == flights.seed_uid
    assert ticket["status"]["bookedSeats"] == 2
    assert ready_condition(ticket)["status"] == "True"
    booking = flights.airline.booking(flights.seed_uid)
    assert booking is not None
    assert (booking["from"], booking["to"], booking["seats"]) == ("Mumbai", "London", 2)
    assert booking["id"] == ticket["status"]["bookingID"]


def test_olm_runs_the_image_by_digest_under_restricted_pod_security(flights: Flights) -> None:
    [pod] = flights.operator_pods()
    container = pod["spec"]["containers"][0]
    assert container["image"] == flights.published.operator
    assert "@sha256:" in container["image"]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "128Mi"}
    namespace = flights.kubectl.read("namespace", packages.NAMESPACE)
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_printer_columns_show_route_seats_status_and_booking(flights: Flights) -> None:
    ticket = flights.wait_phase("my-flight-ticket", "Booked", namespace="default")
    header, row = flights.kubectl("get", "ft", "my-flight-ticket", "-n", "default").splitlines()
    assert header.split() == ["NAME", "FROM", "TO", "SEATS", "STATUS", "BOOKING", "AGE"]
    assert row.split()[1:6] == ["Mumbai", "London", "2", "Booked", ticket["status"]["bookingID"]]


def test_create_change_delete(flights: Flights) -> None:
    uid = flights.create("life", number=3)
    ticket = flights.wait_phase("life", "Booked")
    booking_id = ticket["status"]["bookingID"]
    flights.change("life", number=5, to="Paris")
    ticket = flights.wait_phase("life", "Booked")
    booking = flights.airline.booking(uid)
    assert booking is not None
    assert (booking["id"], booking["to"], booking["seats"]) == (booking_id, "Paris", 5)
    flights.delete("life")
    assert flights.airline.booking(uid) is None
    actions = flights.airline.audit(uid)
    assert (actions["created"], actions["cancelled"]) == (1, 1)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"number": 11}, "spec.number"),
        ({"from": ""}, "set the city that the flight starts from"),
        ({"number": "two"}, "spec.number"),
    ],
)
def test_a_wrong_ticket_is_rejected_with_the_field_and_the_correction(
    flights: Flights, spec: dict[str, object], words: str
) -> None:
    with pytest.raises(CommandError, match=words):
        flights.create("wrong", **spec)


def test_airline_down_and_back(flights: Flights) -> None:
    uid_kept = flights.create("goes-while-down")
    flights.wait_phase("goes-while-down", "Booked")
    flights.airline.scale(0)
    try:
        flights.create("comes-while-down")
        flights.delete("goes-while-down", wait=False)
        waiting = flights.wait_phase("comes-while-down", "Pending")
        leaving = flights.until(
            lambda: _in_phase(flights.ticket("goes-while-down"), "Cancelling"),
            "goes-while-down is Cancelling",
        )
        assert ready_condition(waiting)["reason"] == "AirlineUnreachable"
        assert "To delete the ticket without cancelling" in ready_condition(leaving)["message"]
        [pod] = flights.operator_pods()
        assert pod["status"]["containerStatuses"][0]["ready"]
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    finally:
        flights.airline.scale(1)
    flights.wait_phase("comes-while-down", "Booked", seconds=120)
    flights.until(lambda: not flights.ticket("goes-while-down"), "goes-while-down is deleted", seconds=120)
    assert flights.airline.booking(uid_kept) is None
    flights.delete("comes-while-down")


def test_a_thousand_tickets_cost_one_booking_and_two_writes_each(flights: Flights) -> None:
    tickets, writes = asyncio.run(_book_a_thousand(flights))

    booked = [ticket for ticket in tickets if ticket.metadata.name.startswith("many-")]
    assert len({ticket.status.booking_id for ticket in booked}) == TICKETS
    # By now the tickets are deleted; each was booked once, and that booking was cancelled once.
    happened = flights.airline.audit(*(ticket.metadata.uid for ticket in booked))
    assert happened == {"created": TICKETS, "cancelled": TICKETS, "closed": TICKETS}
    # One write of the finalizer, and one of the status.
    assert Counter(writes.values()) == {2: TICKETS}
    [pod] = flights.operator_pods()
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


async def _book_a_thousand(flights: Flights) -> tuple[list[FlightTicket], Counter[str]]:
    async with await open_client(flights.kubectl.kubeconfig) as client:
        async with Writes(client, NAMESPACE) as writes:
            await create_tickets(client, NAMESPACE, TICKETS)
            tickets = await wait_booked(client, NAMESPACE, TICKETS)
            await writes.settle()
        await delete_tickets(client, NAMESPACE)
        return tickets, writes.of


def test_killed_while_the_airline_holds_its_request_never_books_twice(flights: Flights) -> None:
    _short_lease(flights)
    uids: dict[str, str] = {}
    try:
        for number in range(KILLS):
            # Half of the kills happen before the airline has booked, the others before its answer arrives.
            flights.airline.hold("before" if number % 2 else "after")
            name = f"killed-{number}"
            uids[name] = flights.create(name)
            flights.until(lambda: flights.airline.held() > 0, f"the airline holds the booking of {name}")
            pods = ("pod", "-l", flights.package.selector, "-n", packages.NAMESPACE)
            flights.kubectl("delete", *pods, "--force", "--grace-period=0", timeout=90)
            flights.airline.release()
            # Wait, so that the next held request is that of the next ticket.
            flights.wait_phase(name, "Booked", seconds=120)
        for name, uid in uids.items():
            assert dict(flights.airline.audit(uid)) == {"created": 1}, name
    finally:
        flights.airline.release()
    for name, uid in uids.items():
        flights.delete(name)
        assert flights.airline.booking(uid) is None


def test_a_deleted_csv_is_installed_again_and_keeps_the_tickets(flights: Flights) -> None:
    uid = flights.create("kept")
    flights.wait_phase("kept", "Booked")
    # A partial uninstall: OLM does not reinstall a version that the Subscription lists as installed.
    flights.kubectl("delete", "csv", flights.package.csv_name, "-n", packages.NAMESPACE, "--wait", timeout=90)
    flights.change("kept", number=3)
    install.subscribe(flights.kubectl, flights.package, flights.published.catalog, flights.published.operator)
    install.wait_succeeded(flights.kubectl, flights.package)
    ticket = flights.wait_phase("kept", "Booked", seconds=60)
    assert ticket["status"]["bookedSeats"] == 3
    assert dict(flights.airline.audit(uid)) == {"created": 1, "changed": 1}
    flights.delete("kept")


def _in_phase(ticket: dict[str, Any], phase: str) -> dict[str, Any] | None:
    return ticket if ticket.get("status", {}).get("phase") == phase else None


def _short_lease(flights: Flights) -> None:
    """Sets a short Lease in the Subscription, and waits until OLM has rolled out the operator with it."""
    environment = [{"name": name, "value": value} for name, value in SHORT_LEASE.items()]
    patch = json.dumps({"spec": {"config": {"env": environment}}})
    name = flights.package.name
    flights.kubectl("patch", "subscription", name, "-n", packages.NAMESPACE, "--type=merge", "-p", patch)

    def rolled_out() -> bool:
        deployment = flights.kubectl.read("deployment", name, "-n", packages.NAMESPACE)
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        status = deployment["status"]
        return (
            {"name": "LEASE_DURATION", "value": "4s"} in container["env"]
            and status.get("observedGeneration") == deployment["metadata"]["generation"]
            and status.get("updatedReplicas") == status.get("readyReplicas") == status.get("replicas") == 1
        )

    flights.until(rolled_out, "OLM has rolled out the operator with the short Lease", seconds=120)
