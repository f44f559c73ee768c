"""Accidents at every moment of a founding, a resize and an upgrade: one cluster, and no lost write."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest

from etcd_operator.healing import CRASH_PATIENCE
from pilothouse.kube import Resource
from pilothouse.testing import Json, ModelApi, play
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.faults.etcd_life import CLUSTERS, KEY, EtcdLife, key

Accident = Callable[[EtcdLife, ModelApi], None]


def delete_pod(life: EtcdLife, user: ModelApi) -> None:
    """Deletes the first pod."""
    for name in life.pods(user)[:1]:
        user.remove(POD, key(name))


def delete_pod_and_claim(life: EtcdLife, user: ModelApi) -> None:
    for each in user.all(CLAIM)[:1]:
        name = each["metadata"]["name"]
        user.remove(CLAIM, key(name))
        if user.exists(POD, key(name)):
            user.remove(POD, key(name))


def delete_all_pods(life: EtcdLife, user: ModelApi) -> None:
    for name in life.pods(user):
        user.remove(POD, key(name))


def kill_the_leader(life: EtcdLife, user: ModelApi) -> None:
    running = [name for name in life.pods(user) if life.world.process(name)]
    for name in [name for name in running if life.world.running(name).leads][:1]:
        life.world.kill(name)


def kill_all_processes(life: EtcdLife, user: ModelApi) -> None:
    for name in life.pods(user):
        if life.world.process(name):
            life.world.kill(name)


def wipe_a_follower(life: EtcdLife, user: ModelApi) -> None:
    running = [name for name in life.pods(user) if life.world.process(name)]
    for name in [name for name in running if not life.world.running(name).leads][:1]:
        life.world.wipe(user, name)
        life.world.kill(name)


def edit_the_size(life: EtcdLife, user: ModelApi) -> None:
    life.edit(user, size=5)


def edit_the_version(life: EtcdLife, user: ModelApi) -> None:
    life.edit(user, version="3.6.14")


def create_again(life: EtcdLife, user: ModelApi) -> None:
    spec = user.read(CLUSTERS, KEY)["spec"]
    user.remove(CLUSTERS, KEY)
    user.put(CLUSTERS, KEY.name, spec=spec)


def lose_the_status(life: EtcdLife, user: ModelApi) -> None:
    user.put(CLUSTERS, KEY.name, status={})


def restore_the_status(life: EtcdLife, user: ModelApi) -> None:
    """Restores the status of the first half of the time since the change began."""
    assert isinstance(life, Moment)
    user.put(CLUSTERS, KEY.name, status=life.earlier)


def restore_the_status_and_lose_a_pod(life: EtcdLife, user: ModelApi) -> None:
    restore_the_status(life, user)
    delete_pod(life, user)


ACCIDENTS: Sequence[Accident] = (
    delete_pod,
    delete_pod_and_claim,
    delete_all_pods,
    kill_the_leader,
    kill_all_processes,
    wipe_a_follower,
    edit_the_size,
    edit_the_version,
    create_again,
    lose_the_status,
    restore_the_status,
    restore_the_status_and_lose_a_pod,
)


def begin_change(life: EtcdLife, user: ModelApi, change: str) -> Iterator[str | float]:
    """Begins a founding, or the change of a cluster that is founded.

    Args:
        life: The scenario.
        user: The API server.
        change: A key of CHANGES, or empty for the founding.
    """
    life.begin(user, size=3, version="3.5.33")
    if change:
        yield "created"
        life.edit(user, **CHANGES[change])


class Moment(EtcdLife):
    """An accident some seconds after the beginning of a founding, a resize or an upgrade.

    Attributes:
        earlier: The status after half of that time.
    """

    def __init__(self, accident: Accident, seconds: float, change: str) -> None:
        super().__init__()
        self.earlier: Json = {}
        self._accident = accident
        self._seconds = seconds
        self._change = change

    def play(self, user: ModelApi) -> Iterator[str | float]:
        yield from begin_change(self, user, self._change)
        yield self._seconds / 2
        self.earlier = user.read(CLUSTERS, KEY).get("status", {})
        yield self._seconds / 2
        self._accident(self, user)
        if not self._change:
            # The founding waits as long for a member that crashes, and meanwhile the state stays the same.
            yield CRASH_PATIENCE.total_seconds()
        yield "recovered"


class LostLabel(EtcdLife):
    """An object loses its labels some seconds after the beginning of a change, and has them again later."""

    def __init__(self, kind: Resource[Any], seconds: float, change: str) -> None:
        super().__init__()
        self._kind = kind
        self._seconds = seconds
        self._change = change

    def play(self, user: ModelApi) -> Iterator[str | float]:
        yield from begin_change(self, user, self._change)
        yield self._seconds
        found = user.all(self._kind)
        if found:
            name, labels = found[-1]["metadata"]["name"], dict(found[-1]["metadata"]["labels"])
            user.put(self._kind, name, metadata={"labels": {}})
            yield 60.0
            if user.exists(self._kind, key(name)):
                user.put(self._kind, name, metadata={"labels": labels})
        yield "recovered"


CHANGES: dict[str, dict[str, object]] = {"resize": {"size": 5}, "upgrade": {"version": "3.6.14"}}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("change", ["", *CHANGES], ids=lambda change: change or "founding")
@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda accident: accident.__name__)
def test_an_accident_at_some_moments(accident: Accident, change: str) -> None:
    # The accidents have different moments. The soak tests have ten times as many.
    require_recovery(accident, change, range(1 + 2 * ACCIDENTS.index(accident), 200, 40))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("change", ["", *CHANGES], ids=lambda change: change or "founding")
@pytest.mark.parametrize("kind", [CLAIM, POD], ids=["volume", "pod"])
def test_a_lost_label_at_some_moments(kind: Resource[Any], change: str) -> None:
    for tenth in range(5, 200, 50):
        run = play(LostLabel(kind, tenth / 10, change))
        assert not run.failure, f"after {tenth / 10:g} s: {run.failure}"
        assert not (problem := _problem(run.steps[-1].state)), f"after {tenth / 10:g} s: {problem}"


def require_recovery(accident: Accident, change: str, tenths: Iterable[int]) -> None:
    """Fails unless the cluster recovers from an accident, whenever it happens.

    Args:
        accident: What happens.
        change: What the operator does at that time: a key of CHANGES, or empty for the founding.
        tenths: The moments, in tenths of a second after the beginning of the change.
    """
    problems = []
    for tenth in tenths:
        run = play(Moment(accident, tenth / 10, change))
        if problem := run.failure or _problem(run.steps[-1].state):
            problems.append(f"after {tenth / 10:g} s: {problem}")
    assert not problems, f"{len(problems)} moments:\n" + "\n".join(problems[:3])


def _problem(state: object) -> str:
    """Returns what is wrong with the state at the end; empty if nothing is."""
    assert isinstance(state, dict)
    _, _, conditions = state["cluster"]
    if state["lost"]:
        return f"lost {len(state['lost'])} writes, first {state['lost'][0]}"
    if conditions["Ready"][0] != "True" or "Degraded" in conditions:
        return f"not healthy: {state}"
    return ""
