"""A model of the API server with FlightTickets, and an operator that can be killed at any of its calls."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from flights_operator.airline import Airline
from flights_operator.settings import FlightsSettings
from flights_operator.tickets import TicketPlay, ticket_playbook
from flights_operator.types import FLIGHT_TICKET, FlightTicket
from pilothouse.controller import Event, EventRecorder, Outcome
from pilothouse.informer import Store
from pilothouse.kube import Conflict, ObjectKey, Resource
from pilothouse.playbook import Playbook, Reconciler
from pilothouse.testing import Call, ModelApi

R = TypeVar("R")

TICKETS: Resource[FlightTicket] = FLIGHT_TICKET.resource


class Cluster(ModelApi):
    """The API server as a user of FlightTickets sees it."""

    def apply(self, name: str, **spec: str | int) -> ObjectKey:
        """Creates a ticket or changes its spec. `from_` stands for `from`."""
        key = ObjectKey("default", name)
        old = self.read(TICKETS, key)["spec"] if self.exists(TICKETS, key) else {}
        return self.put(TICKETS, name, spec=old | {field.rstrip("_"): value for field, value in spec.items()})

    def annotate(self, key: ObjectKey, name: str, value: str) -> None:
        """Sets an annotation."""
        self.put(TICKETS, key.name, metadata={"annotations": {name: value}})

    def delete_ticket(self, key: ObjectKey) -> None:
        """Deletes a ticket. It remains until its finalizers are removed."""
        self.remove(TICKETS, key)

    def ticket(self, key: ObjectKey) -> FlightTicket | None:
        """Returns the stored ticket, or None if it does not exist."""
        return msgspec.convert(self.read(TICKETS, key), FlightTicket) if self.exists(TICKETS, key) else None


class Killed(KeyboardInterrupt):
    """Stands for the end of a process by `kill -9`."""


async def nothing(call: Call) -> None:
    """Lets a call to the API server through."""


class Guillotine:
    """Kills the process at one of its calls: before the call, or before its answer is processed.

    Args:
        strike: The number of the instant to strike at; 0 is the first. None never strikes.
    """

    def __init__(self, strike: int | None = None) -> None:
        self.strike = strike
        self.instants = 0

    async def around(self, call: Callable[[], Awaitable[R]]) -> R:
        """Makes a call, with an instant before and one after it."""
        self.instant()
        try:
            return await call()
        finally:
            self.instant()

    async def at(self, call: Call) -> None:
        """Counts an instant before or after a call to the API server."""
        self.instant()

    def instant(self) -> None:
        """Counts an instant, and strikes if it is the chosen one."""
        self.instants += 1
        if self.strike == self.instants - 1:
            raise Killed


class MortalAirline(Airline):
    """The airline's client in a process that may be killed at each of its calls."""

    def __init__(self, settings: FlightsSettings, guillotine: Guillotine) -> None:
        super().__init__(settings)
        self._guillotine = guillotine

    async def _call(self, *arguments: Any, **options: Any) -> bytes:
        call = super()._call
        return await self._guillotine.around(lambda: call(*arguments, **options))


class Recorder(EventRecorder):
    """Keeps Events instead of sending them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, event: Event) -> None:
        self.events.append(event)


class Process:
    """The operator's process, as an async context manager.

    Its store is updated from the cluster before each reconcile, unless the test asks for a stale one.
    """

    def __init__(
        self,
        cluster: Cluster,
        settings: FlightsSettings,
        *,
        strike: int | None = None,
    ) -> None:
        self.cluster = cluster
        self.guillotine = Guillotine(strike)
        self.recorder = Recorder()
        self.settings = settings

    async def __aenter__(self) -> "Process":
        self.airline = MortalAirline(self.settings, self.guillotine)
        self.playbook: Playbook[TicketPlay] = ticket_playbook(self.airline, self.settings.resync)
        self.store: Store[FlightTicket] = Store("flighttickets.test")
        self.reconciler = Reconciler(
            self.cluster,
            TICKETS,
            self.store,
            self.playbook,
            self.recorder,
        )
        if self.guillotine.strike is not None:
            self.cluster.before = self.cluster.after = self.guillotine.at
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cluster.before = self.cluster.after = nothing
        await self.airline.__aexit__(None, None, None)

    def watch(self, key: ObjectKey) -> None:
        """Updates the ticket in the store from the cluster."""
        ticket = self.cluster.ticket(key)
        old = self.store.get(key)
        if ticket is not None:
            self.store.upsert(ticket, "")
        elif old is not None:
            self.store.remove(old.metadata, "")

    async def sync(self, key: ObjectKey, *, stale: bool = False) -> Outcome:
        """Reconciles a ticket: as the cluster has it or, if stale, as the store has it."""
        if not stale:
            self.watch(key)
        return await self.reconciler.sync(key)

    async def settle(self, key: ObjectKey) -> None:
        """Reconciles a ticket, and again after each conflict, as the controller does."""
        for _ in range(5):
            try:
                await self.sync(key)
            except Conflict:
                continue
            return
        raise AssertionError("conflicts without end")
