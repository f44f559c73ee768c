"""What a ticket says when the airline fails it: reason, sentence, remedy, next try."""

import random

import msgspec

from flights_operator.errors import (
    AirlineError,
    CircuitOpenError,
    RejectedError,
    TransientError,
    UnauthorizedError,
)
from flights_operator.types import FINALIZER, FlightTicket
from pilothouse import TaskFailed

INVALID_SPEC = "InvalidSpec"
UNREACHABLE = "AirlineUnreachable"
UNAUTHORIZED = "AirlineUnauthorized"
REJECTED = "AirlineRejected"

# The next try while the airline fails, seconds; the spread keeps tickets from coming all at once.
RETRY_SECONDS, RETRY_SPREAD = 2.0, 5.0
# The next try of what the airline refused: a full flight may have free seats by then.
REJECTED_SECONDS = 600.0
KEY_REMEDY = "Put a valid key into the Secret that is mounted there."
CLOSED_REMEDY = "Delete the ticket and create it anew."
FORBIDDEN_REMEDY = "See what the operator's API key is allowed to do; it is asked again in 10 minutes."
REMEDY = "Change the spec; it is asked again in 10 minutes."


def retry_seconds(error: TransientError) -> float:
    """Seconds until the airline is asked again."""
    known = RETRY_SECONDS if error.retry_after is None else error.retry_after
    return known + random.uniform(0, RETRY_SPREAD)  # noqa: S311 - spreads load, guards nothing


def task_failure(error: AirlineError, ticket: FlightTicket) -> TaskFailed:
    """The failure of a task for an error of the airline. Its sentence stays the same while the cause does."""
    if isinstance(error, TransientError):
        cause = error.cause if isinstance(error, CircuitOpenError) else error
        reason = UNAUTHORIZED if isinstance(cause, UnauthorizedError) else UNREACHABLE
        key = f" {KEY_REMEDY}" if reason == UNAUTHORIZED else ""
        message = f"{sentence(error)}{key} {prospect(ticket)}"
        return TaskFailed(reason, message, retry_after=retry_seconds(error))
    if ticket.metadata.deletion_timestamp:
        message = f"The airline refuses to cancel: {sentence(error)} {prospect(ticket)}"
    else:
        message = f"The airline refuses: {sentence(error)} {remedy(error)}"
    return TaskFailed(REJECTED, message, retry_after=REJECTED_SECONDS)


def remedy(error: AirlineError) -> str:
    """What a person can do about a refusal."""
    if isinstance(error, RejectedError):
        if error.code == "reference_closed":
            return CLOSED_REMEDY
        if error.status == 403:
            return FORBIDDEN_REMEDY
    return REMEDY


def prospect(ticket: FlightTicket) -> str:
    """What happens next, and what a person may do meanwhile."""
    meta, booking = ticket.metadata, ticket.status.booking_id
    if meta.deletion_timestamp is None:
        if booking:
            return f"Booking {booking} is brought up to date as soon as the airline can be used again."
        return "The ticket is booked as soon as the airline can be used again."
    left = f"booking {booking}" if booking else f"a booking with the reference {meta.uid}, if there is one,"
    return (
        "The ticket goes when its booking is cancelled; that is tried over and over. To release it by hand: "
        f"{release_command(ticket)}; {left} then stays at the airline."
    )


def release_command(ticket: FlightTicket) -> str:
    """The command that takes our finalizer away and no other: it tests that it is where it was."""
    meta = ticket.metadata
    path = f"/metadata/finalizers/{list(meta.finalizers).index(FINALIZER)}"
    patch = [{"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}]
    return (
        f"kubectl patch flightticket {meta.name} -n {meta.namespace} --type=json "
        f"-p '{msgspec.json.encode(patch).decode()}'"
    )


def sentence(error: AirlineError) -> str:
    """The error's text with a full stop."""
    text = str(error)
    return text if text.endswith((".", "!", "?")) else f"{text}."
