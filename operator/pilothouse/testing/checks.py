"""Checks what a scenario declares and does: a mistake there would silently weaken the test."""

import difflib
from collections.abc import Iterator

from pilothouse.testing.controllers import StandIn
from pilothouse.testing.scenario import Scenario

#: How similar a name must be to one of Scenario to be taken for a misspelling of it (difflib's ratio).
SIMILAR = 0.8
_LISTS = {"recurring": str, "retained": str, "controllers": StandIn}


def require_declared(scenario: object) -> None:
    """Refuses a scenario with a misspelled attribute, or with one of the wrong type.

    Raises:
        TypeError: The object is not a Scenario, or an attribute has the wrong type.
        ValueError: An attribute has almost the name of an attribute of Scenario that is not set.
    """
    if not isinstance(scenario, Scenario):
        raise TypeError(f"the scenario is {scenario!r}. Give a subclass of Scenario.")
    kind = type(scenario)
    above = kind.__mro__[: kind.__mro__.index(Scenario)]
    declared = {name for each in (*above, scenario) for name in vars(each) if not name.startswith("_")}
    known = {name for name in vars(Scenario) if not name.startswith("_")}
    for name in sorted(declared - known):
        if near := difflib.get_close_matches(name, known - declared, n=1, cutoff=SIMILAR):
            raise ValueError(
                f"{kind.__name__} has the attribute {name!r}, which Scenario does not have. Did you mean "
                f"{near[0]!r}? Otherwise choose another name."
            )
    for name, item in _LISTS.items():
        values = getattr(scenario, name)
        if not isinstance(values, list | tuple) or not all(isinstance(each, item) for each in values):
            raise TypeError(
                f"{kind.__name__}.{name} is {values!r}. Give a list of "
                f"{'strings' if item is str else 'stand-ins, such as Deployments()'}."
            )


def steps_of(scenario: Scenario, steps: object) -> Iterator[str | float]:
    """Yields the steps of a scenario.

    Args:
        scenario: The scenario.
        steps: What its `play` returned.

    Raises:
        TypeError: `play` is not a generator function, or yields something else than a name or a number.
    """
    where = f"{type(scenario).__name__}.play"
    if not isinstance(steps, Iterator):
        raise TypeError(
            f"{where} returned {steps!r}, but must be a generator function. After what the user does, write "
            'the name of a step: yield "created"'
        )
    for step in steps:
        if isinstance(step, bool) or not isinstance(step, str | int | float):
            raise TypeError(
                f"{where} yields {step!r}. Yield the name of a step, to continue when everything has "
                "settled, or a number of seconds."
            )
        yield step
