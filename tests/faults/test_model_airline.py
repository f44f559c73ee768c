"""Compares the model of the airline with the real one: all calls have the same results."""

import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flights_operator.airline import Airline
from flights_operator.booking import Booking, Trip
from flights_operator.errors import RejectedError
from flights_operator.settings import FlightsSettings
from tests.airline import running_airline
from tests.faults.airline import ModelAirline

LONDON, PARIS = Trip("Mumbai", "London", 2), Trip("Mumbai", "Paris", 5)


async def results(airline: Any) -> list[Any]:
    """Returns the results of a sequence of calls, with bookings numbered in order of appearance."""
    lines: list[Any] = []
    numbers: dict[str, int] = {}

    async def note(call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            answer = await call()
        except RejectedError as error:
            lines.append((type(error).__name__, error.status, error.code))
            return None
        if isinstance(answer, Booking):
            number = numbers.setdefault(answer.id, len(numbers))
            lines.append((number, answer.reference, answer.trip, answer.version))
        else:
            lines.append(answer)
        return answer

    keys = map(str, itertools.count())
    await note(lambda: airline.find("a"))
    first = await note(lambda: airline.book("a", LONDON))
    await note(lambda: airline.book("a", PARIS))
    await note(lambda: airline.find("a"))
    key = next(keys)
    second = await note(lambda: airline.change(first, PARIS, key=key))
    await note(lambda: airline.change(first, PARIS, key=key))  # The same request: the same reply.
    await note(lambda: airline.change(first, LONDON, key=next(keys)))  # An old version.
    await note(lambda: airline.change(second, LONDON, key=next(keys)))
    await note(lambda: airline.cancel("a"))
    await note(lambda: airline.cancel("a"))
    await note(lambda: airline.find("a"))
    await note(lambda: airline.book("a", LONDON))  # A closed reference.
    await note(lambda: airline.change(second, LONDON, key=next(keys)))
    await note(lambda: airline.cancel("b"))  # Never booked; closes the reference.
    await note(lambda: airline.book("b", LONDON))
    return lines


async def test_the_model_and_the_service_have_the_same_results(tmp_path: Path) -> None:
    async with running_airline(tmp_path) as service:
        settings = FlightsSettings(url=service.url, key_file=service.key_file, timeout=5.0, resync=600.0)
        async with Airline(settings) as real:
            expected = await results(real)
        actions = await service.actions()
    model = ModelAirline()
    assert await results(model) == expected
    assert [effect.partition(" ")[0] for effect in model.effects] == actions
