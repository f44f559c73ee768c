"""Plans with `when`: once they have begun, they are due until they have finished."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from pilothouse.cli.by_hand import Hand
from pilothouse.cli.report import as_json, as_text
from pilothouse.kube import Forbidden, ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import Group, Plan, Play, Playbook, Task, TaskFailed, Watch, add_watch, task
from pilothouse.playbook.groups import Step
from pilothouse.playbook.plan_annotations import IN_PROGRESS, PLAN_PREFIX, PlanAnnotations
from pilothouse.process import Manager, Settings
from pilothouse.testing import ModelApi
from tests.unit.playbook.configured import CONFIG_MAP, OWNS, TicketPlay, operator, ready, requests
from tests.unit.playbook.test_plans import ANNOTATION, annotations, ask, in_progress, seats, store, stored
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

SETTINGS = Settings(leader_elect=True, pod_namespace="operators", pod_name="p")


def differs(play: TicketPlay) -> bool:
    """The ticket has another number of seats."""
    return play.status.phase != str(seats(play))


@task("readers have followed")
async def follow(play: TicketPlay) -> None:
    """Seven seats are too many: readers never follow."""
    play.wait_for("readers have followed", seats(play) != 7, fallback=5)


@task("the number is noted")
async def note(play: TicketPlay) -> None:
    play.status = replace(play.status, phase=str(seats(play)))


def upgrade(*tasks: Step[Any], when: Any = differs, **options: Any) -> Plan[TicketPlay]:
    return Plan("upgrade", tasks or (store, follow, note), when=when, **options)


def playbook(*steps: Step[Any]) -> Playbook[TicketPlay]:
    return Playbook(Play, tasks=steps)


def writes(api: ModelApi) -> int:
    """The number of writes of the ticket itself, without those of its status."""
    return len([call for call in requests(api, TICKET) if call.verb == "patch" and not call.subresource])


# When a plan begins.


async def test_a_spec_that_is_changed_back_half_way_runs_the_plan_again(
    api: ModelApi, ticket: ObjectKey
) -> None:
    async with operator(api, playbook(upgrade())):
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")
        ask(api, 7)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0], in_progress(api)) == ("7", "False", True)
        ask(api, 2)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")
        assert ANNOTATION not in annotations(api)


async def test_a_process_that_is_killed_half_way_has_recorded_the_plan(
    api: ModelApi, ticket: ObjectKey
) -> None:
    @task("never ends")
    async def endless(play: TicketPlay) -> None:
        await asyncio.sleep(3600)

    async with operator(api, playbook(upgrade())):
        pass
    ask(api, 3)
    async with operator(api, playbook(upgrade(store, endless, note))):
        assert stored(api) == "3"
    ask(api, 2)
    async with operator(api, playbook(upgrade())):
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")
        assert ANNOTATION not in annotations(api)


async def test_a_plan_costs_two_writes_and_a_settled_object_none(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(upgrade()), resync=5):
        assert writes(api) == 2
        before = len(requests(api, TICKET))
        await asyncio.sleep(60)
        assert [call for call in requests(api, TICKET)[before:] if call.verb != "watch"] == []
        ask(api, 7)
        await asyncio.sleep(60)
        assert writes(api) == 3, "the plan is recorded once, however often it waits"


async def test_a_plan_that_finds_nothing_to_change_is_not_recorded(api: ModelApi, ticket: ObjectKey) -> None:
    """Such as one whose trigger is always true."""

    @task("the store is read")
    def read(play: TicketPlay) -> None:
        """A plain def, which runs in a thread behind the fence."""
        play.get(CONFIG_MAP, play.object.metadata.name)

    async with operator(api, playbook(store, upgrade(read, store, when=lambda play: True)), resync=5):
        before = len(requests(api, TICKET))
        await asyncio.sleep(60)
        assert [call for call in requests(api, TICKET)[before:] if call.verb != "watch"] == []
        assert writes(api) == 0


async def test_a_plan_that_has_not_begun_is_dropped(api: ModelApi, ticket: ObjectKey) -> None:
    async with operator(api, playbook(upgrade(follow, store, note))):
        ask(api, 7)
        await asyncio.sleep(10)
        assert ready(api, ticket)[1] == "Waiting"
        assert ANNOTATION not in annotations(api)
        ask(api, 2)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")


async def no_effect() -> None:
    """Stands for a change of an outside system."""


async def call(play: TicketPlay) -> None:
    await play.call("change it", no_effect)


async def record(play: TicketPlay) -> None:
    await play.record(replace(play.status, booking="claimed"))


async def in_thread(play: TicketPlay) -> None:
    await play.fence.in_thread(int)


async def guarded(play: TicketPlay) -> None:
    await play.fence.guard(no_effect)


async def set_status(play: TicketPlay) -> None:
    play.status = replace(play.status, booking="claimed")


async def report_a_change(play: TicketPlay) -> None:
    play.changed("changed it without a module")


@pytest.mark.parametrize("change", [call, record, in_thread, guarded, set_status, report_a_change])
async def test_every_change_begins_the_plan(api: ModelApi, ticket: ObjectKey, change: Any) -> None:
    """Even if the same task then waits."""
    due = True

    @task("changes something and waits")
    async def act(play: TicketPlay) -> None:
        await change(play)
        play.wait_for("it is so", False)

    async with operator(api, playbook(upgrade(act, when=lambda play: due))):
        assert in_progress(api)
        due = False
        ask(api, 3)
        await asyncio.sleep(1)
        assert ready(api, ticket)[2] == "Waiting until it is so."


async def test_a_task_that_has_succeeded_begins_the_plan(api: ModelApi, ticket: ObjectKey) -> None:
    """It may have changed something in a way that the operator does not see."""
    due = True

    @task("looks")
    async def look(play: TicketPlay) -> None:
        pass

    async with operator(api, playbook(upgrade(look, follow, when=lambda play: due))):
        assert writes(api) == 0, "it finished in one reconcile"
        ask(api, 7)
        await asyncio.sleep(1)
        assert in_progress(api)
        due = False
        await asyncio.sleep(20)
        assert ready(api, ticket)[1] == "Waiting"


async def test_a_task_that_has_failed_without_a_change_does_not_begin_the_plan(
    api: ModelApi, ticket: ObjectKey
) -> None:
    @task("the number is valid")
    async def check(play: TicketPlay) -> None:
        if seats(play) == 7:
            raise TaskFailed("TooMany", "Seven are too many.", permanent=True)

    async with operator(api, playbook(upgrade(check, store, note))):
        ask(api, 7)
        await asyncio.sleep(1)
        assert (ready(api, ticket)[1], ANNOTATION in annotations(api)) == ("TooMany", False)
        ask(api, 2)
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"


async def test_the_plan_is_recorded_before_its_first_change(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = api.patch

    async def refuse(resource: Any, key: Any, body: Any, **options: Any) -> Any:
        if "annotations" in body.get("metadata", {}) and resource == TICKET:
            raise Forbidden(403, "Forbidden", 'cannot patch resource "tickets"')
        return await patch(resource, key, body, **options)

    monkeypatch.setattr(api, "patch", refuse)
    async with operator(api, playbook(upgrade())):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "KubernetesRefused")
        assert message.startswith("The start of the plan 'upgrade' could not be recorded: ")
        assert api.all(CONFIG_MAP) == []
        monkeypatch.undo()
        await asyncio.sleep(60)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")


async def test_a_refused_end_of_a_plan_is_reported(
    api: ModelApi, ticket: ObjectKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = api.patch

    async def refuse(resource: Any, key: Any, body: Any, **options: Any) -> Any:
        if body.get("metadata", {}).get("annotations") == {ANNOTATION: None}:
            raise Forbidden(403, "Forbidden", "the end is near")
        return await patch(resource, key, body, **options)

    monkeypatch.setattr(api, "patch", refuse)
    async with operator(api, playbook(upgrade())):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "PlanNotRecorded")
        assert "the end is near" in message
        monkeypatch.undo()
        await asyncio.sleep(60)
        assert ready(api, ticket)[0] == "True"
        assert ANNOTATION not in annotations(api)


async def test_parallel_tasks_record_the_plan_once(api: ModelApi, ticket: ObjectKey) -> None:
    @task("the copy is stored")
    async def copy(play: TicketPlay) -> None:
        await play.apply(CONFIG_MAP, {"metadata": {"name": "copy"}, "data": {"seats": str(seats(play))}})

    @task("recorded")
    async def record_phase(play: TicketPlay) -> None:
        await play.record(replace(play.status, booking="claimed"))

    async with operator(api, playbook(upgrade(store, copy, record_phase, parallel=True, when=bool_of_store))):
        assert ready(api, ticket)[0] == "True"
        assert len(api.all(CONFIG_MAP)) == 2
        assert writes(api) == 2


def bool_of_store(play: TicketPlay) -> bool:
    return play.get(CONFIG_MAP, play.object.metadata.name) is None


async def test_a_plan_in_a_plan_begins_both(api: ModelApi, ticket: ObjectKey) -> None:
    due = True
    inner: Plan[TicketPlay] = Plan("inner", [store, follow], when=lambda play: due)
    async with operator(api, playbook(upgrade(inner, when=lambda play: due))):
        ask(api, 7)
        await asyncio.sleep(1)
        assert sorted(annotations(api)) == [f"{PLAN_PREFIX}tickets.inner", ANNOTATION]
        due = False
        ask(api, 2)
        await asyncio.sleep(1)
        assert (stored(api), ready(api, ticket)[0], annotations(api)) == ("2", "True", {})


async def test_a_plan_in_a_plan_that_reports_its_change_begins_both(api: ModelApi, ticket: ObjectKey) -> None:
    """The record of one plan must not wait for that of the other."""

    @task("reports")
    async def act(play: TicketPlay) -> None:
        play.changed("changed it without a module")
        play.wait_for("it is so", False)

    inner: Plan[TicketPlay] = Plan("inner", [act], when=lambda play: True)
    async with operator(api, playbook(upgrade(inner))):
        assert sorted(annotations(api)) == [f"{PLAN_PREFIX}tickets.inner", ANNOTATION]


async def test_a_plan_with_both_triggers_runs_again_while_one_of_them_is_true(
    api: ModelApi, ticket: ObjectKey
) -> None:
    """Without a change it costs no request."""
    plan = Plan("upgrade", [store], on_change=seats, when=lambda play: True)
    async with operator(api, playbook(plan), resync=5):
        before = writes(api)
        await asyncio.sleep(60)
        assert writes(api) == before
        api.remove(CONFIG_MAP, ticket)
        await asyncio.sleep(1)
        assert stored(api) == "2"
        assert writes(api) == before + 2
        assert not in_progress(api)


# Who knows the record.


async def test_a_user_can_abandon_a_plan(api: ModelApi, ticket: ObjectKey) -> None:
    due = True
    async with operator(api, playbook(upgrade(store, follow, when=lambda play: due))):
        ask(api, 7)
        await asyncio.sleep(1)
        due = False
        api.put(TICKET, ticket.name, metadata={"annotations": {}})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"
        assert ANNOTATION not in annotations(api)


async def test_a_copy_of_an_object_is_not_in_progress(api: ModelApi, ticket: ObjectKey) -> None:
    due = True
    async with operator(api, playbook(upgrade(store, follow, when=lambda play: due))):
        ask(api, 7)
        await asyncio.sleep(1)
        due = False
        copy = api.put(TICKET, "copy", metadata={"annotations": annotations(api)}, spec={"seats": 7})
        await asyncio.sleep(1)
        assert ready(api, copy)[0] == "True"
        assert not api.exists(CONFIG_MAP, copy)


async def test_a_retired_plan_is_ignored_and_dropped(api: ModelApi, ticket: ObjectKey) -> None:
    finished: Plan[TicketPlay] = Plan("deploy", [note], on_change=seats)
    async with operator(api, playbook(finished, upgrade(store, follow, when=lambda play: True))):
        ask(api, 7)
        await asyncio.sleep(1)
        assert in_progress(api)
        deployed = annotations(api)[f"{PLAN_PREFIX}tickets.deploy"]
    others = {
        f"{PLAN_PREFIX}tickets.other.upgrade": annotations(api)[ANNOTATION],
        f"{PLAN_PREFIX}rival.upgrade": annotations(api)[ANNOTATION],
        f"{PLAN_PREFIX}tickets.deploy": deployed,
    }
    api.put(TICKET, ticket.name, metadata={"annotations": {**annotations(api), **others}})
    renamed = Plan("new-name", [store], when=lambda play: False)
    async with operator(api, playbook(renamed), resync=5):
        assert ready(api, ticket)[0] == "True"
        assert annotations(api) == others, "only its own plans in progress are dropped"
        before = writes(api)
        await asyncio.sleep(60)
        assert writes(api) == before


async def test_each_owner_and_plan_has_an_annotation_of_its_own() -> None:
    long, longer = "an-operator-with-a-very-long-name" * 2, "an-operator-with-a-very-long-name" * 3
    owners = ["", "a", "a.b", "A", long, longer]
    plans = ["b.c", "c", "up grade", "upgrade", "é", "x" * 60, "x" * 61]
    names = [PlanAnnotations(owner).name(plan) for owner in owners for plan in plans]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) - len(PLAN_PREFIX) <= 63
    assert names[owners.index("a") * len(plans) + 3] == f"{PLAN_PREFIX}a.upgrade"
    values = dict.fromkeys(names, f"{IN_PROGRESS}-1")
    metadata = ObjectMeta(annotations=values)
    for owner in owners:
        own = [PlanAnnotations(owner).name(plan) for plan in plans]
        assert list(PlanAnnotations(owner).retired(metadata)) == own
        assert PlanAnnotations(owner, plans).retired(metadata) == []


async def test_check_mode_continues_a_plan_and_writes_nothing(api: ModelApi, ticket: ObjectKey) -> None:
    book = playbook(upgrade(store, follow, when=lambda play: seats(play) == 7))
    async with operator(api, book):
        ask(api, 7)
        await asyncio.sleep(1)
    ask(api, 2)
    before = len(api.writes)
    watch = Watch(TICKET, book, owns=OWNS)
    played = await Hand("tickets", SETTINGS, api).check(watch, ticket)
    assert [result.task for result in played.recap.results] == [store.name, follow.name]
    assert played.recap.results[0].diff == ("data.seats: 7 -> 2",)
    assert len([each for each in api.writes[before:] if not each.dry_run]) == 0


async def test_a_manual_play_continues_a_plan(api: ModelApi, ticket: ObjectKey) -> None:
    book = playbook(upgrade(store, follow, when=lambda play: seats(play) == 7))
    async with operator(api, book):
        ask(api, 7)
        await asyncio.sleep(1)
    ask(api, 2)
    await Hand("tickets", SETTINGS, api).play(Watch(TICKET, book, owns=OWNS), ticket)
    assert (stored(api), ANNOTATION in annotations(api)) == ("2", False)


class Config(msgspec.Struct, frozen=True):
    """A kind without a status."""

    metadata: ObjectMeta
    spec: dict[str, str] = {}


CONFIG: Resource[Config] = Resource("example.dev", "v1", "Config", "configs", Config)


async def test_a_kind_without_a_status_has_the_record_too(api: ModelApi) -> None:
    key = api.put(CONFIG, "web", spec={"wanted": "bad"})

    @task("stored")
    async def store_data(play: Play[Config, Any]) -> None:
        await play.apply(CONFIG_MAP, {"data": dict(play.object.spec)})

    @task("readers have followed")
    async def followed(play: Play[Config, Any]) -> None:
        play.wait_for("readers have followed", play.object.spec["wanted"] != "bad")

    def bad(play: Play[Config, Any]) -> bool:
        return play.object.spec["wanted"] == "bad"

    manager = Manager("configs", Settings(health_host="127.0.0.1", health_port=0), api)
    plan = Plan("upgrade", [store_data, followed], when=bad)
    add_watch(manager, Watch(CONFIG, tasks=[plan], owns=[CONFIG_MAP]))
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    api.put(CONFIG, "web", spec={"wanted": "good"})
    await asyncio.sleep(1)
    assert api.read(CONFIG_MAP, key)["data"] == {"wanted": "good"}
    assert not api.read(CONFIG, key)["metadata"].get("annotations")
    process.cancel()
    await asyncio.gather(process, return_exceptions=True)


# The condition Ready.


async def test_ready_is_false_while_a_begun_plan_comes_after_a_routine_wait(
    api: ModelApi, ticket: ObjectKey
) -> None:
    closed = False

    @task("the window is open")
    async def window(play: TicketPlay) -> None:
        play.wait_for("the window opens", not closed, ready=True, fallback=10)

    async with operator(api, playbook(window, upgrade())):
        ask(api, 7)
        await asyncio.sleep(1)
        closed = True
        ask(api, 2)
        await asyncio.sleep(1)
        message = "The plan upgrade has not finished. Waiting until the window opens."
        assert (stored(api), ready(api, ticket)) == ("7", ("False", "Waiting", message))
        closed = False
        await asyncio.sleep(10)
        assert (stored(api), ready(api, ticket)[0]) == ("2", "True")


async def test_a_routine_wait_in_the_plan_leaves_ready_to_its_author(
    api: ModelApi, ticket: ObjectKey
) -> None:
    @task("backup")
    async def back_up(play: TicketPlay) -> None:
        await play.run_job({"spec": {"template": {}}}, ready=True)

    async with operator(api, playbook(upgrade(back_up))):
        assert (ready(api, ticket)[0], in_progress(api)) == ("True", True)


def failing(*, raises: bool = True) -> Task[TicketPlay]:
    @task("the store is up")
    async def fail(play: TicketPlay) -> None:
        if raises:
            raise TaskFailed("Down", "The store is down.")

    return fail


async def test_ready_names_the_plans_that_a_failure_blocks(api: ModelApi, ticket: ObjectKey) -> None:
    def raises(play: TicketPlay) -> bool:
        raise KeyError("not observed yet")

    inner: Plan[TicketPlay] = Plan("inner", [store], when=lambda play: True)
    plans: Sequence[Plan[TicketPlay]] = [
        Plan("first", [failing()], when=lambda play: True),
        Plan("upgrade", [store], on_change=seats),
        Plan("not due", [store], when=lambda play: False),
        Plan("unknown", [store], when=raises),
        Plan("backup", [inner], when=lambda play: True),
    ]
    book = playbook(plans[0], Group("later", plans[1:]))
    async with operator(api, book):
        message = "The store is down. Plans that were not run: upgrade, backup."
        assert ready(api, ticket) == ("False", "Down", message)
    played = await Hand("tickets", SETTINGS, api).check(Watch(TICKET, book, owns=OWNS), ticket)
    assert "\nPlans that were not run: upgrade, backup.\n" in as_text(played, diff=False)
    assert json.loads(as_json(played))["notRun"] == ["upgrade", "backup"]


async def test_a_wait_and_a_failure_that_block_no_plan_name_none(api: ModelApi, ticket: ObjectKey) -> None:
    first: Plan[TicketPlay] = Plan("first", [failing()], when=lambda play: True, blocking=False)
    async with operator(api, playbook(first, upgrade())):
        assert ready(api, ticket) == ("False", "Down", "The store is down.")
        assert stored(api) == "2"


async def test_a_name_of_two_plans_is_refused() -> None:
    twice: Plan[TicketPlay] = Plan("upgrade", [store], when=lambda play: True)
    makes: Sequence[Callable[[], object]] = (
        lambda: playbook(upgrade(), Group("g", [twice])),
        lambda: Playbook(Play, tasks=[upgrade()], cleanup=[twice], finalizer="example.dev/f"),
        lambda: playbook(upgrade(twice)),
    )
    for make in makes:
        with pytest.raises(TypeError, match="there are two plans 'upgrade'"):
            make()
