"""`explore` refuses an operator that is wrong without any fault, and a scenario with misspelled names."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pilothouse.api import Kind
from pilothouse.kube import ObjectKey
from pilothouse.playbook import Play, Playbook, Secondary, Stores, Watch, task
from pilothouse.telemetry import now
from pilothouse.testing import Errors, Fault, Injection, ModelApi, Outside, Process, Scenario, explore, play
from pilothouse.testing import objects_state as state_of
from tests.unit.playbook.configured import CONFIG_MAP, SECRET, Secret, TicketPlay
from tests.unit.tickets import TICKET, Ticket

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


class SetsTheStatusOfAnother(Life):
    """The status of the kind belongs to another controller."""

    def watches(self, process: Process) -> Sequence[Watch]:
        @task("the phase is shown")
        async def show(play: TicketPlay) -> None:
            play.status = type(play.status)(phase="Booked")

        return [Watch(TICKET, [show], writes_status=False)]


def test_a_status_that_is_set_and_not_written_is_refused() -> None:
    message = refused(SetsTheStatusOfAnother)
    assert "Step 'made': Ticket default/t ends with NoStatus: play.status cannot be set" in message
    assert "declare a Kind, or Watch(..., writes_status=True)." in message


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


# The controller never reconciles an object more often than ten times a second because of a request.
@pytest.mark.parametrize(
    ("scenario", "words"), [(Spins, "Step 'made' never settles"), (Loops, "is in an endless loop")]
)
def test_an_endless_loop_does_not_hang_the_test(scenario: type[Scenario], words: str) -> None:
    assert words in refused(scenario)


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


# The last step of the run without faults, and what a step checks while other objects exist.


class NeverDeleted(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, KEY.name, spec={"seats": 2})
        yield "made"


class LeaksUndeleted(NeverDeleted, LeaksOutside):
    pass


class DeletedAfterTheLastStep(LeaksUndeleted):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        yield from super().play(user)
        user.remove(TICKET, KEY)


class DeletedUnseen(DeletedAfterTheLastStep):
    delete_at_end = False


class SlowCleanup(Life):
    """The cleanup waits for longer than the scenario waits between two checks."""

    def watches(self, process: Process) -> Sequence[Watch]:
        @task("the entry is removed after ten minutes")
        async def remove(play: TicketPlay) -> None:
            play.wait_for("it is time", now() >= self.due, fallback=60)

        return [Watch(TICKET, Playbook(Play, tasks=[], cleanup=[remove], finalizer="tests.dev/registry"))]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, KEY.name, spec={"seats": 2})
        yield "made"
        self.due = now() + timedelta(minutes=10)


class NotDeletedAtEnd(LeaksUndeleted):
    delete_at_end = False


def reported(scenario: type[Scenario]) -> str:
    """The report of a scenario that passes, without the number of its runs."""
    matrix = explore(scenario, faults={Fault.KILLED_AFTER})
    matrix.require_converged()
    return str(matrix).partition("\n")[2]


def test_the_report_says_what_was_checked_after_all_objects_were_deleted() -> None:
    assert reported(Life) == "Leftovers: none after 'deleted', when all watched objects were deleted."
    assert reported(NeverDeleted) == (
        "Leftovers: none after 'all watched objects are deleted', when all watched objects were deleted."
    )


def test_objects_that_a_scenario_does_not_delete_are_deleted_at_its_end() -> None:
    message = refused(LeaksUndeleted)
    assert "Step 'all watched objects are deleted'" in message
    assert "something is left outside" in message
    assert "user       deletes tickets.tests.dev default/t" in message


def test_a_deletion_after_the_last_step_is_checked_too() -> None:
    assert "something is left outside" in refused(DeletedAfterTheLastStep)
    assert list(play(DeletedUnseen()).leftovers) == [
        "No step ends after a deletion: effects that outlive an object were not checked."
    ]


def test_the_last_step_waits_for_a_slow_cleanup() -> None:
    run = play(SlowCleanup())
    assert run.failure == ""
    assert list(run.leftovers) == [
        "Leftovers: none after 'all watched objects are deleted', when all watched objects were deleted."
    ]


def test_the_last_step_is_not_compared_between_runs() -> None:
    usual = play(NeverDeleted())
    assert [step.name for step in usual.steps] == ["made"]
    assert play(NeverDeleted(), (), usual.steps).failure == ""


def test_the_report_says_that_a_scenario_deletes_nothing() -> None:
    assert reported(NotDeletedAtEnd) == (
        "The scenario deletes nothing: effects that outlive an object were not checked.\n"
        "Not checked: what the objects leave behind that still exist at the end: Ticket default/t."
    )


class HeldByOthers(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, KEY.name, spec={"seats": 2}, metadata={"finalizers": ["others/hold"]})
        yield "made"


def test_the_report_names_the_finalizers_of_others_that_prevent_the_check() -> None:
    assert "Ticket default/t, which is deleted and has the finalizers others/hold." in reported(HeldByOthers)


class NeverCleanedUp(NeverDeleted):
    def watches(self, process: Process) -> Sequence[Watch]:
        @task("nothing is cleaned up")
        async def wait(play: TicketPlay) -> None:
            play.wait_for("the entry is gone", False)

        return [Watch(TICKET, Playbook(Play, tasks=[], cleanup=[wait], finalizer="tests.dev/registry"))]


class CleanedUpByOthers(NeverCleanedUp):
    delete_at_end = False


def test_a_deletion_that_never_ends_is_refused_unless_it_is_declared() -> None:
    message = refused(NeverCleanedUp)
    assert (
        "Ticket default/t is deleted, but the operator never removes its finalizer tests.dev/reg" in message
    )
    assert play(CleanedUpByOthers()).failure == ""


class TwoTickets(LeaksOutside):
    """Ticket one is deleted, ticket two stays."""

    delete_at_end = False

    def entry(self, play: TicketPlay) -> str:
        return play.object.metadata.uid

    async def enter(self, play: TicketPlay, registry: Any) -> None:
        if await registry.find(self.entry(play)) is None:
            await play.call("add", lambda: registry.add(self.entry(play), 2))

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "one", spec={"seats": 2})
        user.put(TICKET, "two", spec={"seats": 2})
        yield "made"
        user.remove(TICKET, key)
        yield "one is deleted"


class ByName(TwoTickets):
    def entry(self, play: TicketPlay) -> str:
        return f"{play.object.metadata.namespace}/{play.object.metadata.name}"


@pytest.mark.parametrize("scenario", [TwoTickets, ByName])
def test_what_is_left_outside_of_one_object_is_refused_while_another_exists(
    scenario: type[Scenario],
) -> None:
    message = refused(scenario)
    assert (
        "Step 'one is deleted': Ticket default/one is deleted, but what the operator made for it" in message
    )
    assert "is left outside" in message
    assert "default/two" not in message.partition("Timeline")[0]


class MadeAgain(ByName):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = user.put(TICKET, "one", spec={"seats": 2})
        yield "made"
        user.remove(TICKET, key)
        user.put(TICKET, "one", spec={"seats": 2})
        yield "made again"


def test_what_another_object_of_the_same_name_may_use_is_not_left() -> None:
    assert play(MadeAgain()).failure == ""


class Shared(TwoTickets):
    def entry(self, play: TicketPlay) -> str:
        return "shared by all"


def test_what_several_objects_may_share_is_not_refused_and_is_reported() -> None:
    assert reported(Shared) == (
        "Leftovers: nothing carries the UID or the name of Ticket default/one, which was deleted. "
        "Not checked: what carries neither, such as the effects of registry.add.\n"
        "Not checked: what the objects leave behind that still exist at the end: Ticket default/two."
    )


class LeavesObjects(TwoTickets):
    async def enter(self, play: TicketPlay, registry: Any) -> None:
        name = f"{play.object.metadata.name}-data"
        await play.apply(CONFIG_MAP, {"metadata": {"name": name}}, owned=False)


class RetainsObjects(LeavesObjects):
    retained: Sequence[str] = ("configmaps default/*-data",)


def test_an_object_that_is_left_of_one_object_is_refused_unless_it_is_declared() -> None:
    message = refused(LeavesObjects)
    assert "Ticket default/one is deleted, but objects that carry its UID are left" in message
    assert "configmaps default/one-data" in message
    assert "two-data" not in message.partition("Timeline")[0]
    assert play(RetainsObjects()).failure == ""


class MakesTickets(NeverDeleted):
    """The operator makes an object of the kind that it watches, and forgets it."""

    def secondaries(self) -> Sequence[Secondary]:
        return [Secondary(TICKET)]

    async def enter(self, play: TicketPlay, registry: Any) -> None:
        if play.object.metadata.name == KEY.name:
            await play.apply(TICKET, {"metadata": {"name": "child"}, "spec": {"seats": 1}}, owned=False)


def test_a_watched_object_that_the_operator_made_and_left_is_refused() -> None:
    assert "left: tickets.tests.dev default/child, which has no owner" in refused(MakesTickets)


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


class Misspelled(Life):
    retaind = ("persistentvolumeclaims *",)


class MisspelledLater(Life):
    def __init__(self) -> None:
        super().__init__()
        self.poll_every = 1.0


class MisspelledMethod(Life):
    def held_outsid(self) -> object:
        return ()


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (Misspelled, "Misspelled has the attribute 'retaind', .* Did you mean 'retained'"),
        (MisspelledLater, "has the attribute 'poll_every', .* Did you mean 'polls_every'"),
        (MisspelledMethod, "has the attribute 'held_outsid', .* Did you mean 'held_outside'"),
    ],
)
def test_a_misspelled_attribute_of_a_scenario_is_refused(scenario: type[Scenario], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explore(scenario)


class OnePattern(Life):
    retained = "persistentvolumeclaims *"


class PatternOfAnotherType(Life):
    recurring: Any = (5,)


class NoYield(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:  # type: ignore[return]
        user.put(TICKET, KEY.name, spec={"seats": 2})


class YieldsNothing(Life):
    def play(self, user: ModelApi) -> Iterator[Any]:
        user.put(TICKET, KEY.name, spec={"seats": 2})
        yield


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (OnePattern, "OnePattern.retained is 'persistentvolumeclaims .*'. Give a list of strings"),
        (PatternOfAnotherType, "PatternOfAnotherType.recurring is .5,.. Give a list of strings"),
        (NoYield, "NoYield.play returned None, but must be a generator function"),
        (YieldsNothing, "YieldsNothing.play yields None. Yield the name of a step"),
        (dict, "the scenario is {}. Give a subclass of Scenario"),
    ],
)
def test_a_wrong_type_in_a_scenario_is_refused(scenario: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        explore(scenario)


class NoObject(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        yield from ()


class SelectsNothing(Life):
    def watches(self, process: Process) -> Sequence[Watch]:
        return [replace(each, selector="app=web") for each in super().watches(process)]


@pytest.mark.parametrize("scenario", [NoObject, SelectsNothing])
def test_a_scenario_in_which_no_object_is_reconciled_is_refused(scenario: type[Scenario]) -> None:
    with pytest.raises(AssertionError, match="reconciles no object in this scenario, so no fault was tried"):
        explore(scenario)


class CannotBeDecoded(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, "sound", spec={"seats": 2})
        user.put(TICKET, KEY.name, spec={"seats": "two"})
        yield "made"


def test_an_object_that_cannot_be_decoded_is_refused() -> None:
    assert "tickets.tests.dev t ends with Undecodable" in refused(CannotBeDecoded)


class OneWatch(Life):
    def watches(self, process: Process) -> Any:
        return super().watches(process)[0]


class PutsAKind(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(Kind(Ticket, "a.example.com", "v1"), "a")  # type: ignore[arg-type]
        yield "made"


class PutsAList(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put([5], "a")  # type: ignore[arg-type]
        yield "made"


class PutsASpec(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.put(TICKET, "a", {"seats": 2})  # type: ignore[arg-type]
        yield "made"


class RemovesAName(Life):
    def play(self, user: ModelApi) -> Iterator[str | float]:
        user.remove(TICKET, "a")  # type: ignore[arg-type]
        yield "made"


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (OneWatch, r"OneWatch.watches returned Watch. Return a list: \[Watch\(...\)\]"),
        (PutsAKind, "ModelApi.put: the resource is the Kind Ticket, not a Resource. Write KIND.resource"),
        (PutsAList, "ModelApi.put: the resource is a list, not a Resource."),
        (PutsASpec, "ModelApi.put: {'seats': 2} does not name an object. Give fields by name: spec="),
        (RemovesAName, "ModelApi.remove: 'a' does not name an object. Give its ObjectKey"),
    ],
)
def test_a_wrong_argument_of_the_user_is_refused(scenario: type[Scenario], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        explore(scenario)


def test_a_name_of_a_fault_is_not_a_fault() -> None:
    with pytest.raises(ValueError, match=r"contains 'LATE', which is not a Fault\. Write Fault\.LATE"):
        explore(Life, faults=["LATE"])  # type: ignore[list-item]


def test_a_matrix_without_runs_has_not_converged() -> None:
    matrix = explore(Life, faults=[])
    with pytest.raises(AssertionError, match="No fault was tried: none of the given faults is possible at"):
        matrix.require_converged()
