"""Under every fault at every call, plans finish with the last spec, and waits end in time."""

from collections.abc import Iterator, Sequence

from pilothouse.playbook import Plan, Watch, task
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


class Reverted(Deployed):
    """An upgrade that waits half-way, and a spec that is changed back; an independent plan waits, too."""

    controllers = ()

    def watches(self, process: Process) -> Sequence[Watch]:
        plans = [
            Plan("settings", [configure], on_change=seats, independent=True),
            Plan("upgrade", [store, roll_out], on_change=seats),
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


def test_a_plan_finishes_with_the_last_spec_under_every_fault() -> None:
    matrix = explore(Reverted)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)


def test_a_plan_finishes_with_the_last_spec_however_soon_it_is_changed_back() -> None:
    matrix = explore(PutBackAtOnce)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)


def test_a_wait_times_out_and_recovers_under_every_fault() -> None:
    matrix = explore(Limited)
    matrix.require_converged()
    assert suffered(matrix) == set(Fault)
