"""Under every fault at every call, plans finish with the last spec, and waits end in time."""

from collections.abc import Iterator, Sequence

import msgspec
import pytest
from msgspec.structs import replace

from pilothouse.kube import ObjectKey, ObjectMeta, Resource
from pilothouse.playbook import Plan, Play, Status, Watch, task
from pilothouse.playbook.plan_annotations import PLAN_PREFIX
from pilothouse.playbook.records import WAIT_PREFIX
from pilothouse.testing import Fault, ModelApi, Process, Scenario, explore
from tests.unit.playbook.configured import CONFIG_MAP, DEPLOYMENT, OWNS, TicketPlay, ready
from tests.unit.playbook.test_modules_faults import Deployed, configure, playbook, suffered
from tests.unit.playbook.test_plans import KEY, ask, seats, store, stored
from tests.unit.tickets import TICKET

WAITS = f"{WAIT_PREFIX}operator"


@task("the Deployment is rolled out")
async def roll_out(play: TicketPlay) -> None:
    deployment = await play.apply(DEPLOYMENT, {"spec": {"replicas": seats(play)}})
    play.wait_for("the Deployment is rolled out", deployment.status.get("replicas") == seats(play))


@task("the number is noted")
async def note(play: TicketPlay) -> None:
    play.status = replace(play.status, phase=str(seats(play)))


class Reverted(Deployed):
    """An upgrade that waits half-way, and a spec that is changed back; a plan before it waits, too."""

    controllers = ()

    def watches(self, process: Process) -> Sequence[Watch]:
        plans = [
            Plan("settings", [configure], on_change=seats, blocking=False),
            Plan("upgrade", [store, roll_out, note], on_change=seats),
        ]
        return [Watch(TICKET, playbook(*plans), resync=60, owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        ask(user, 2)
        yield "two seats are asked for"
        user.put(DEPLOYMENT, KEY.name, status={"replicas": 2})
        yield "the Deployment has two"
        assert ready(user, KEY)[0] == "True"
        ask(user, 7)
        yield "seven are asked for, which never come"
        assert (stored(user), ready(user, KEY)[0]) == ("7", "False")
        ask(user, 2)
        yield "two are asked for again"
        assert (stored(user), ready(user, KEY)[0]) == ("2", "True")
        assert user.read(DEPLOYMENT, KEY)["spec"] == {"replicas": 2}
        assert user.read(TICKET, KEY)["status"]["phase"] == "2", "also if the process was killed before"


def differs(play: TicketPlay) -> bool:
    """Returns whether the objects of the plan no longer exist: a write may land after its timeout."""
    data, deployment = play.get(CONFIG_MAP, KEY.name), play.get(DEPLOYMENT, KEY.name)
    if data is None or deployment is None:
        return True
    return (data.data.get("seats"), deployment.spec.get("replicas")) != (str(seats(play)), seats(play))


class PutBackAtOnce(Reverted):
    """As before, but the user is quick: the spec is changed back at any instruction of the plan.

    The plan also repairs what it has applied.
    """

    def watches(self, process: Process) -> Sequence[Watch]:
        plan = Plan("upgrade", [store, roll_out], on_change=seats, when=differs)
        return [Watch(TICKET, playbook(plan), resync=60, owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self._user = user
        ask(user, 2)
        yield "two seats are asked for"
        user.put(DEPLOYMENT, KEY.name, status={"replicas": 2})
        yield "the Deployment has two"
        ask(user, 7)
        yield 0.01
        ask(user, 2)
        yield "two are asked for again"
        assert (stored(user), ready(user, KEY)[0]) == ("2", "True")
        assert user.read(DEPLOYMENT, KEY)["spec"] == {"replicas": 2}

    def effects(self) -> Sequence[str]:
        """The created objects depend on when the spec is changed back."""
        return ()


def is_another(play: TicketPlay) -> bool:
    """The status has another number of seats than the spec."""
    return play.status.phase != str(seats(play))


class Noted(Reverted):
    """The last task of the plan sets in the status what the trigger compares with the spec."""

    def watches(self, process: Process) -> Sequence[Watch]:
        plan = Plan("upgrade", [store, roll_out, note], when=is_another)
        return [Watch(TICKET, playbook(plan), resync=60, owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        yield from super().play(user)
        annotations = user.read(TICKET, KEY)["metadata"].get("annotations", {})
        assert not any(name.startswith(PLAN_PREFIX) for name in annotations)


class NotedAtOnce(PutBackAtOnce):
    """The same, and the spec is changed back at any instruction of the plan."""

    def watches(self, process: Process) -> Sequence[Watch]:
        def due(play: TicketPlay) -> bool:
            return is_another(play) or differs(play)

        plan = Plan("upgrade", [store, roll_out, note], when=due)
        return [Watch(TICKET, playbook(plan), resync=60, owns=OWNS)]


class Limited(Scenario):
    """A wait in a plan that times out and then comes true; all objects are compared, except for times."""

    def watches(self, process: Process) -> Sequence[Watch]:
        @task("the config is there")
        async def wait(play: TicketPlay) -> None:
            there = play.get(CONFIG_MAP, play.object.metadata.name) is not None
            play.wait_for("the config is there", there, within=30)

        plan = Plan("wait", [wait], on_change=seats)
        return [Watch(TICKET, playbook(plan), resync=60, owns=OWNS)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        key = KEY
        user.put(TICKET, key.name, spec={"seats": 2})
        yield "it has timed out"
        assert ready(user, key)[1] == "WaitTimedOut"
        uid = user.read(TICKET, key)["metadata"]["uid"]
        owner = {"apiVersion": TICKET.api_version, "kind": "Ticket", "name": key.name, "uid": uid}
        user.put(CONFIG_MAP, key.name, metadata={"ownerReferences": [{**owner, "controller": True}]})
        yield "it has come true"
        assert ready(user, key)[0] == "True"
        assert WAITS not in user.read(TICKET, key)["metadata"].get("annotations", {})


# The case of an author: a trigger that compares the status with the spec of a kind of their own.


class GreeterSpec(msgspec.Struct, frozen=True):
    version: int = 1


class GreeterStatus(Status, frozen=True):
    version: int = 0


class Greeter(msgspec.Struct, frozen=True):
    metadata: ObjectMeta
    spec: GreeterSpec = GreeterSpec()
    status: GreeterStatus = GreeterStatus()


GREETER = Resource("example.dev", "v1", "Greeter", "greeters", Greeter)
GreeterPlay = Play[Greeter, GreeterStatus]


@task("the data is stored in the new version")
async def store_version(play: GreeterPlay) -> None:
    await play.apply(CONFIG_MAP, {"data": {"version": str(play.object.spec.version)}})


@task("readers have followed")
async def readers_have_followed(play: GreeterPlay) -> None:
    play.wait_for("readers have followed", play.object.spec.version != 2)  # 2 is broken


@task("done")
async def done(play: GreeterPlay) -> None:
    play.status = replace(play.status, version=play.object.spec.version)


def the_version_differs(play: GreeterPlay) -> bool:
    """Another version is requested."""
    return play.status.version != play.object.spec.version


class VersionPutBack(Scenario):
    """The version is changed to a broken one, and put back half-way."""

    def watches(self, process: Process) -> Sequence[Watch]:
        steps = [store_version, readers_have_followed, done]
        plan = Plan("upgrade", steps, when=the_version_differs)
        return [Watch(GREETER, tasks=[plan], owns=[CONFIG_MAP], writes_status=True)]

    def play(self, user: ModelApi) -> Iterator[str | float]:
        for version, ready_status in ((1, "True"), (2, "False"), (1, "True")):
            user.put(GREETER, "a", spec={"version": version})
            yield f"version {version} is requested"
            key = ObjectKey("default", "a")
            [condition] = user.read(GREETER, key)["status"]["conditions"]
            assert user.read(CONFIG_MAP, key)["data"] == {"version": str(version)}
            assert condition["status"] == ready_status


@pytest.mark.parametrize("scenario", [Reverted, PutBackAtOnce, Noted, NotedAtOnce, VersionPutBack])
def test_a_plan_finishes_with_the_last_spec_under_every_fault(scenario: type[Scenario]) -> None:
    matrix = explore(scenario)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)


def test_a_wait_times_out_and_recovers_under_every_fault() -> None:
    matrix = explore(Limited)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
