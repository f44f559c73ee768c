"""Turns the airline's errors into failures of tasks: reason, message, advice, time of the retry."""

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

# Seconds until a retry while the airline fails. The random spread avoids retrying all tickets together.
RETRY_SECONDS, RETRY_SPREAD = 2.0, 5.0
# Seconds until a retry of a rejected request: a full flight may have free seats by then.
REJECTED_SECONDS = 600.0
KEY_ADVICE = "Put a valid key into the Secret that is mounted there."
CLOSED_ADVICE = "Delete the ticket and create it again."
FORBIDDEN_ADVICE = "Check the permissions of the operator's API key. The operator retries in 10 minutes."
ADVICE = "Change the spec, or wait: the operator retries in 10 minutes."


def retry_seconds(error: TransientError) -> float:
    """Returns the number of seconds until the operator retries, with random spread."""
    known = RETRY_SECONDS if error.retry_after is None else error.retry_after
    return known + random.uniform(0, RETRY_SPREAD)  # noqa: S311 - spreads load, guards nothing


def task_failure(error: AirlineError, ticket: FlightTicket) -> TaskFailed:
    """Returns the failure of a task for an error of the airline. The same cause gives the same message."""
    if isinstance(error, TransientError):
        cause = error.cause if isinstance(error, CircuitOpenError) else error
        reason = UNAUTHORIZED if isinstance(cause, UnauthorizedError) else UNREACHABLE
        key = f" {KEY_ADVICE}" if reason == UNAUTHORIZED else ""
        message = f"{sentence(error)}{key} {next_step(ticket)}"
        return TaskFailed(reason, message, retry_after=retry_seconds(error))
    if ticket.metadata.deletion_timestamp:
        message = f"The airline rejected the cancellation: {sentence(error)} {next_step(ticket)}"
    else:
        message = f"The airline rejected the request: {sentence(error)} {advice(error)}"
    return TaskFailed(REJECTED, message, retry_after=REJECTED_SECONDS)


def advice(error: AirlineError) -> str:
    """Returns what a user can do about a rejected request."""
    if isinstance(error, RejectedError):
        if error.code == "reference_closed":
            return CLOSED_ADVICE
        if error.status == 403:
            return FORBIDDEN_ADVICE
    return ADVICE


def next_step(ticket: FlightTicket) -> str:
    """Returns what the operator will do next, and what a user can do to end the wait."""
    meta, booking = ticket.metadata, ticket.status.booking_id
    if meta.deletion_timestamp is None:
        if booking:
            return f"The operator updates booking {booking} as soon as the airline is available again."
        return "The operator books the ticket as soon as the airline is available again."
    left = f"booking {booking}" if booking else f"any booking with the reference {meta.uid}"
    return (
        "The ticket is deleted once its booking is cancelled; the operator keeps retrying. To delete the "
        f"ticket without cancelling, run: {release_command(ticket)}; {left} then stays at the airline."
    )


def release_command(ticket: FlightTicket) -> str:
    """Returns the command that removes our finalizer from a ticket.

    The command fails if the finalizers have changed, so that it never removes another finalizer.
    """
    meta = ticket.metadata
    path = f"/metadata/finalizers/{list(meta.finalizers).index(FINALIZER)}"
    patch = [{"op": "test", "path": path, "value": FINALIZER}, {"op": "remove", "path": path}]
    return (
        f"kubectl patch flightticket {meta.name} -n {meta.namespace} --type=json "
        f"-p '{msgspec.json.encode(patch).decode()}'"
    )


def sentence(error: AirlineError) -> str:
    """Returns the error's text with a full stop."""
    text = str(error)
    return text if text.endswith((".", "!", "?")) else f"{text}."
