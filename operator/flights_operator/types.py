"""flights.com/v1: what a FlightTicket is. `inv generate` writes CRD, CSV entry and reference from it."""

from enum import StrEnum
from sys import intern
from typing import Annotated

import msgspec
from msgspec.structs import force_setattr

from pilothouse import Column, Kind, ManagedResource, ObjectMeta, Rule, Status, field

FINALIZER = "flights.com/booking"
"""Holds a deleted ticket back until its booking is cancelled."""


class Phase(StrEnum):
    """Where a ticket stands, in one word."""

    PENDING = "Pending"
    BOOKED = "Booked"
    UPDATING = "Updating"
    CANCELLING = "Cancelling"
    FAILED = "Failed"
    PAUSED = "Paused"

    @classmethod
    def _missing_(cls, value: object) -> "Phase":
        """A word of a newer release reads as Pending after a downgrade: the next sync sets it anew."""
        return cls.PENDING


class FlightTicketSpec(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """The flight to book. An empty field is one that the object does not have."""

    from_: Annotated[
        str,
        field(
            "The city the flight starts from. Changing it changes the booking.",
            title="From",
            descriptors=("com.tectonic.ui:text",),
        ),
    ] = ""
    to: Annotated[
        str,
        field(
            "The city the flight goes to. Changing it changes the booking.",
            title="To",
            descriptors=("com.tectonic.ui:text",),
        ),
    ] = ""
    number: Annotated[
        int,
        field(
            "How many seats to book, 1 to 10. Changing it changes the booking.",
            title="Seats",
            descriptors=("com.tectonic.ui:number",),
            minimum=1,
            maximum=10,
        ),
    ] = 0

    def __post_init__(self) -> None:
        # Tickets of one city share its name: kept apart, both cost 128 bytes in a store of many.
        force_setattr(self, "from_", intern(self.from_))
        force_setattr(self, "to", intern(self.to))


class FlightTicketStatus(Status, frozen=True):
    """What the airline holds for the ticket."""

    phase: Annotated[
        Phase | None,
        field(
            "Where the ticket stands: `Pending` (not booked yet), `Booked`, `Updating` (the booking is being "
            "changed), `Cancelling` (the ticket is deleted; its booking is not cancelled yet, or it is and "
            "other finalizers hold the ticket), `Failed` (it cannot be booked as it is) or `Paused` (by "
            "annotation). The condition `Ready` says why.",
            title="Status",
            descriptors=("io.kubernetes.phase",),
        ),
    ] = None
    booking_id: Annotated[
        str,
        field("The airline's number of the booking.", title="Booking", descriptors=("text",)),
    ] = msgspec.field(default="", name="bookingID")
    booked_seats: Annotated[
        int,
        field("How many seats the airline holds.", title="Booked seats", descriptors=("text",), minimum=0),
    ] = 0
    price: Annotated[
        str,
        field(
            'The price of the whole booking with its currency, "1084.00 EUR", where the airline tells it.',
            title="Price",
            descriptors=("text",),
        ),
    ] = ""


class FlightTicket(msgspec.Struct, frozen=True, gc=False):
    """A booked flight, or one to be booked: the view that the operator reads."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: Annotated[
        FlightTicketSpec,
        field(
            "The flight to book.",
            rules=(
                Rule(
                    "has(self.from) && self.from != ''",
                    "name the city the flight starts from, for example from: Mumbai",
                    field_path=".from",
                    reason="FieldValueRequired",
                ),
                Rule(
                    "has(self.to) && self.to != ''",
                    "name the city the flight goes to, for example to: London",
                    field_path=".to",
                    reason="FieldValueRequired",
                ),
                *(
                    Rule(
                        f"!has(self.{name}) || size(self.{name}) <= 100",
                        "name the city in at most 100 characters",
                        field_path=f".{name}",
                    )
                    for name in ("from", "to")
                ),
                Rule(
                    "has(self.number)",
                    "say how many seats to book, 1 to 10, for example number: 2",
                    field_path=".number",
                    reason="FieldValueRequired",
                ),
            ),
        ),
    ] = msgspec.field(default_factory=FlightTicketSpec)
    status: Annotated[FlightTicketStatus, field("What the airline holds, written by the operator.")] = (
        msgspec.field(default_factory=FlightTicketStatus)
    )


FLIGHT_TICKET: Kind[FlightTicket] = Kind(
    FlightTicket,
    group="flights.com",
    version="v1",
    title="Flight ticket",
    description="A FlightTicket asks for seats on a flight. The operator books them at the airline, keeps "
    "the booking equal to the spec, and cancels it when the ticket is deleted.",
    short_names=("ft",),
    columns=(
        Column("From", ".spec.from", description="The city the flight starts from"),
        Column("To", ".spec.to", description="The city the flight goes to"),
        Column("Seats", ".spec.number", type="integer", description="Seats asked for"),
        Column("Status", ".status.phase", description="Where the ticket stands"),
        Column("Booking", ".status.bookingID", description="The airline's number of the booking"),
        Column("Price", ".status.price", description="The price of the booking", priority=1),
        Column(
            "Message",
            '.status.conditions[?(@.type=="Ready")].message',
            description="Why the ticket is ready or not",
            priority=1,
        ),
        Column("Age", ".metadata.creationTimestamp", type="date", description="How long the ticket exists"),
    ),
    rules=(
        # A root value changes with every write, so the server would ask again about tickets stored without a
        # spec: those stay writable (finalizer, status) because the rule lets an object be as it was.
        Rule(
            "has(self.spec) || (oldSelf.hasValue() && !has(oldSelf.value().spec))",
            "say which flight to book, for example spec: {from: Mumbai, to: London, number: 2}",
            field_path=".spec",
            reason="FieldValueRequired",
            optional_old_self=True,
        ),
    ),
    manages=(ManagedResource("Event", "v1"),),
    reasons={
        "Booked": "The airline holds what the spec asks for.",
        "AirlineUnreachable": "The airline does not answer, or not in time, or asks for patience; or what "
        "answers is not the booking API. Tried again within seconds.",
        "AirlineUnauthorized": "The airline does not accept the operator's API key. "
        "Put a valid one into the Secret; it is read again without a restart.",
        "AirlineRejected": "The airline refuses, in the message's own words: a full flight, for example, or "
        "what the operator's API key is not allowed to do. The message names the remedy; "
        "the same is asked again every 10 minutes.",
        "InvalidSpec": "No airline can book that. The message names the field, the value and the remedy. "
        "Tried again when the spec changes.",
        "BookingContested": "Somebody else changes the booking at the airline as fast as the operator does.",
        "Cancelled": "The ticket is deleted and its booking cancelled. Others hold the ticket: the message "
        "names their finalizers.",
        "Paused": "The annotation `pilothouse.dev/paused` is `true`: nothing is done about the ticket, its "
        "deletion included, until it is taken away. The condition is `Unknown` meanwhile.",
        "KubernetesRefused": "The API server refused a write, in the message's words. "
        "A missing permission is the usual cause.",
        "Timeout": "The ticket was not done within the operator's SYNC_TIMEOUT. "
        "Tried again with growing pauses.",
        "UnexpectedError": "A defect of the operator; its log has the details. "
        "Tried again with growing pauses.",
    },
)
