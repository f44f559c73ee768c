"""Groups, plans and handlers: when they run, in which order, and what they report."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest

from pilothouse.controller.events import EVENT
from pilothouse.kube import Conflict, ObjectKey, ObjectMeta
from pilothouse.playbook import Group, Plan, Play, Playbook, Recap, Task, TaskFailed, task
from pilothouse.playbook.awaited import PlaybookError
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import TicketPlay, operator, ready
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")


class Log(list[str]):
    """The log of the tasks, in order."""

    def task(
        self, name: str, *, changes: bool = False, notify: tuple[Task[TicketPlay], ...] = ()
    ) -> Task[TicketPlay]:
        """A task that takes a second."""

        async def act(play: TicketPlay) -> None:
            self.append(f"{name} begins")
            await asyncio.sleep(1)
            if changes:
                play.changed(f"{name} is done")
            self.append(f"{name} ends")

        made: Task[TicketPlay] = task(name, notify=notify)(act)
        return made

    def failing(self, name: str, failure: Exception) -> Task[TicketPlay]:
        async def fail(play: TicketPlay) -> None:
            self.append(f"{name} fails")
            raise failure

        made: Task[TicketPlay] = task(name)(fail)
        return made


@pytest.fixture
def log() -> Log:
    return Log()


def play(*, check: bool = False) -> TicketPlay:
    return Play(Ticket(ObjectMeta(name="t", namespace="default", generation=1)), check=check)


async def run(*steps: Task[TicketPlay] | Group[TicketPlay], on: TicketPlay | None = None) -> Recap:
    return await Playbook[TicketPlay](Play, tasks=steps).run(on or play())


async def test_a_serial_group_runs_in_order(log: Log) -> None:
    await run(Group("both", [log.task("a"), log.task("b")]))
    assert log == ["a begins", "a ends", "b begins", "b ends"]


async def test_a_parallel_group_runs_at_the_same_time_and_each_reports_for_itself(log: Log) -> None:
    recap = await run(
        Group("both", [log.task("a", changes=True), log.task("b")], parallel=True), log.task("c")
    )
    assert log == ["a begins", "b begins", "a ends", "b ends", "c begins", "c ends"]
    assert recap.seconds == 2
    assert [(each.task, each.state.value, each.message, each.seconds) for each in recap.results] == [
        ("a", "changed", "a is done", 1),
        ("b", "ok", "", 1),
        ("c", "ok", "", 1),
    ]


async def test_parallel_tasks_in_threads_report_for_themselves() -> None:
    def blocking(name: str, seconds: float) -> Task[TicketPlay]:
        def act(play: TicketPlay) -> None:
            time.sleep(seconds)
            play.changed(name)

        made: Task[TicketPlay] = task(name)(act)
        return made

    recap = await run(Group("both", [blocking("slow", 0.02), blocking("fast", 0)], parallel=True))
    assert [(each.task, each.message) for each in recap.results] == [("slow", "slow"), ("fast", "fast")]


async def test_chains_run_at_the_same_time(log: Log) -> None:
    chains = [Group("one", [log.task("a"), log.task("b")]), Group("other", [log.task("c"), log.task("d")])]
    recap = await run(Group("chains", chains, parallel=True))
    assert log[:2] == ["a begins", "c begins"]
    assert recap.seconds == 2


async def test_the_others_of_a_parallel_group_end_before_the_first_failure_ends_the_play(log: Log) -> None:
    members = [
        log.task("a"),
        log.failing("b", TaskFailed("Second", "The second one.")),
        log.failing("c", TaskFailed("Third", "The third one.")),
    ]
    recap = await run(Group("all", members, parallel=True), log.task("never"))
    assert log == ["a begins", "b fails", "c fails", "a ends"]
    assert recap.failure is not None
    assert recap.failure.reason == "Second"
    assert str(recap).startswith("ok=1 changed=0 skipped=0 failed=2 in ")


async def test_a_failure_takes_precedence_over_a_wait(log: Log) -> None:
    @task("waits")
    async def waits(play: TicketPlay) -> None:
        play.wait_for("it is so", condition=False)

    recap = await run(Group("all", [waits, log.failing("b", TaskFailed("Bad", "Bad."))], parallel=True))
    assert recap.failure is not None
    assert recap.waiting is None
    assert recap.step == "b"


async def test_a_conflict_in_a_parallel_group_is_raised_when_all_members_have_ended(log: Log) -> None:
    conflict = Conflict(409, "Conflict", "modified")
    with pytest.raises(Conflict):
        await run(Group("all", [log.failing("a", conflict), log.task("b")], parallel=True))
    assert log[-1] == "b ends"


async def test_cancelling_a_reconcile_cancels_all_members_of_a_parallel_group(log: Log) -> None:
    running = asyncio.create_task(run(Group("all", [log.task("a"), log.task("b")], parallel=True)))
    await asyncio.sleep(0.5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await asyncio.sleep(10)
    assert log == ["a begins", "b begins"]


async def test_a_plan_runs_when_its_trigger_is_true(log: Log) -> None:
    upgrade = Plan("upgrade", [log.task("a")], when=lambda play: play.object.metadata.generation == 2)
    recap = await run(upgrade)
    assert (log, recap.results) == ([], [])
    newer: TicketPlay = Play(Ticket(ObjectMeta(name="t", namespace="default", generation=2)))
    recap = await run(upgrade, on=newer)
    assert log == ["a begins", "a ends"]
    assert (recap.plan, newer.plan) == ("", "")


async def test_a_plan_in_progress_and_its_step_are_reported(
    api: ModelApi, ticket: ObjectKey, caplog: pytest.LogCaptureFixture
) -> None:
    done: set[str] = set()
    phases: list[str] = []

    class PlannedPlay(TicketPlay):
        def waits(self, waiting: Exception) -> None:
            phases.append(f"{self.plan}: {waiting}")

    def step(name: str) -> Task[PlannedPlay]:
        async def act(play: PlannedPlay) -> None:
            play.wait_for(f"{name} is done", name in done, fallback=5)

        made: Task[PlannedPlay] = task(name)(act)
        return made

    plan = Plan("upgrade", [step("backup"), step("replace")], when=lambda play: len(done) < 3)
    caplog.set_level(logging.DEBUG)
    async with operator(api, Playbook(PlannedPlay, tasks=[plan])):
        await asyncio.sleep(20)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until backup is done.")
        done.add("backup")
        await asyncio.sleep(20)
        done.update(("replace", "all"))
        await asyncio.sleep(20)
        assert ready(api, ticket)[0] == "True"
    assert phases[0] == "upgrade: Waiting until backup is done."
    assert phases[-1] == "upgrade: Waiting until replace is done."
    assert "s, plan upgrade: backup: Waiting until backup is done." in caplog.text
    assert [(event["reason"], event["note"], event["action"]) for event in api.all(EVENT)] == [
        (
            "PlanInProgress",
            "The plan 'upgrade' has reached the step 'backup'. Waiting until backup is done.",
            "upgrade",
        ),
        (
            "PlanInProgress",
            "The plan 'upgrade' has reached the step 'replace'. Waiting until replace is done.",
            "upgrade",
        ),
        ("PlanCompleted", "The plan 'upgrade' has finished.", "upgrade"),
    ]


async def test_a_defect_of_a_trigger_is_a_failure_of_its_plan(
    api: ModelApi, ticket: ObjectKey, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    state: dict[str, bool] = {}

    @task("waits")
    async def waits(play: TicketPlay) -> None:
        play.wait_for("it is upgraded", condition=False, fallback=5)

    def outdated(play: TicketPlay) -> bool:
        return state["outdated"]

    upgrade = Plan("upgrade", [waits], when=outdated)
    async with operator(api, Playbook(Play, tasks=[upgrade, log.task("never")])):
        await asyncio.sleep(30)
        message = "The plan 'upgrade' failed: unexpected KeyError. See the operator's log for details."
        assert ready(api, ticket) == ("False", "UnexpectedError", message)
        assert log == []
        [event] = api.all(EVENT)
        assert (event["reason"], event["action"]) == ("UnexpectedError", "upgrade")
        assert event["series"]["count"] < 20, "with back-off"
        lines = [
            each for each in caplog.records if "Unexpected error in the plan 'upgrade'" in each.getMessage()
        ]
        assert [bool(line.exc_info) for line in lines] == [True] + [False] * (len(lines) - 1)
        state["outdated"] = True
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "Waiting"
        state.clear()
        await asyncio.sleep(60)
        assert ready(api, ticket)[1] == "UnexpectedError"
        assert "PlanCompleted" not in [event["reason"] for event in api.all(EVENT)]
        state["outdated"] = False
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"
        assert "PlanCompleted" not in [event["reason"] for event in api.all(EVENT)], "it never began"


async def test_a_handler_runs_once_at_the_end_when_a_task_that_notifies_it_changed_something(
    log: Log,
) -> None:
    reload, unused = log.task("reload"), log.task("unused")
    first = log.task("first", changes=True, notify=(reload,))
    second = log.task("second", changes=True, notify=(reload,))
    same = log.task("same", notify=(unused,))
    recap = await run(first, Group("group", [second, same], parallel=True))
    assert [each.task for each in recap.results] == ["first", "second", "same", "reload"]


async def test_handlers_run_in_the_order_in_which_they_are_first_named(log: Log) -> None:
    last, early = log.task("last"), log.task("early", changes=True)
    noisy = log.task("noisy", changes=True, notify=(last,))
    tasks = [log.task("a", notify=(early,)), log.task("b", changes=True, notify=(noisy,))]
    late = log.task("c", changes=True, notify=(early,))
    recap = await run(*tasks, late)
    assert [each.task for each in recap.results] == ["a", "b", "c", "early", "noisy", "last"]


@pytest.mark.parametrize("how", ["fails", "waits"])
async def test_a_notified_handler_runs_although_a_later_task_ends_the_play(log: Log, how: str) -> None:
    @task("ends the play")
    async def ends(play: TicketPlay) -> None:
        play.wait_for("it is reloaded", condition=how == "fails")
        raise TaskFailed("Bad", "Bad.")

    reload = log.task("reload")
    recap = await run(log.task("config", changes=True, notify=(reload,)), ends)
    assert "reload ends" in log
    assert (recap.failure is None, recap.waiting is None) == (how == "waits", how == "fails")


async def test_a_notification_is_kept_if_the_reconcile_does_not_reach_the_handler(
    api: ModelApi, ticket: ObjectKey
) -> None:
    troubles = iter(["conflict", "failure"])
    config, running = 1, 0

    @task("what runs is reloaded")
    async def reload(play: TicketPlay) -> None:
        nonlocal running
        if next(troubles, None):
            raise TaskFailed("Down", "It is down.")
        running = config

    @task("the config is written", notify=[reload])
    async def write(play: TicketPlay) -> None:
        nonlocal config
        if config != play.object.spec.seats:
            config = play.object.spec.seats
            play.changed("written")

    @task("something is in the way")
    async def conflict(play: TicketPlay) -> None:
        if next(troubles, None) == "conflict":
            raise Conflict(409, "Conflict", "modified")

    async with operator(api, Playbook(Play, tasks=[write, conflict]), resync=60):
        await asyncio.sleep(30)
        assert running == 2
        assert ready(api, ticket)[0] == "True"


async def test_a_process_that_is_killed_before_a_handler_forgets_it(api: ModelApi, ticket: ObjectKey) -> None:
    """As documented: the next process finds nothing to change, so nothing notifies the handler again."""
    written = 0
    reloads: list[str] = []

    @task("what runs is reloaded")
    async def reload(play: TicketPlay) -> None:
        reloads.append("begun")
        await asyncio.sleep(3600)

    @task("the config is written", notify=[reload])
    async def write(play: TicketPlay) -> None:
        nonlocal written
        if written != play.object.spec.seats:
            written = play.object.spec.seats
            play.changed("written")

    book: Playbook[TicketPlay] = Playbook(Play, tasks=[write])
    async with operator(api, book):
        assert reloads == ["begun"]
    async with operator(api, book):
        assert ready(api, ticket)[0] == "True"
        assert reloads == ["begun"]
        api.put(TICKET, ticket.name, spec={"seats": 3})
        await asyncio.sleep(1)
        assert reloads == ["begun", "begun"]


async def test_a_handler_that_fails_fails_the_play(log: Log) -> None:
    reload = log.failing("reload", TaskFailed("Down", "It is down."))
    recap = await run(log.task("config", changes=True, notify=(reload,)))
    assert recap.failure is not None
    assert (recap.failure.reason, recap.step) == ("Down", "reload")


async def fails() -> None:
    raise TaskFailed("Full", "The flight is full.")


def rescuing(effects: list[str], effect: Callable[[], object]) -> Task[TicketPlay]:
    """A task with Ansible's block, rescue and always, in plain Python."""

    async def note(what: str) -> None:
        effects.append(what)

    @task("booked, one way or the other")
    async def book(play: TicketPlay) -> None:
        try:
            await play.call("book", effect)  # type: ignore[arg-type]
        except TaskFailed:
            await play.call("book another", lambda: note("rescue"))
        finally:
            await play.call("log out", lambda: note("always"))

    return book


async def test_rescue_and_always_are_plain_python() -> None:
    effects: list[str] = []
    recap = await run(rescuing(effects, fails))
    assert effects == ["rescue", "always"]
    assert recap.failure is None
    assert recap.results[0].message == "book another; log out"


async def test_always_is_done_when_the_play_is_stopped() -> None:
    effects: list[str] = []
    running = asyncio.create_task(run(rescuing(effects, lambda: asyncio.sleep(3600))))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert effects == ["always"]


async def test_nothing_of_it_is_done_in_check_mode() -> None:
    effects: list[str] = []
    recap = await run(rescuing(effects, fails), on=play(check=True))
    assert effects == []
    assert recap.results[0].message == "book; log out"


async def test_a_rescue_does_not_catch_a_wait(log: Log) -> None:
    @task("waits")
    async def waits(play: TicketPlay) -> None:
        try:
            play.wait_for("it is so", condition=False)
        except TaskFailed:
            log.append("caught")

    recap = await run(waits)
    assert recap.waiting is not None
    assert log == []


async def test_what_changed_and_then_waits_is_waiting_and_still_notifies(log: Log) -> None:
    reload = log.task("reload")

    @task("rolled out", notify=[reload])
    async def roll_out(play: TicketPlay) -> None:
        play.changed("written")
        play.wait_for("it is so", condition=False)

    recap = await run(roll_out)
    assert (recap.results[0].state.value, recap.results[0].diff) == ("waiting", ("written",))
    assert recap.eventful
    assert "reload ends" in log


async def test_other_conditions_than_ready_are_easy(api: ModelApi, ticket: ObjectKey) -> None:
    @task("seats are counted")
    async def count(play: TicketPlay) -> None:
        play.condition("Crowded", play.object.spec.seats > 5, "Counted", f"{play.object.spec.seats} seats.")
        play.condition("Paid", None, "NotAsked")
        if play.object.spec.seats > 7:
            raise TaskFailed("Full", "The flight is full.")

    def conditions() -> dict[str, str]:
        return {each["type"]: each["status"] for each in api.read(TICKET, ticket)["status"]["conditions"]}

    async with operator(api, Playbook(Play, tasks=[count])):
        assert conditions() == {"Ready": "True", "Crowded": "False", "Paid": "Unknown"}
        api.put(TICKET, ticket.name, spec={"seats": 8})
        await asyncio.sleep(1)
        assert conditions() == {"Ready": "False", "Crowded": "True", "Paid": "Unknown"}


async def test_ready_is_the_engines() -> None:
    with pytest.raises(PlaybookError, match=r"set play\.ready, play\.ready_reason and play\.ready_message"):
        play().condition("Ready", True, "Mine")


async def await_what_is_cancelled() -> None:
    other = asyncio.ensure_future(asyncio.sleep(3600))
    await asyncio.sleep(0)
    other.cancel()
    await other


async def cancel_itself() -> None:
    member = asyncio.current_task()
    assert member is not None
    member.cancel()
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    ("trouble", "parallel"),
    [(await_what_is_cancelled, False), (await_what_is_cancelled, True), (cancel_itself, True)],
)
async def test_a_cancellation_that_is_not_the_plays_own_is_a_failure_of_its_task(
    log: Log, caplog: pytest.LogCaptureFixture, trouble: Callable[[], Awaitable[None]], parallel: bool
) -> None:
    @task("meddles")
    async def meddles(play: TicketPlay) -> None:
        await trouble()

    members = [meddles, log.task("other")]
    recap = await run(Group("all", members, parallel=parallel), log.task("never"))
    assert [each for each in log if each.endswith("ends")] == (["other ends"] if parallel else [])
    assert recap.failure is not None
    assert (recap.failure.reason, recap.step) == ("UnexpectedError", "meddles")
    assert "unexpected CancelledError" in recap.failure.message
    [line] = [record for record in caplog.records if "Unexpected error in the" in record.getMessage()]
    assert line.exc_info
