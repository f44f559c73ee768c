"""Waits with a time limit, and routine waits that do not affect Ready."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from pilothouse import views
from pilothouse.kube import ObjectKey, ObjectMeta
from pilothouse.playbook import Group, Plan, Play, Playbook, Task, TaskFailed, Waiting, Watch, task
from pilothouse.playbook.groups import Step
from pilothouse.playbook.records import WAIT_PREFIX
from pilothouse.testing import ModelApi
from pilothouse.views import DEPLOYMENT, JOB
from tests.unit.operators import operating
from tests.unit.playbook.configured import TicketPlay, operator, ready
from tests.unit.tickets import TICKET

pytestmark = pytest.mark.usefixtures("virtual_time")

ANNOTATION = f"{WAIT_PREFIX}tickets"


class World:
    """The state that the tasks of a test observe."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.times: list[float] = []
        self.failure: Exception | None = None


@pytest.fixture
def world() -> World:
    return World()


def waiting(world: World, what: str = "it is so", name: str = "waits", **options: Any) -> Task[Any]:
    @task(name)
    async def wait(play: TicketPlay) -> None:
        world.times.append(asyncio.get_running_loop().time())
        if world.failure:
            raise world.failure
        play.wait_for(what, what in world.done, **options)

    return wait


def playbook(*steps: Step[Any]) -> Playbook[TicketPlay]:
    return Playbook(Play, tasks=steps)


def annotations(api: ModelApi, key: ObjectKey) -> dict[str, str]:
    found: dict[str, str] = api.read(TICKET, key)["metadata"].get("annotations", {})
    return found


async def test_a_wait_that_lasts_too_long_fails_on_time_and_recovers(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    async with operator(api, playbook(waiting(world, within=600, fallback=7000))):
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until it is so.")
        await asyncio.sleep(597)
        assert ready(api, ticket)[1] == "Waiting"
        await asyncio.sleep(5)
        message = "Timed out after 600 s of waiting until it is so. The operator keeps checking."
        assert ready(api, ticket) == ("False", "WaitTimedOut", message)
        checks = len(world.times)
        await asyncio.sleep(3600)
        assert 2 < len(world.times) - checks < 30, "with back-off"
        assert ready(api, ticket)[1] == "WaitTimedOut"
        world.done.add("it is so")
        await asyncio.sleep(1100)
        assert ready(api, ticket)[0] == "True"
        assert ANNOTATION not in annotations(api, ticket)


async def test_a_restart_does_not_reset_it(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    book = playbook(waiting(world, within=600))
    for _ in range(3):
        async with operator(api, book):
            await asyncio.sleep(180)
            assert ready(api, ticket)[1] == "Waiting"
    async with operator(api, book):
        await asyncio.sleep(70)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_a_change_of_the_spec_does(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    async with operator(api, playbook(waiting(world, within=600))):
        await asyncio.sleep(500)
        api.put(TICKET, ticket.name, spec={"seats": 5})
        await asyncio.sleep(500)
        assert ready(api, ticket)[1] == "Waiting"
        await asyncio.sleep(105)
        assert ready(api, ticket)[1] == "WaitTimedOut"
        api.put(TICKET, ticket.name, spec={"seats": 6})
        await asyncio.sleep(1)
        assert ready(api, ticket)[1] == "Waiting"


async def test_a_failure_before_the_wait_does_not(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    async with operator(api, playbook(waiting(world, within=600))):
        await asyncio.sleep(300)
        world.failure = TaskFailed("Down", "It is down.")
        await asyncio.sleep(200)
        assert ready(api, ticket)[1] == "Down"
        world.failure = None
        await asyncio.sleep(500)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_a_wait_that_begins_after_another_has_its_own_time(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("both")
    async def both(play: TicketPlay) -> None:
        for what in ("one", "two"):
            play.wait_for(what, what in world.done, within=600, fallback=10)

    async with operator(api, playbook(both)):
        await asyncio.sleep(500)
        world.done.add("one")
        await asyncio.sleep(590)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until two.")
        await asyncio.sleep(30)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_a_wait_that_begins_again_has_a_new_time(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    """The plan was not due for a while."""
    due = True
    plan = Plan("roll out", [waiting(world, within=600)], when=lambda play: due)
    other = waiting(world, "the other", name="other", fallback=10)
    async with operator(api, playbook(plan, other)):
        await asyncio.sleep(500)
        due = False
        await asyncio.sleep(100)
        assert ready(api, ticket)[2] == "Waiting until the other."
        assert ANNOTATION not in annotations(api, ticket)
        due = True
        await asyncio.sleep(500)
        assert ready(api, ticket) == ("False", "Waiting", "Waiting until it is so.")


async def test_waits_at_the_same_time_each_have_their_limit(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    members = [
        waiting(world, "one", "one", within=900, fallback=5000),
        waiting(world, "two", "two", within=300, fallback=5000),
        waiting(world, "three", "three", fallback=5000),
    ]
    async with operator(api, playbook(Group("all", members, parallel=True))):
        assert ready(api, ticket)[2] == "Waiting until one."
        await asyncio.sleep(302)
        assert ready(api, ticket)[1:] == (
            "WaitTimedOut",
            "Timed out after 300 s of waiting until two. The operator keeps checking.",
        )
        world.done.add("two")
        await asyncio.sleep(590)
        assert ready(api, ticket)[2] == "Waiting until one."
        await asyncio.sleep(10)
        assert "Timed out after 900 s of waiting until one." in ready(api, ticket)[2]


async def test_of_several_waits_the_earliest_check_counts(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    members = [waiting(world, "one", "one", fallback=500), waiting(world, "two", "two", fallback=20)]
    async with operator(api, playbook(Group("all", members, parallel=True))):
        world.done.update(("one", "two"))
        await asyncio.sleep(25)
        assert ready(api, ticket)[0] == "True"


@pytest.mark.parametrize("value", ["", "{", "[]", '{"since": 3}', '{"generation":1,"since":{"a":"x"}}'])
async def test_a_broken_record_begins_the_wait_again(
    api: ModelApi, ticket: ObjectKey, world: World, value: str
) -> None:
    api.put(TICKET, ticket.name, metadata={"annotations": {ANNOTATION: value}})
    async with operator(api, playbook(waiting(world, within=600))):
        await asyncio.sleep(500)
        assert ready(api, ticket)[1] == "Waiting"
        await asyncio.sleep(105)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_the_start_of_a_wait_is_written_once(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    async with operator(api, playbook(waiting(world, within=600, fallback=100))):
        await asyncio.sleep(550)
        assert len(world.times) == 6
        calls = [call for call in api.calls if call.verb == "patch" and call.resource == str(TICKET)]
        assert len(calls) == 2, "the start and the status, once"


@pytest.mark.parametrize("within", [-1, float("nan"), "10"])
async def test_a_limit_that_is_not_a_number_of_seconds_is_a_defect(
    api: ModelApi, ticket: ObjectKey, world: World, within: Any
) -> None:
    async with operator(api, playbook(waiting(world, within=within))):
        assert ready(api, ticket)[1] == "UnexpectedError"


# The limit belongs to the call, and not to its text.


async def test_a_text_that_changes_does_not_reset_the_limit(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("all members are ready")
    async def wait(play: TicketPlay) -> None:
        world.times.append(0)
        count = len(world.times)
        play.wait_for(f"{count} members are ready", False, within=600, fallback=10, reason=f"Ready{count}")

    async with operator(api, playbook(wait)):
        await asyncio.sleep(590)
        assert ready(api, ticket)[1].startswith("Ready")
        await asyncio.sleep(15)
        assert ready(api, ticket)[1] == "WaitTimedOut"
        writes = [call for call in api.calls if call.verb == "patch" and not call.subresource]
        assert len(writes) == 1, "the start, once"


def helper(play: TicketPlay, what: str, condition: bool) -> None:
    play.wait_for(what, condition, within=600, fallback=10)


@pytest.mark.parametrize("how", ["calls", "helper", "subtasks"])
async def test_two_calls_have_their_own_limits_even_if_only_one_is_made(
    api: ModelApi, ticket: ObjectKey, world: World, how: str
) -> None:
    """The first call is not made any more when its condition is true."""

    @task("one")
    async def one(play: TicketPlay) -> None:
        helper(play, "one", condition=False)

    @task("two")
    async def two(play: TicketPlay) -> None:
        helper(play, "two", condition=False)

    async def calls(play: TicketPlay) -> None:
        if "one" not in world.done:
            play.wait_for("one", False, within=600, fallback=10)
        play.wait_for("two", False, within=600, fallback=10)

    async def by_helper(play: TicketPlay) -> None:
        if "one" not in world.done:
            helper(play, "one", condition=False)
        helper(play, "two", condition=False)

    async def subtasks(play: TicketPlay) -> None:
        if "one" not in world.done:
            await one(play)
        await two(play)

    functions: dict[str, Any] = {"calls": calls, "helper": by_helper, "subtasks": subtasks}
    async with operator(api, playbook(task("both")(functions[how]))):
        await asyncio.sleep(500)
        world.done.add("one")
        await asyncio.sleep(590)
        assert ready(api, ticket)[2] == "Waiting until two."
        await asyncio.sleep(30)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_a_wait_in_a_thread_is_the_same_in_each_reconcile(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    def wait(play: TicketPlay) -> None:
        world.times.append(0)
        play.wait_for(f"number {len(world.times)}", False, within=3600, fallback=10)

    book = playbook(task("waits")(wait))
    async with operator(api, book):
        await asyncio.sleep(10)
        first = annotations(api, ticket)[ANNOTATION]
    async with operator(api, book):
        await asyncio.sleep(100)
    assert len(world.times) > 3
    assert annotations(api, ticket)[ANNOTATION] == first


async def test_a_wait_after_a_failed_task_whose_condition_was_true_starts_again(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("waits and fails")
    async def wait(play: TicketPlay) -> None:
        play.wait_for("it is so", "it is so" in world.done, within=600, fallback=10)
        raise TaskFailed("Down", "It is down.")

    async with operator(api, playbook(wait)):
        await asyncio.sleep(500)
        world.done.add("it is so")
        await asyncio.sleep(15)
        assert ready(api, ticket)[1] == "Down"
        assert ANNOTATION not in annotations(api, ticket)
        world.done.clear()
        await asyncio.sleep(1200)
        assert ready(api, ticket)[1] == "WaitTimedOut"


async def test_a_job_whose_spec_changes_does_not_reset_the_limit(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("backup")
    async def backup(play: TicketPlay) -> None:
        world.times.append(0)
        spec = {"template": {}, "parallelism": 1 + len(world.times) // 10}
        await play.run_job({"metadata": {"name": "b"}, "spec": spec}, within=600, fallback=10)

    async with operator(api, playbook(backup)):
        await asyncio.sleep(590)
        assert ready(api, ticket)[1] == "JobRunning"
        await asyncio.sleep(15)
        assert ready(api, ticket)[1] == "WaitTimedOut"
        assert len(api.all(JOB)) > 3


async def test_jobs_that_run_one_after_the_other_have_their_own_limits(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("backups")
    async def backups(play: TicketPlay) -> None:
        for database in (1, 2):
            await play.run_job({"spec": {"template": {}, "parallelism": database}}, within=600, fallback=10)

    async with operator(api, playbook(backups)):
        await asyncio.sleep(500)
        [job] = api.all(JOB)
        api.put(JOB, job["metadata"]["name"], status={"conditions": [{"type": "Complete", "status": "True"}]})
        await asyncio.sleep(590)
        assert ready(api, ticket)[1] == "JobRunning"
        await asyncio.sleep(30)
        assert ready(api, ticket)[1] == "WaitTimedOut"


# Routine waits.


async def test_a_routine_wait_leaves_ready_true(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    never = waiting(world, "never", "never")
    async with operator(api, playbook(waiting(world, ready=True, fallback=50), never)):
        message = "The object matches its spec. Waiting until it is so."
        assert ready(api, ticket) == ("True", "Reconciled", message)
        assert len(world.times) == 1
        await asyncio.sleep(60)
        assert len(world.times) == 2
        world.done.update(("it is so", "never"))
        await asyncio.sleep(60)
        assert ready(api, ticket) == ("True", "Reconciled", "The object matches its spec.")


async def test_a_routine_wait_does_not_hide_another(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    members = [
        waiting(world, "the cool-down is over", "cool down", ready=True),
        waiting(world, "it is rolled out", "roll out", reason="RollingOut"),
    ]
    async with operator(api, playbook(Group("all", members, parallel=True))):
        assert ready(api, ticket) == ("False", "RollingOut", "Waiting until it is rolled out.")


async def test_a_routine_wait_can_time_out(api: ModelApi, ticket: ObjectKey, world: World) -> None:
    async with operator(api, playbook(waiting(world, ready=True, within=100))):
        assert ready(api, ticket)[0] == "True"
        await asyncio.sleep(105)
        assert ready(api, ticket)[:2] == ("False", "WaitTimedOut")


@pytest.mark.parametrize("where", ["before", "inside"])
async def test_ready_is_not_true_before_a_plan_on_change_has_finished(
    api: ModelApi, ticket: ObjectKey, world: World, where: str
) -> None:
    window = waiting(world, "the window opens", ready=True, fallback=10)
    tasks = [window] if where == "inside" else []
    plan = Plan("upgrade", tasks, on_change=lambda play: play.object.spec.seats)
    async with operator(api, playbook(*([] if tasks else [window]), plan)):
        message = "The plan upgrade has not finished. Waiting until the window opens."
        assert ready(api, ticket) == ("False", "Waiting", message)
        world.done.add("the window opens")
        await asyncio.sleep(15)
        assert ready(api, ticket)[0] == "True"
        world.done.clear()
        await asyncio.sleep(700)
        assert ready(api, ticket)[0] == "True"


async def test_a_task_can_catch_a_wait_and_set_a_condition(
    api: ModelApi, ticket: ObjectKey, world: World
) -> None:
    @task("backup")
    async def backup(play: TicketPlay) -> None:
        try:
            play.wait_for("the Job has ended", "job" in world.done, within=100)
            play.condition("BackingUp", False, "Done")
        except Waiting as wait:
            play.condition("BackingUp", True, "Running", str(wait))
            play.requeue_after(wait.fallback)

    async with operator(api, playbook(backup)):
        assert ready(api, ticket)[0] == "True"
        await asyncio.sleep(105)
        assert ready(api, ticket)[:2] == ("False", "WaitTimedOut"), "its start time is kept nevertheless"


async def test_a_job_may_run_without_making_the_object_unready_and_has_its_limit(
    api: ModelApi, ticket: ObjectKey
) -> None:
    @task("backup")
    async def backup(play: TicketPlay) -> None:
        await play.run_job({"spec": {"template": {}}}, ready=True, within=600)

    async with operator(api, playbook(backup)):
        [job] = api.all(JOB)
        name = job["metadata"]["name"]
        message = f"The object matches its spec. Waiting until Job {name} has finished."
        assert ready(api, ticket) == ("True", "Reconciled", message)
        await asyncio.sleep(605)
        message = (
            f"Timed out after 600 s of waiting until Job {name} has finished. The operator keeps checking."
        )
        assert ready(api, ticket) == ("False", "WaitTimedOut", message)
        api.put(JOB, name, status={"conditions": [{"type": "Complete", "status": "True"}]})
        await asyncio.sleep(1)
        assert ready(api, ticket)[0] == "True"


async def test_a_rollout_that_takes_too_long_fails_with_the_reason(api: ModelApi, ticket: ObjectKey) -> None:
    @task("rolled out")
    async def roll_out(play: TicketPlay) -> None:
        manifest = {"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": {}}}
        deployment = await play.apply(DEPLOYMENT, manifest)
        await play.wait_for_rollout(deployment, within=600)

    api_watch = Watch(TICKET, playbook(roll_out), resync=0, owns=[DEPLOYMENT])
    async with operating(api, api_watch):
        assert ready(api, ticket)[:2] == ("False", "RollingOut")
        await asyncio.sleep(605)
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "WaitTimedOut")
        assert message.startswith(
            "Timed out after 600 s of waiting until Deployment my-ticket is rolled out."
        )
        assert not message.endswith("checking.")


@pytest.mark.parametrize("error", [Exception, Waiting])
async def test_a_task_that_swallows_a_wait_fails(
    api: ModelApi, ticket: ObjectKey, error: type[Exception]
) -> None:
    @task("careless")
    async def careless(play: TicketPlay) -> None:
        with suppress(error):
            play.wait_for("the Job has ended", False)

    async with operator(api, playbook(careless)):
        status, reason, message = ready(api, ticket)
        assert (status, reason) == ("False", "UnexpectedError")
        assert (
            "it caught a wait (Waiting until the Job has ended), probably with `except Exception`" in message
        )


@pytest.mark.parametrize("module", ["run_job", "wait_for_rollout"])
async def test_a_task_that_swallows_the_wait_of_a_module_fails(
    api: ModelApi, ticket: ObjectKey, module: str
) -> None:
    @task("careless")
    async def careless(play: TicketPlay) -> None:
        with suppress(Exception):
            if module == "run_job":
                await play.run_job({"spec": {"template": {}}})
            else:
                await play.wait_for_rollout(views.Deployment(ObjectMeta("web", "default", generation=2)))

    async with operator(api, playbook(careless)):
        assert "it caught a wait (" in ready(api, ticket)[2]


async def test_a_wait_that_another_failure_replaces_is_no_mistake(api: ModelApi, ticket: ObjectKey) -> None:
    @task("careful")
    async def careful(play: TicketPlay) -> None:
        try:
            play.wait_for("the Job has ended", False)
        except Waiting:
            raise TaskFailed("JobMissing", "The Job has not ended.") from None

    async with operator(api, playbook(careful)):
        assert ready(api, ticket)[1] == "JobMissing"


async def test_a_conflict_that_a_task_swallows_is_raised_again(api: ModelApi, ticket: ObjectKey) -> None:
    tries: list[int] = []

    @task("careless")
    async def careless(play: TicketPlay) -> None:
        tries.append(1)
        with suppress(Exception):
            if len(tries) == 1:
                api.put(TICKET, ticket.name, metadata={"labels": {"a": "b"}})
            await play.record(replace(play.status, phase="Booked"))

    async with operator(api, playbook(careless)):
        await asyncio.sleep(1)
        assert len(tries) == 2
        assert api.read(TICKET, ticket)["status"]["phase"] == "Booked"
