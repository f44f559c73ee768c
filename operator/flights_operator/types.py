"""The kind FlightTicket, flights.com/v1. `inv generate` writes its CRD, CSV entry and reference page."""

from enum import StrEnum
from sys import intern
from typing import Annotated

import msgspec
from msgspec.structs import force_setattr

from pilothouse import Column, Kind, ManagedResource, ObjectMeta, Rule, Status, field

FINALIZER = "flights.com/booking"
"""The finalizer of the operator. A deleted ticket keeps it until its booking is cancelled."""


class Phase(StrEnum):
    """The state of a ticket in one word."""

    PENDING = "Pending"
    BOOKED = "Booked"
    UPDATING = "Updating"
    CANCELLING = "Cancelling"
    FAILED = "Failed"
    PAUSED = "Paused"

    @classmethod
    def _missing_(cls, value: object) -> "Phase":
        """Decodes a phase of a newer release as Pending, for a downgrade. The next reconcile sets it."""
        return cls.PENDING


class FlightTicketSpec(msgspec.Struct, frozen=True, gc=False, rename={"from_": "from"}):
    """The flight to book. A field is empty if the object does not have it."""

    from_: Annotated[
        str,
        field(
            "The city that the flight starts from. If you change it, the operator changes the booking.",
            title="From",
            descriptors=("com.tectonic.ui:text",),
        ),
    ] = ""
    to: Annotated[
        str,
        field(
            "The city that the flight goes to. If you change it, the operator changes the booking.",
            title="To",
            descriptors=("com.tectonic.ui:text",),
        ),
    ] = ""
    number: Annotated[
        int,
        field(
            "The number of seats to book, 1 to 10. If you change it, the operator changes the booking.",
            title="Seats",
            descriptors=("com.tectonic.ui:number",),
            minimum=1,
            maximum=10,
        ),
    ] = 0

    def __post_init__(self) -> None:
        # Interning saves 128 bytes per ticket: tickets share one string per city.
        force_setattr(self, "from_", intern(self.from_))
        force_setattr(self, "to", intern(self.to))


class FlightTicketStatus(Status, frozen=True):
    """The booking of the ticket, as the operator last saw it."""

    phase: Annotated[
        Phase | None,
        field(
            "The state of the ticket: `Pending` (not booked yet), `Booked`, `Updating` (the booking is being "
            "changed), `Cancelling` (the ticket is being deleted: the operator is cancelling its booking, or "
            "other finalizers remain), `Failed` (the ticket cannot be booked with this spec) or `Paused` (by "
            "annotation). The condition `Ready` shows why.",
            title="Status",
            descriptors=("io.kubernetes.phase",),
        ),
    ] = None
    booking_id: Annotated[
        str,
        field("The booking's number at the airline.", title="Booking", descriptors=("text",)),
    ] = msgspec.field(default="", name="bookingID")
    booked_seats: Annotated[
        int,
        field("The number of booked seats.", title="Booked seats", descriptors=("text",), minimum=0),
    ] = 0
    price: Annotated[
        str,
        field(
            'The price of the whole booking with its currency, for example "1084.00 EUR". Empty if the '
            "airline does not report a price.",
            title="Price",
            descriptors=("text",),
        ),
    ] = ""


class FlightTicket(msgspec.Struct, frozen=True, gc=False):
    """The view of a FlightTicket that the operator reads."""

    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)
    spec: Annotated[
        FlightTicketSpec,
        field(
            "The flight to book.",
            rules=(
                Rule(
                    "has(self.from) && self.from != ''",
                    "set the city that the flight starts from, for example from: Mumbai",
                    field_path=".from",
                    reason="FieldValueRequired",
                ),
                Rule(
                    "has(self.to) && self.to != ''",
                    "set the city that the flight goes to, for example to: London",
                    field_path=".to",
                    reason="FieldValueRequired",
                ),
                *(
                    Rule(
                        f"!has(self.{name}) || size(self.{name}) <= 100",
                        "use at most 100 characters for the city",
                        field_path=f".{name}",
                    )
                    for name in ("from", "to")
                ),
                Rule(
                    "has(self.number)",
                    "set the number of seats to book, 1 to 10, for example number: 2",
                    field_path=".number",
                    reason="FieldValueRequired",
                ),
            ),
        ),
    ] = msgspec.field(default_factory=FlightTicketSpec)
    status: Annotated[FlightTicketStatus, field("The state of the booking, written by the operator.")] = (
        msgspec.field(default_factory=FlightTicketStatus)
    )


FLIGHT_TICKET: Kind[FlightTicket] = Kind(
    FlightTicket,
    group="flights.com",
    version="v1",
    title="Flight ticket",
    description="A FlightTicket requests seats on a flight. The operator books them at the airline, keeps "
    "the booking equal to the spec, and cancels it when the ticket is deleted.",
    short_names=("ft",),
    columns=(
        Column("From", ".spec.from", description="The city that the flight starts from"),
        Column("To", ".spec.to", description="The city that the flight goes to"),
        Column("Seats", ".spec.number", type="integer", description="The requested number of seats"),
        Column("Status", ".status.phase", description="The state of the ticket"),
        Column("Booking", ".status.bookingID", description="The booking's number at the airline"),
        Column("Price", ".status.price", description="The price of the booking", priority=1),
        Column(
            "Message",
            '.status.conditions[?(@.type=="Ready")].message',
            description="Why the ticket is or is not ready",
            priority=1,
        ),
        Column("Age", ".metadata.creationTimestamp", type="date", description="The age of the ticket"),
    ),
    rules=(
        # The API server checks a rule on the root at every write, because every write changes metadata. A
        # ticket that was stored without a spec must stay writable (finalizers, status): the rule accepts it.
        Rule(
            "has(self.spec) || (oldSelf.hasValue() && !has(oldSelf.value().spec))",
            "set the flight to book, for example spec: {from: Mumbai, to: London, number: 2}",
            field_path=".spec",
            reason="FieldValueRequired",
            optional_old_self=True,
        ),
    ),
    manages=(ManagedResource("Event", "v1"),),
    reasons={
        "Booked": "The booking at the airline matches the spec.",
        "AirlineUnreachable": "The airline cannot be reached, does not answer in time, or limits the request "
        "rate; or the server at AIRLINE_URL is not the booking API. The operator retries within seconds.",
        "AirlineUnauthorized": "The airline does not accept the operator's API key. "
        "Put a valid key into the Secret. The operator reads it again without a restart.",
        "AirlineRejected": "The airline rejected the request, for example because the flight is full or the "
        "operator's API key lacks a permission. The message has the airline's reason and what to do. The "
        "operator retries every 10 minutes.",
        "InvalidSpec": "The spec cannot be booked. The message names the field, its value and how to correct "
        "it. The operator retries when the spec changes.",
        "BookingContested": "Another client of the airline changes the booking as fast as the operator does.",
        "Cancelled": "The booking is cancelled, but the ticket still exists because it has other finalizers. "
        "The message names them.",
        "Paused": "The annotation `pilothouse.dev/paused` is `true`. Until you remove it, the operator does "
        "not touch the ticket or its booking, even if the ticket is deleted. The condition is `Unknown`.",
        "FinalizerNotRemoved": "The API server refused to remove the operator's finalizer, so the deleted "
        "ticket stays. The message has the API server's words. The operator retries with back-off.",
        "FinalizerNotStored": "The API server refused the operator's finalizer, so nothing is booked. The "
        "message has the API server's words. The operator retries with back-off.",
        "KubernetesRefused": "The API server rejected a write. The message has its reason; a missing "
        "permission is the usual cause.",
        "StatusNotWritten": "The API server refused the ticket's status. The message has the API server's "
        "words. The operator retries with back-off.",
        "Timeout": "The reconcile took longer than the operator's SYNC_TIMEOUT. "
        "The operator retries with back-off.",
        "Undecodable": "The operator cannot read the ticket, because a field does not fit the types of this "
        "release. The message names the field. Correct it; the operator then continues.",
        "UnexpectedError": "The operator has a bug. Its log has the details. "
        "The operator retries with back-off.",
    },
)
