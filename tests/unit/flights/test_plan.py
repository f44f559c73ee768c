from itertools import product

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from flights_operator.booking import Booking, Trip
from flights_operator.plan import Book, Change, Keep, decide, mistakes
from flights_operator.types import FlightTicketSpec

CITIES = st.sampled_from(["Mumbai", "London", "Paris", ""])
TRIPS = st.builds(Trip, CITIES, CITIES, st.integers(0, 12))
BOOKINGS = st.builds(
    Booking,
    id=st.just("K7M2QX"),
    reference=st.just("uid"),
    origin=CITIES,
    destination=CITIES,
    seats=st.integers(0, 12),
    version=st.integers(1, 9),
)


def carry_out(step: Book | Change | Keep) -> Booking:
    """Returns the booking at the airline after a step."""
    match step:
        case Book(trip):
            return Booking("K7M2QX", "uid", *trip, version=1)
        case Change(booking, trip):
            changed = Booking(booking.id, booking.reference, *trip, version=booking.version + 1)
            assert step.diff
            return changed
        case Keep(booking):
            return booking


@given(TRIPS, st.none() | BOOKINGS)
def test_one_step_reaches_the_spec_and_is_the_last(wanted, booking):
    step = decide(wanted, booking)
    after = carry_out(step)
    assert after.trip == wanted
    assert decide(wanted, after) == Keep(after)


@given(TRIPS, BOOKINGS)
def test_never_a_second_booking(wanted, booking):
    step = decide(wanted, booking)
    assert not isinstance(step, Book)
    assert carry_out(step).id == booking.id


@given(TRIPS, BOOKINGS)
def test_the_diff_names_what_changes_and_nothing_else(wanted, booking):
    step = decide(wanted, booking)
    if isinstance(step, Change):
        for name, old, new in zip(("from", "to", "seats"), booking.trip, wanted, strict=True):
            assert (f"{name}: {old} -> {new}" in step.diff) == (old != new)


def test_one_step_reaches_the_spec_from_each_of_a_million_states():
    """Every trip that a spec may have, with no booking and with every possible booking."""
    cities = ("Mumbai", "London", "Paris", "mumbai", "")
    trips = [Trip(*each) for each in product(cities, cities, range(40))]
    held = [None, *(Booking("K7M2QX", "uid", *trip, version=1) for trip in trips)]
    for wanted, booking in product(trips, held):
        step = decide(wanted, booking)
        assert isinstance(step, Book) == (booking is None)
        assert isinstance(step, Keep) == (booking is not None and booking.trip == wanted)
        assert carry_out(step).trip == wanted
    assert len(trips) * len(held) > 1_000_000


@given(TRIPS)
def test_a_spec_without_mistakes_can_be_booked(trip):
    spec = msgspec.convert(
        {"from": trip.origin, "to": trip.destination, "number": trip.seats}, FlightTicketSpec
    )
    bookable = (
        bool(trip.origin and trip.destination) and trip.origin != trip.destination and 1 <= trip.seats <= 10
    )
    assert (mistakes(spec) == []) == bookable


def test_a_mistake_never_repeats_a_long_value():
    long = "x" * 40_000
    assert mistakes(FlightTicketSpec(from_=long, to=long, number=1)) == [
        "spec.from has 40000 characters: use at most 100",
        "spec.to has 40000 characters: use at most 100",
    ]
    assert mistakes(FlightTicketSpec(from_="Os\x1b[31mlo", to="Łódź", number=1)) == [
        "spec.from is 'Os\\x1b[31mlo': remove the control characters"
    ]


def test_every_mistake_names_the_field_the_value_and_the_correction():
    assert mistakes(FlightTicketSpec(from_=" ", to="", number=11)) == [
        "spec.from is ' ': set a city, for example Mumbai",
        "spec.to is '': set a city, for example London",
        "spec.number is 11: set 1 to 10 seats",
    ]
