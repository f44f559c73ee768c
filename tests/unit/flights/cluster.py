"""The model of the API server with FlightTickets, and an operator that can be killed at any of its calls."""

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
        """Creates a ticket or changes its spec; `from_` is `from`."""
        key = ObjectKey("default", name)
        old = self.read(TICKETS, key)["spec"] if self.exists(TICKETS, key) else {}
        return self.put(TICKETS, name, spec=old | {field.rstrip("_"): value for field, value in spec.items()})

    def annotate(self, key: ObjectKey, name: str, value: str) -> None:
        """Sets an annotation."""
        self.put(TICKETS, key.name, metadata={"annotations": {name: value}})

    def delete_ticket(self, key: ObjectKey) -> None:
        """Deletes a ticket: it stays until its finalizers are gone."""
        self.remove(TICKETS, key)

    def ticket(self, key: ObjectKey) -> FlightTicket | None:
        """The ticket as stored."""
        return msgspec.convert(self.read(TICKETS, key), FlightTicket) if self.exists(TICKETS, key) else None


class Killed(KeyboardInterrupt):
    """The process was killed here."""


async def nothing(call: Call) -> None:
    """The API server's calls go through."""


class Guillotine:
    """Kills the process at one of its calls: before it is made, or before its answer is taken in.

    Args:
        strike: Which of these instants, 0 is the first; None: never.
    """

    def __init__(self, strike: int | None = None) -> None:
        self.strike = strike
        self.instants = 0

    async def around(self, call: Callable[[], Awaitable[R]]) -> R:
        """Makes a call between two instants."""
        self.instant()
        try:
            return await call()
        finally:
            self.instant()

    async def at(self, call: Call) -> None:
        """One instant, before or after a call to the API server."""
        self.instant()

    def instant(self) -> None:
        """Strikes if this is the chosen one."""
        self.instants += 1
        if self.strike == self.instants - 1:
            raise Killed


class MortalAirline(Airline):
    """The airline as called by a process that may be killed at each of its calls."""

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
    """The operator's process, from its start to its end: an async context manager.

    Its store shows what the cluster has at each sync, unless the test froze it.
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
        """The store sees the ticket as the cluster has it."""
        ticket = self.cluster.ticket(key)
        old = self.store.get(key)
        if ticket is not None:
            self.store.upsert(ticket, "")
        elif old is not None:
            self.store.remove(old.metadata, "")

    async def sync(self, key: ObjectKey, *, stale: bool = False) -> Outcome:
        """One sync, of what the cluster has or, when stale, of what the store has had."""
        if not stale:
            self.watch(key)
        return await self.reconciler.sync(key)

    async def settle(self, key: ObjectKey) -> None:
        """Syncs as the controller does when the ticket changed under the sync."""
        for _ in range(5):
            try:
                await self.sync(key)
            except Conflict:
                continue
            return
        raise AssertionError("conflicts without end")
