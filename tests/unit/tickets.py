"""A kind for tests of the runtime: a ticket with a spec, a status and nothing else."""

import msgspec

from pilothouse.api import Kind
from pilothouse.kube import Condition, ObjectMeta, Resource


class TicketSpec(msgspec.Struct, frozen=True, gc=False):
    seats: int = 0


class TicketStatus(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, rename="camel"):
    phase: str = ""
    booking: str = ""
    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()


class Ticket(msgspec.Struct, frozen=True, gc=False):
    metadata: ObjectMeta
    spec: TicketSpec = TicketSpec()
    status: TicketStatus = TicketStatus()


TICKET: Resource[Ticket] = Kind(Ticket, group="tests.dev", version="v1").resource
