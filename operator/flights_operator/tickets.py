"""The play of a FlightTicket, and its tasks in the order in which they run.

The ticket's UID is the booking's reference at the airline: the booking is found without knowing its number,
and there is one booking per ticket, however often a play is killed and repeated.
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
# A booking that somebody else keeps changing: after so many steps the ticket is played again later.
MAX_STEPS = 5


class TicketPlay(Play[FlightTicket, FlightTicketStatus]):
    """One run over one ticket.

    Attributes:
        airline: Where it is booked.
        comparisons: When a settled ticket is compared with its booking.
        reference: The booking's reference.
        trip: What the ticket asks for.
        known: Whether `booking` is.
        booking: What the airline holds; None: nothing.
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
        """A hash of a person's request to compare and of what a status says: a change is somebody's doing."""
        request = self.object.metadata.annotations.get(RECONCILE, "")
        return hash((request, status.phase, status.booking_id, status.booked_seats, status.price))

    @property
    def due(self) -> bool:
        """Whether the settled ticket is to be compared with its booking now."""
        return self.comparisons.due(self.reference, self.known_with(self.object.status))

    def remembered(self) -> Booking | None:
        """The booking as this process last saw it, where it is known to differ from what the ticket asks for.

        It may be another by now; the airline then refuses to change it, and it is looked up.
        """
        status = self.object.status
        last = self.comparisons.last(self.reference, self.known_with(status))
        if last is None or last.version is None or last.trip == self.trip or not status.booking_id:
            return None
        price = Price(*status.price.rsplit(" ", 1)) if " " in status.price else None
        return Booking(status.booking_id, self.reference, *last.trip, version=last.version, price=price)

    async def look_up(self) -> None:
        """Finds out what the airline holds."""
        self.booking = await self.airline.find(self.reference)
        self.known = True

    def leave_as_is(self, why: str) -> None:
        """Ends the play of a settled ticket: its status stays what it is."""
        self.skip(why)
        ready = next(each for each in self.object.status.conditions if each.type == "Ready")
        self.ready_reason, self.ready_message = ready.reason, ready.message

    def report_booking(self) -> None:
        """Puts what the airline holds into the status."""
        booking = self.booking
        self.status = replace(
            self.status,
            booking_id=booking.id if booking else "",
            booked_seats=booking.seats if booking else 0,
            price=str(booking.price) if booking and booking.price else "",
        )

    def failed(self, failure: TaskFailed) -> None:
        """Sets the phase, and what is known of the booking."""
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
        """Sets the phase: `kubectl get` shows it."""
        self.status = replace(self.status, phase=Phase.PAUSED)


@task("the spec can be booked")
async def check_spec(play: TicketPlay) -> None:
    """Refuses what no airline can book."""
    if wrong := mistakes(play.object.spec):
        raise TaskFailed(INVALID_SPEC, "; ".join(wrong) + ".", permanent=True)


@task("the booking is known")
async def find_booking(play: TicketPlay) -> None:
    """Looks the booking up by the ticket's UID, unless the ticket is new, or compared lately.

    A settled ticket stays as it is while the airline cannot be reached, unless a person has asked.
    """
    if play.object.status == UNTOUCHED and not play.check:
        # There is none; if there is, of a play that was killed, to book is answered by ReferenceExistsError.
        play.known = True
        return
    if play.settled and not play.check and not play.due:
        play.leave_as_is("settled")
        return
    if not play.check and (booking := play.remembered()):
        play.booking, play.known = booking, True
        return
    try:
        await play.look_up()
    except TransientError as error:
        if play.check or not play.settled:
            raise task_failure(error, play.object) from error
        play.leave_as_is(f"not compared with its booking: {error}")
        play.requeue_after(retry_seconds(error))
        return
    except AirlineError as error:
        raise task_failure(error, play.object) from error
    tell_outside_change(play)


@task("the booking is what the spec asks for")
async def settle_booking(play: TicketPlay) -> None:
    """Books, or changes the booking, until it is what the spec asks for."""
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
        "Somebody else keeps changing the booking at the airline: see who else uses the operator's API key."
    )
    raise TaskFailed("BookingContested", message)


@task("the status tells the booking")
async def report(play: TicketPlay) -> None:
    """Puts the booking into the status."""
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
    """Cancels by the ticket's UID, whatever the status says; a booking still under way comes too late.

    The status says so as long as the finalizers of others hold the ticket. In check mode it is looked up: a
    person has asked, and is told when the airline cannot be reached.
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
        held = f"other finalizers hold the ticket: {', '.join(others)}."
        play.ready_message = f"The booking is cancelled; {held}"


async def take_step(play: TicketPlay) -> bool:
    """Takes the next step towards the booking; returns whether none is left."""
    airline, reference, step = play.airline, play.reference, decide(play.trip, play.booking)
    match step:
        case Keep():
            return True
        case Book(trip):
            play.booking = await play.call(f"book {trip}", lambda: airline.book(reference, trip))
        case Change(booking, trip):
            # With the version in it, the key never brings back the answer to a change that somebody undid.
            key = f"{reference}-{play.object.metadata.generation}-{booking.version}"
            play.booking = await play.call(
                f"change booking {booking.id}", lambda: airline.change(booking, trip, key=key), diff=step.diff
            )
    return play.check


async def look_up_again(play: TicketPlay) -> None:
    """Somebody else was faster: what is there now?"""
    try:
        await play.look_up()
    except AirlineError as error:
        raise task_failure(error, play.object) from error


def tell_outside_change(play: TicketPlay) -> None:
    """Records an Event when the booking of a settled ticket is no longer what it was.

    What comes of it is told by what is done next: the airline may refuse to book anew.
    """
    if not play.settled:
        return
    known = play.object.status.booking_id
    if play.booking is None:
        play.event(EventType.WARNING, "BookingVanished", f"Booking {known} is gone at the airline.")
    elif play.booking.trip != play.trip:
        note = f"Booking {known} was changed at the airline to {play.booking.trip}."
        play.event(EventType.WARNING, "BookingChanged", note)


def ticket_playbook(airline: Airline, resync: float) -> Playbook[TicketPlay]:
    """The playbook of FlightTickets.

    Args:
        airline: Where tickets are booked.
        resync: How often a settled ticket is compared with its booking, seconds; 0: never.
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
