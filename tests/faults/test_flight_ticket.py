"""FlightTicket under every fault at every call: one booking per ticket, and always the same final state."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flights_operator.tickets import ticket_playbook
from flights_operator.types import FLIGHT_TICKET
from pilothouse.playbook import RECONCILE, Watch
from pilothouse.testing import Fault, ModelApi, Outside, Process, Scenario, explore, objects_state
from tests.faults.airline import ERRORS, READS, ModelAirline

TICKETS = FLIGHT_TICKET.resource

#: The number of pairs of faults that are sampled, out of thousands.
PAIRS = 400


class TicketLife(Scenario):
    """A ticket is created, changed, changed and cancelled at the airline, and deleted."""

    def __init__(self) -> None:
        self.airline = ModelAirline()

    def watches(self, process: Process) -> Sequence[Watch]:
        airline: Any = Outside(self.airline, process, reads=READS, errors=ERRORS)
        return [Watch(TICKETS, ticket_playbook(airline, 600), resync=600, workers=2)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKETS, "t", spec={"from": "Mumbai", "to": "London", "number": 2})
        reference = user.read(TICKETS, key)["metadata"]["uid"]
        yield "created"
        user.put(TICKETS, "t", spec={"from": "Mumbai", "to": "Paris", "number": 3})
        yield "changed"
        self.airline.change_at_the_desk(reference, 7)
        user.put(TICKETS, "t", metadata={"annotations": {RECONCILE: "changed"}})
        yield "changed at the desk"
        self.airline.cancel_at_the_desk(reference)
        user.put(TICKETS, "t", metadata={"annotations": {RECONCILE: "cancelled"}})
        yield "cancelled at the desk"
        user.remove(TICKETS, key)
        yield "deleted"

    def state(self, api: ModelApi) -> object:
        return objects_state(api), self.airline.bookings

    def effects(self) -> Sequence[str]:
        return self.airline.effects


def test_every_fault_at_every_call_and_some_pairs_reach_the_same_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    matrix = explore(TicketLife, pairs=PAIRS)
    with capsys.disabled():
        print(f"\nFlightTicket: {matrix}")  # noqa: T201 - shows the runs per minute
    matrix.require_converged()
    assert [site.what.partition(" default/")[0] for site in matrix.sites] == [
        "watch-list flighttickets.flights.com",
        "patch flighttickets.flights.com",
        "modelairline.book",
        "patch flighttickets.flights.com/status",
        "modelairline.change",
        "patch flighttickets.flights.com/status",
        "modelairline.find",
        "modelairline.change",
        "create events.events.k8s.io",
        "modelairline.find",
        "modelairline.book",
        "patch flighttickets.flights.com/status",
        "create events.events.k8s.io",
        "modelairline.cancel",
        "patch flighttickets.flights.com",
    ]
    suffered = {injection.fault for run in matrix.runs for injection in run.struck}
    assert suffered == set(Fault)


class HastyUser(TicketLife):
    """A ticket is changed and deleted while the operator reconciles it, with an older API server."""

    streams_lists = False

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKETS, "t", spec={"from": "Mumbai", "to": "London", "number": 2})
        yield 0.5
        user.put(TICKETS, "t", spec={"from": "Mumbai", "to": "London", "number": 4})
        yield 0.5
        user.remove(TICKETS, key)
        yield "deleted"


def test_a_ticket_deleted_at_any_moment_leaves_no_booking() -> None:
    explore(HastyUser, pairs=PAIRS // 4).require_converged()


class HeldTicket(TicketLife):
    """A deleted ticket with a finalizer of another client."""

    def play(self, user: ModelApi) -> Iterator[str | float]:
        spec = {"from": "Mumbai", "to": "London", "number": 2}
        key = user.put(TICKETS, "t", spec=spec, metadata={"finalizers": ["others/hold"]})
        yield "created"
        user.remove(TICKETS, key)
        yield "deleted"
        user.put(TICKETS, "t", metadata={"annotations": {RECONCILE: "once more"}})
        yield "requested a reconcile after the cancellation"


def test_a_ticket_with_other_finalizers_shows_that_it_is_cancelled() -> None:
    matrix = explore(HeldTicket, pairs=PAIRS // 4)
    matrix.require_converged()
    assert [site.what.partition(" default/")[0] for site in matrix.sites][-4:] == [
        "modelairline.cancel",
        "patch flighttickets.flights.com/status",
        "patch flighttickets.flights.com",
        "create events.events.k8s.io",  # FinalizersRemain
    ]
