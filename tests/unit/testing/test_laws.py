"""`explore` refuses an operator that is wrong without any fault, and a scenario with misspelled names."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, Stores, Watch, task
from pilothouse.testing import Errors, Fault, Injection, ModelApi, Outside, Process, Scenario, explore, play
from pilothouse.testing import objects_state as state_of
from tests.unit.playbook.configured import CONFIG_MAP, SECRET, Secret, TicketPlay
from tests.unit.tickets import TICKET

KEY = ObjectKey("default", "t")
NO_ERRORS: Errors = {}


class Registry:
    """An outside system with entries by reference."""

    def __init__(self) -> None:
        self.entries: dict[str, int] = {}
        self.effects: list[str] = []

    async def find(self, reference: str) -> int | None:
        return self.entries.get(reference)

    async def add(self, reference: str, seats: int) -> None:
        """Adds an entry, even if it exists: there are no idempotent references."""
        self.entries[reference] = seats
        self.effects.append("add")

    async def remove(self, reference: str) -> None:
        if self.entries.pop(reference, None) is not None:
            self.effects.append("remove")


class Life(Scenario):
    """A ticket is created and deleted. Subclasses add a defect."""

    reads: Any = ("find",)
    errors: Any = NO_ERRORS
    finalizer = "tests.dev/registry"

    def __init__(self) -> None:
        self.registry = Registry()

    def watches(self, process: Process) -> Sequence[Watch]:
        registry: Any = Outside(self.registry, process, reads=self.reads, errors=self.errors)

        @task("the entry is there")
        async def enter(play: TicketPlay) -> None:
            await self.enter(play, registry)

        @task("the entry is removed")
        async def remove(play: TicketPlay) -> None:
            await play.call("remove", lambda: registry.remove(play.object.metadata.uid))

        cleanup = [remove] if self.finalizer else []
        return [
            Watch(
                TICKET,
                Playbook(Play, tasks=[enter], cleanup=cleanup, finalizer=self.finalizer),
                owns=[CONFIG_MAP],
                watches=self.secondaries(),
            )
        ]

    def secondaries(self) -> Sequence[Secondary]:
        return ()

    async def enter(self, play: TicketPlay, registry: Any) -> None:
        if await registry.find(play.object.metadata.uid) is None:
            await play.call("add", lambda: registry.add(play.object.metadata.uid, play.object.spec.seats))

    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, KEY.name, spec={"seats": 2})
        yield "made"
        user.remove(TICKET, KEY)
        yield "deleted"

    def state(self, api: ModelApi) -> object:
        return state_of(api), self.registry.entries

    def effects(self) -> Sequence[str]:
        return self.registry.effects


def refused(scenario: type[Scenario]) -> str:
    with pytest.raises(AssertionError) as failed:
        explore(scenario)
    message = str(failed.value)
    assert message.startswith("The scenario fails without any fault, so no fault was tried.")
    assert len(message.splitlines()) < 120
    return message


def test_a_sound_operator_passes() -> None:
    explore(Life).require_converged()


class Raises(Life):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        raise KeyError("seats")


def test_a_task_that_raises_is_refused_with_the_line_that_raises() -> None:
    message = refused(Raises)
    assert "an unexpected KeyError was raised, task 'the entry is there' of Ticket default/t" in message
    assert 'raise KeyError("seats")' in message


class RaisesOnce(Life):
    """Only the first reconcile has a defect."""

    async def enter(self, play: TicketPlay, registry: Any) -> None:
        if not self.registry.effects:
            await super().enter(play, registry)
            raise LookupError("the first time")


def test_a_defect_that_a_retry_hides_is_refused() -> None:
    assert "unexpected LookupError" in refused(RaisesOnce)


def fail_to_map(secret: Secret, stores: Stores) -> list[ObjectKey]:
    raise LookupError("no such owner")


class RaisesElsewhere(Life):
    def secondaries(self) -> Sequence[Secondary]:
        return [Secondary(SECRET, fail_to_map)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(SECRET, "s")
        yield from super().play(user)


def test_a_mapper_that_raises_is_refused() -> None:
    assert "unexpected LookupError was raised, outside of any task" in refused(RaisesElsewhere)


class RaisesOnPurpose(RaisesOnce):
    expected_errors = (LookupError,)


def test_a_declared_error_is_not_a_defect() -> None:
    assert play(RaisesOnPurpose()).failure == ""


class Polls(Life):
    every = 1.0

    async def enter(self, play: TicketPlay, registry: Any) -> None:
        await super().enter(play, registry)
        play.requeue_after(self.every)


class PollsOnPurpose(Polls):
    polls_every = 1.0


def test_a_hot_requeue_is_refused_unless_it_is_declared() -> None:
    message = refused(Polls)
    assert "Step 'made' never settles" in message
    assert "reconciled Ticket default/t 40 times in 40 s" in message
    assert play(PollsOnPurpose()).failure == ""


class Spins(Polls):
    every = 1e-6


class Loops(Life):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        while True:
            await registry.find("")


@pytest.mark.parametrize("scenario", [Spins, Loops])
def test_an_endless_loop_does_not_hang_the_test(scenario: type[Scenario]) -> None:
    assert "is in an endless loop" in refused(scenario)


class Renews(Life):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        await play.call("renew", lambda: registry.add(play.object.metadata.uid, 2))
        play.requeue_after(30)

    def effects(self) -> Sequence[str]:
        return ()


class RenewsOnPurpose(Renews):
    recurring: Sequence[str] = ("registry.add",)


class Misdeclared(RenewsOnPurpose):
    recurring: Sequence[str] = (
        "registry.add",
        "registry.ad",
    )


def test_endless_changes_are_refused_unless_they_are_declared() -> None:
    assert "changed something by registry.add once in 40 s" in refused(Renews)
    assert play(RenewsOnPurpose()).failure == ""
    assert play(Misdeclared()).failure == (
        "recurring contains 'registry.ad', which matched nothing. Did you mean 'registry.add'?"
    )


class LeaksOutside(Life):
    finalizer = ""


def test_what_is_left_outside_is_refused() -> None:
    message = refused(LeaksOutside)
    assert "Step 'deleted': all watched objects are deleted, but something is left outside." in message


class ClosedEntries(LeaksOutside):
    def held_outside(self) -> object:
        return ()


def test_what_stays_outside_on_purpose_is_declared() -> None:
    explore(ClosedEntries, faults={Fault.KILLED_BEFORE}).require_converged()


class ShowsNothing(LeaksOutside):
    def state(self, api: ModelApi) -> object:
        return state_of(api)


def test_a_scenario_that_hides_the_outside_is_refused() -> None:
    assert "state() does not show it" in refused(ShowsNothing)


class LeaksObjects(Life):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "left"}}, owned=False)


class Retains(LeaksObjects):
    retained: Sequence[str] = ("configmaps default/*",)


class RetainsNothing(Retains):
    retained: Sequence[str] = (
        "configmaps default/*",
        "configmap default/left",
    )


def test_an_object_without_owner_that_is_left_is_refused_unless_it_is_declared() -> None:
    assert "left: configmaps default/left, which has no owner" in refused(LeaksObjects)
    assert play(Retains()).failure == ""
    assert "Did you mean 'configmaps default/left'?" in play(RetainsNothing()).failure


class AddsAgain(Life):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        if not play.status.booking:
            await play.call("add", lambda: registry.add(play.object.metadata.uid, 2))
            play.status = type(play.status)(booking="B")


def test_a_report_shows_steps_tasks_the_call_with_the_fault_and_the_excess() -> None:
    usual = play(AddsAgain())
    assert usual.failure == ""
    [number] = [site.number for site in usual.sites if site.what == "registry.add"]
    report = str(play(AddsAgain(), [Injection(number, Fault.KILLED_AFTER)], usual.steps))
    assert "add: 2 times, but once without faults" in report
    [struck] = [line for line in report.splitlines() if line.startswith("-->")]
    assert "registry.add (task 'the entry is there' of Ticket default/t)" in struck
    assert "the process dies before it gets the reply" in struck
    for words in (
        "creates tickets.tests.dev default/t",
        "step 'made'",
        "effect: add",
        "task 'the entry is there': changed",
    ):
        assert words in report


def test_a_call_that_does_not_exist_is_reported() -> None:
    usual = play(Life())
    assert "not injected" in str(play(Life(), [Injection(99, Fault.KILLED_AFTER)], usual.steps))


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (
            {"reads": ["fnid"]},
            ValueError,
            "contains 'fnid', which is not a method of Registry. Did you mean 'find'",
        ),
        ({"reads": "find"}, TypeError, r"is the string 'find'. Give a list: \['find'\]"),
        ({"errors": {"REPLY_LSOT": ValueError}}, ValueError, "Did you mean 'REPLY_LOST'"),
        ({"errors": {Fault.LATE: ValueError}}, ValueError, "The client reports it as 'REPLY_LOST'"),
        ({"errors": {Fault.KILLED_AFTER: ValueError}}, ValueError, "No exception reports it"),
        ({"errors": {Fault.CONFLICT: ValueError()}}, TypeError, "Give a function without arguments"),
    ],
)
def test_a_misspelled_name_is_refused(wrong: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        explore(type("Wrong", (Life,), wrong))


def test_a_misspelled_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'REPLY_LOST'"):
        explore(Life, faults=["reply_lsot"])  # type: ignore[list-item]  # the mistake
