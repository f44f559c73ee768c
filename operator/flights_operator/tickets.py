"""The play of a FlightTicket, and its tasks in the order in which they run.

The ticket's UID is the booking's reference at the airline. So the operator finds a booking without knowing
its number, and there is one booking per ticket even if a reconcile is interrupted and repeated.
"""

from typing import Any

from msgspec.structs import replace

from flights_operator.airline import Airline
from flights_operator.booking import Booking, Price, Trip
from flights_operator.comparisons import Comparisons
from flights_operator.errors import AirlineError, ReferenceExistsError, StaleBookingError, TransientError
from flights_operator.failures import INVALID_SPEC, REJECTED, retry_seconds, task_failure
from flights_operator.plan import Book, Change, Keep, decide, mistakes
from flights_operator.types import FINALIZER, FlightTicket, FlightTicketStatus, Phase
from pilothouse import RECONCILE, EventType, Play, Playbook, TaskFailed, task

UNTOUCHED = FlightTicketStatus()
# If another client keeps changing the booking, the reconcile fails after this number of steps.
MAX_STEPS = 5


class TicketPlay(Play[FlightTicket, FlightTicketStatus]):
    """One reconcile of one ticket.

    Attributes:
        airline: The client of the airline.
        comparisons: Decides when a settled ticket is compared with its booking.
        reference: The booking's reference at the airline.
        trip: The trip in the ticket's spec.
        known: Whether `booking` is up to date.
        booking: The ticket's booking at the airline. None if there is none.
    """

    def __init__(
        self, ticket: FlightTicket, airline: Airline, comparisons: Comparisons, **engine: Any
    ) -> None:
        super().__init__(ticket, **engine)
        self.airline = airline
        self.comparisons = comparisons
        self.reference = ticket.metadata.uid
        self.trip = Trip(ticket.spec.from_, ticket.spec.to, ticket.spec.number)
        self.known = False
        self.booking: Booking | None = None

    def known_with(self, status: FlightTicketStatus) -> int:
        """Returns a hash of the user's last reconcile request and of the booking's fields in a status.

        If it changes between two comparisons, a user has made a request or edited the status.
        """
        request = self.object.metadata.annotations.get(RECONCILE, "")
        return hash((request, status.phase, status.booking_id, status.booked_seats, status.price))

    @property
    def due(self) -> bool:
        """Whether to compare the settled ticket with its booking now."""
        return self.comparisons.due(self.reference, self.known_with(self.object.status))

    def remembered(self) -> Booking | None:
        """Returns the booking as this process last saw it, if that differs from the spec; otherwise None.

        The booking may have changed since. The airline then rejects the change, and the task looks up the
        booking again.
        """
        status = self.object.status
        last = self.comparisons.last(self.reference, self.known_with(status))
        if last is None or last.version is None or last.trip == self.trip or not status.booking_id:
            return None
        price = Price(*status.price.rsplit(" ", 1)) if " " in status.price else None
        return Booking(status.booking_id, self.reference, *last.trip, version=last.version, price=price)

    async def look_up(self) -> None:
        """Looks up the booking at the airline."""
        self.booking = await self.airline.find(self.reference)
        self.known = True

    def keep_status(self, why: str) -> None:
        """Skips the task for a settled ticket and keeps the ticket's status unchanged."""
        self.skip(why)
        ready = next(each for each in self.object.status.conditions if each.type == "Ready")
        self.ready_reason, self.ready_message = ready.reason, ready.message

    def report_booking(self) -> None:
        """Writes the booking into the status."""
        booking = self.booking
        self.status = replace(
            self.status,
            booking_id=booking.id if booking else "",
            booked_seats=booking.seats if booking else 0,
            price=str(booking.price) if booking and booking.price else "",
        )

    def failed(self, failure: TaskFailed) -> None:
        """Sets the phase, and the booking if it is known."""
        if self.known:
            self.report_booking()
        if self.deleting:
            phase = Phase.CANCELLING
        elif failure.reason in (INVALID_SPEC, REJECTED):
            phase = Phase.FAILED
        else:
            phase = Phase.UPDATING if self.status.booking_id else Phase.PENDING
        self.status = replace(self.status, phase=phase)

    def paused(self) -> None:
        """Sets the phase, which `kubectl get` shows."""
        self.status = replace(self.status, phase=Phase.PAUSED)


@task("the spec can be booked")
async def check_spec(play: TicketPlay) -> None:
    """Fails if the spec has mistakes."""
    if wrong := mistakes(play.object.spec):
        raise TaskFailed(INVALID_SPEC, "; ".join(wrong) + ".", permanent=True)


@task("the booking is known")
async def find_booking(play: TicketPlay) -> None:
    """Looks up the booking by the ticket's UID, unless the ticket is new or was compared recently.

    While the airline cannot be reached, the status of a settled ticket stays unchanged. In check mode the
    task fails instead, because a user is waiting for the result.
    """
    if play.object.status == UNTOUCHED and not play.check:
        # A new ticket has no booking. If an interrupted reconcile has made one, booking raises
        # ReferenceExistsError.
        play.known = True
        return
    if play.settled and not play.check and not play.due:
        play.keep_status("settled")
        return
    if not play.check and (booking := play.remembered()):
        play.booking, play.known = booking, True
        return
    try:
        await play.look_up()
    except TransientError as error:
        if play.check or not play.settled:
            raise task_failure(error, play.object) from error
        play.keep_status(f"not compared with its booking: {error}")
        play.requeue_after(retry_seconds(error))
        return
    except AirlineError as error:
        raise task_failure(error, play.object) from error
    report_outside_change(play)


@task("the booking matches the spec")
async def settle_booking(play: TicketPlay) -> None:
    """Books, or changes the booking, until it matches the spec."""
    if not play.known:
        play.skip()
        return
    for _ in range(MAX_STEPS):
        try:
            if await take_step(play):
                return
        except (ReferenceExistsError, StaleBookingError):
            await look_up_again(play)
        except AirlineError as error:
            raise task_failure(error, play.object) from error
    message = (
        "Another client keeps changing the booking at the airline. Check who else uses the operator's key."
    )
    raise TaskFailed("BookingContested", message)


@task("the status shows the booking")
async def report(play: TicketPlay) -> None:
    """Writes the booking into the status."""
    booking = play.booking
    if booking is None:
        play.skip()
        return
    play.report_booking()
    play.status = replace(play.status, phase=Phase.BOOKED)
    play.comparisons.done(play.reference, play.known_with(play.status), booking)
    play.ready_reason = "Booked"
    play.ready_message = f"Booking {booking.id} holds {booking.trip}."


@task("the booking is cancelled")
async def cancel_booking(play: TicketPlay) -> None:
    """Cancels by the ticket's UID, regardless of the status, so that a request in flight cannot book later.

    If the ticket has other finalizers, its status shows that the booking is cancelled. In check mode the task
    looks up the booking, so that the user sees if the airline cannot be reached.
    """
    try:
        if play.check:
            await play.look_up()
        await play.call("cancel the booking", lambda: play.airline.cancel(play.reference))
    except AirlineError as error:
        raise task_failure(error, play.object) from error
    play.booking = None
    play.comparisons.forget(play.reference)
    play.report_booking()
    play.status = replace(play.status, phase=Phase.CANCELLING)
    play.ready_reason = "Cancelled"
    play.ready_message = "The booking is cancelled."
    if others := [name for name in play.object.metadata.finalizers if name != FINALIZER]:
        remaining = f"The ticket still has other finalizers: {', '.join(others)}."
        play.ready_message = f"The booking is cancelled. {remaining}"


async def take_step(play: TicketPlay) -> bool:
    """Takes the next step towards a booking that matches the spec. Returns True if there is none left."""
    airline, reference, step = play.airline, play.reference, decide(play.trip, play.booking)
    match step:
        case Keep():
            return True
        case Book(trip):
            play.booking = await play.call(f"book {trip}", lambda: airline.book(reference, trip))
        case Change(booking, trip):
            # The key contains the version. Otherwise, if another client reverts this change, the airline
            # would repeat its old answer instead of making the change again.
            key = f"{reference}-{play.object.metadata.generation}-{booking.version}"
            play.booking = await play.call(
                f"change booking {booking.id}", lambda: airline.change(booking, trip, key=key), diff=step.diff
            )
    return play.check


async def look_up_again(play: TicketPlay) -> None:
    """Looks up the booking after another client created, changed or cancelled it."""
    try:
        await play.look_up()
    except AirlineError as error:
        raise task_failure(error, play.object) from error


def report_outside_change(play: TicketPlay) -> None:
    """Records an Event if another client changed or cancelled the booking of a settled ticket.

    The Event does not announce a correction, because the airline may reject it.
    """
    if not play.settled:
        return
    known = play.object.status.booking_id
    if play.booking is None:
        play.event(EventType.WARNING, "BookingVanished", f"Booking {known} no longer exists at the airline.")
    elif play.booking.trip != play.trip:
        note = f"Another client changed booking {known} at the airline to {play.booking.trip}."
        play.event(EventType.WARNING, "BookingChanged", note)


def ticket_playbook(airline: Airline, resync: float) -> Playbook[TicketPlay]:
    """Returns the playbook of FlightTickets.

    Args:
        airline: The client of the airline.
        resync: The interval at which a settled ticket is compared with its booking, in seconds. 0 turns the
            regular comparison off.
    """
    comparisons = Comparisons(resync)

    def play(ticket: FlightTicket, **engine: Any) -> TicketPlay:
        return TicketPlay(ticket, airline, comparisons, **engine)

    return Playbook(
        play,
        tasks=[check_spec, find_booking, settle_booking, report],
        cleanup=[cancel_booking],
        finalizer=FINALIZER,
    )
