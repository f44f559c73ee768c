"""Plans with `on_change`: due from a change of the spec until they have finished with the last values."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse.controller.events import EVENT
from pilothouse.kube import Forbidden, ObjectKey, ObjectMeta
from pilothouse.playbook import Group, Plan, Play, Playbook, Recap, Task, TaskFailed, task
from pilothouse.playbook.groups import Step
from pilothouse.playbook.plan_annotations import IN_PROGRESS, PLAN_PREFIX
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, TicketPlay, operator, ready, requests
from tests.unit.tickets import TICKET, Ticket

pytestmark = pytest.mark.usefixtures("virtual_time")

KEY = ObjectKey("default", "my-ticket")
ANNOTATION = f"{PLAN_PREFIX}tickets.upgrade"


def seats(play: TicketPlay) -> int:
    """The number of seats."""
    return play.object.spec.seats


@task("the data has the new form")
async def store(play: TicketPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"seats": str(seats(play))}})


@task("readers have followed")
async def follow(play: TicketPlay) -> None:
    """Seven seats are too many: readers never follow."""
    play.wait_for("readers have followed", seats(play) != 7)


def upgrade(*tasks: Step[Any], **options: Any) -> Plan[TicketPlay]:
    return Plan("upgrade", tasks or (store, follow), on_change=seats, **options)


def playbook(*steps: Step[Any]) -> Playbook[TicketPlay]:
    return Playbook(Play, tasks=steps)


def counting(
    log: list[str], name: str, failure: Callable[[], BaseException | None] = lambda: None
) -> Task[Any]:
    """A task that logs its run, and fails if a failure is set."""

    @task(name)
    async def run(play: TicketPlay) -> None:
        log.append(f"{name} {seats(play)}")
        if error := failure():
            raise error

    return run


def stored(api: ModelApi) -> str:
    data: str = api.read(CONFIG_MAP, KEY)["data"]["seats"]
    return data


def annotations(api: ModelApi) -> dict[str, str]:
    found: dict[str, str] = api.read(TICKET, KEY)["metadata"].get("annotations", {})
    return found


def in_progress(api: ModelApi) -> bool:
    return annotations(api).get(ANNOTATION, "").startswith(f"{IN_PROGRESS}-")


def ask(api: ModelApi, number: int) -> None:
    api.put(TICKET, KEY.name, spec={"seats": number})


async def test_a_spec_that_is_changed_back_half_way_runs_the_plan_again(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async with operator(api, playbook(upgrade())):
        ask(api, 2)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")
        ask(api, 7)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0]) == ("7", "False")
        assert in_progress(api)
        ask(api, 2)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")
        assert not in_progress(api)


async def test_a_new_process_knows_that_a_plan_is_in_progress(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(upgrade())):
        ask(api, 2)
        await asyncio.sleep(1)
        ask(api, 7)
        await asyncio.sleep(1)
    ask(api, 2)
    async with operator(api, playbook(upgrade())):
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")


async def test_a_finished_plan_is_not_due_and_costs_nothing(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    async with operator(api, playbook(upgrade(counting(log, "a"))), resync=5):
        first = len(log)
        assert first == 1
        before = len(requests(api, TICKET))
        await asyncio.sleep(60)
        api.put(TICKET, KEY.name, metadata={"annotations": {**annotations(api), "note": "of no concern"}})
        await asyncio.sleep(60)
        assert len(log) == first
        writes = [call for call in requests(api, TICKET)[before:] if call.verb != "watch"]
        assert writes == []


async def test_the_start_of_a_plan_is_stored_before_its_first_effect(
    api: ModelApi, ticket: ObjectKey
) -> None:
    seen: list[bool] = []

    @task("looks")
    async def look(play: TicketPlay) -> None:
        seen.append(in_progress(api))
        assert play.object.metadata.annotations == annotations(api)

    async with operator(api, playbook(upgrade(look))):
        ask(api, 3)
        await asyncio.sleep(1)
    assert seen == [True, True]


async def test_after_a_killed_process_the_next_one_runs_the_plan(api: ModelApi, ticket: ObjectKey) -> None:
    @task("never ends")
    async def endless(play: TicketPlay) -> None:
        await asyncio.sleep(3600)

    async with operator(api, playbook(upgrade())):
        ask(api, 2)
        await asyncio.sleep(1)
    async with operator(api, playbook(upgrade(store, endless))):
        ask(api, 3)
        await asyncio.sleep(1)
        assert stored(api) == "3"
    ask(api, 2)
    async with operator(api, playbook(upgrade())):
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")


async def test_a_copy_of_an_object_starts_again(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    async with operator(api, playbook(upgrade(counting(log, "a")))):
        copied = {"annotations": annotations(api)}
        api.put(TICKET, "copy", metadata=copied, spec=api.read(TICKET, ticket)["spec"])
        await asyncio.sleep(1)
        assert len(log) == 2


async def test_removing_the_annotation_runs_the_plan_again(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    async with operator(api, playbook(upgrade(counting(log, "a")))):
        api.put(TICKET, KEY.name, metadata={"annotations": {}})
        await asyncio.sleep(1)
        assert len(log) == 2


async def test_an_own_annotation_causes_no_reconcile(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    async with operator(api, playbook(counting(log, "each play"), upgrade(counting(log, "a")))):
        await asyncio.sleep(10)
        assert len(log) == 2


async def test_check_mode_writes_nothing_and_shows_the_tasks() -> None:
    log: list[str] = []
    play: TicketPlay = Play(Ticket(ObjectMeta(name="t", namespace="default", uid="1")), check=True)
    recap = await playbook(upgrade(counting(log, "a"))).run(play)
    assert [result.task for result in recap.results] == ["a"]
    assert play.object.metadata.annotations == {}


async def test_plans_that_run_at_the_same_time_both_finish(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    plans = [
        Plan("one", [counting(log, "a")], on_change=seats),
        Plan("two", [counting(log, "b")], on_change=seats),
    ]
    async with operator(api, playbook(Group("both", plans, parallel=True))):
        assert sorted(log) == ["a 2", "b 2"]
        assert ready(api, ticket)[0] == "True"
        assert sorted(annotations(api)) == [f"{PLAN_PREFIX}tickets.{name}" for name in ("one", "two")]


async def test_a_plan_that_begins_and_a_task_that_records_do_not_meet(
    api: ModelApi, ticket: ObjectKey
) -> None:
    runs: list[str] = []

    @task("recorded")
    async def record(play: TicketPlay) -> None:
        runs.append("recorded")
        await play.record(replace(play.status, phase="Begun"))

    plans = [Plan(name, [record], on_change=seats) for name in ("one", "two")]
    async with operator(api, playbook(Group("all", [record, *plans], parallel=True))):
        assert ready(api, ticket)[0] == "True"
        assert runs == ["recorded"] * 3, "no play met a Conflict"


async def test_each_plan_knows_its_own_values(api: ModelApi, ticket: ObjectKey) -> None:
    log: list[str] = []
    plans = [
        Plan("one", [counting(log, "a")], on_change=seats),
        Plan("two", [counting(log, "b")], on_change=lambda play: play.object.metadata.name),
    ]
    async with operator(api, playbook(*plans)):
        ask(api, 3)
        await asyncio.sleep(1)
        assert log == ["a 2", "b 2", "a 3"]


async def test_a_refused_record_is_shown_on_the_object_and_nothing_is_done(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    patch = api.patch

    async def refuse(resource: Any, key: Any, body: Any, **options: Any) -> Any:
        if "annotations" in body.get("metadata", {}):
            raise Forbidden(403, "Forbidden", 'cannot patch resource "tickets"')
        return await patch(resource, key, body, **options)

    monkeypatch.setattr(api, "patch", refuse)
    async with operator(api, playbook(upgrade(counting(log, "a")))):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "KubernetesRefused")
        assert "cannot patch resource" in message
        assert log == []
        monkeypatch.undo()
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"


async def test_a_plan_may_have_both_triggers(api: ModelApi, ticket: ObjectKey) -> None:
    """`when` runs the plan again after the object that it applied was deleted."""
    gone = upgrade(when=lambda play: play.get(CONFIG_MAP, KEY.name) is None)
    async with operator(api, playbook(gone)):
        api.remove(CONFIG_MAP, KEY)
        await asyncio.sleep(1)
        assert stored(api) == "2"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Plan("a", []), "no trigger"),
        (lambda: Plan("a", [Group("g", [upgrade()])], when=bool), "inside the plan 'a'"),
        (lambda: playbook(upgrade(), Group("g", [upgrade()])), "two plans 'upgrade'"),
        (
            lambda: Playbook(Play, tasks=[], cleanup=[upgrade()], finalizer="example.dev/f"),
            "A cleanup runs until it succeeds",
        ),
    ],
)
async def test_a_plan_that_could_not_be_recorded_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make()


# Plans that block the steps after them, and plans that do not.


async def recap_of(*steps: Step[Any]) -> Recap:
    return await playbook(*steps).run(Play(Ticket(ObjectMeta(name="t", namespace="default", generation=1))))


@pytest.mark.parametrize("blocking", [True, False])
async def test_only_a_blocking_plan_that_fails_blocks_what_follows(blocking: bool) -> None:
    log: list[str] = []
    backup = Plan(
        "backup",
        [counting(log, "a", lambda: TaskFailed("Down", "The store is down.")), counting(log, "never")],
        when=lambda play: True,
        blocking=blocking,
    )
    recap = await recap_of(backup, counting(log, "b"))
    assert log == (["a 0"] if blocking else ["a 0", "b 0"])
    assert recap.failure is not None
    assert (recap.failure.reason, recap.plan, recap.step) == ("Down", "backup", "a")


@pytest.mark.parametrize("blocking", [True, False])
async def test_only_a_blocking_plan_that_waits_blocks_what_follows(
    api: ModelApi, ticket: ObjectKey, blocking: bool
) -> None:
    log: list[str] = []
    ask(api, 7)
    plan = upgrade(blocking=blocking)
    async with operator(api, playbook(plan, counting(log, "b"))):
        assert bool(log) != blocking
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until readers have followed.")
        ask(api, 3)
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
        events = [(event["reason"], event["action"]) for event in api.all(EVENT)]
        assert events == [("PlanInProgress", "upgrade"), ("PlanCompleted", "upgrade")]


async def test_every_failure_has_an_event_and_the_first_is_the_reason(
    api: ModelApi, ticket: ObjectKey
) -> None:
    plans = [
        Plan(name, [failing], when=lambda play: True, blocking=False)
        for name, failing in (
            ("one", counting([], "a", lambda: TaskFailed("First", "The first."))),
            ("two", counting([], "b", lambda: TaskFailed("Second", "The second."))),
        )
    ]
    async with operator(api, playbook(*plans)):
        assert ready(api, ticket) == ("False", "First", "The first.")
        assert {event["reason"] for event in api.all(EVENT)} == {"First", "Second"}


async def test_a_permanent_failure_of_a_plan_that_does_not_block_leaves_the_rest_its_retries_and_resyncs(
    api: ModelApi, ticket: ObjectKey
) -> None:
    log: list[str] = []
    broken = counting(log, "broken", lambda: TaskFailed("Bad", "Bad.", permanent=True))
    plan = Plan("backup", [broken], when=lambda play: True, blocking=False)
    async with operator(api, playbook(plan, counting(log, "b")), resync=30):
        await asyncio.sleep(200)
        assert 4 < log.count("b 2") < 12, "the resyncs"
        assert ready(api, ticket)[:2] == ("False", "Bad")


@pytest.mark.parametrize("permanent", [True, False])
async def test_a_wait_beside_a_failed_plan_is_checked_at_its_own_time(
    api: ModelApi, ticket: ObjectKey, permanent: bool
) -> None:
    """The back-off of the failed plan grows to minutes."""
    times: list[float] = []
    loop = asyncio.get_running_loop()

    @task("waits")
    async def waits(play: TicketPlay) -> None:
        times.append(loop.time())
        play.wait_for("it is so", condition=False, fallback=10)

    broken = counting([], "broken", lambda: TaskFailed("Bad", "Bad.", permanent=permanent))
    plan = Plan("backup", [broken], when=lambda play: True, blocking=False)
    async with operator(api, playbook(plan, waits)):
        await asyncio.sleep(1000)
        pauses = [after - before for before, after in pairwise(times)]
        assert max(pauses) <= 10.1
        assert len(times) > 90


async def test_a_failed_blocking_task_keeps_its_back_off_despite_other_requests(
    api: ModelApi, ticket: ObjectKey
) -> None:
    log: list[str] = []

    @task("asks")
    async def asks(play: TicketPlay) -> None:
        play.requeue_after(1)

    broken = counting(log, "broken", lambda: TaskFailed("Bad", "Bad.", permanent=True))
    async with operator(api, playbook(asks, broken)):
        await asyncio.sleep(100)
        assert len(log) == 1
