"""What must happen, and what must never happen, when something is wrong with a cluster of three."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from etcd_operator.etcd import Alarm, AlarmType, Member
from etcd_operator.types import DEFAULT_REPOSITORY
from pilothouse.kube import Resource
from pilothouse.testing import ModelApi, play
from pilothouse.testing.controllers.pods import CLAIM, POD
from tests.etcd.model.state import EnableAuth, Raise, SetMember
from tests.faults.etcd_life import CLUSTERS, KEY, EtcdLife, key

Story = Callable[[EtcdLife, ModelApi], Iterator[str | float]]

#: The ID and the peer URL of a member that a user has added.
STRANGER, URL = 7, "http://stranger.example:2380"


class Told(EtcdLife):
    """A story about a cluster that is created first.

    Attributes:
        lost: The acknowledged writes that are lost at the end.
    """

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story
        self.lost: list[str] = []

    def play(self, user: ModelApi) -> Iterator[str | float]:
        self.begin(user, size=3, version="3.6.14")
        yield "created"
        yield from self._story(self, user)


def tell(story: Story) -> tuple[Told, str, dict[str, tuple[str, str]]]:
    """Tells a story, and returns it with its failure and the conditions at its end."""
    told = Told(story)
    run = play(told)
    state = run.steps[-1].state
    assert isinstance(state, dict)
    assert state["foundings"] == 1, "another cluster was founded"
    told.lost = state["lost"]
    return told, run.failure, state["cluster"][2]


def parts(life: EtcdLife, user: ModelApi) -> tuple[str, str, str]:
    """Returns the leader and the followers."""
    one, other = life.followers(user)
    [leader] = {*life.pods(user)} - {one, other}
    return leader, one, other


def node(user: ModelApi, name: str) -> str:
    return str(user.read(POD, key(name))["spec"]["nodeName"])


@pytest.mark.parametrize("annotated", [True, False])
def test_a_write_survives_a_stale_member_a_wiped_one_and_a_killed_one(annotated: bool) -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        leader, wiped, stale = parts(life, user)
        away = node(user, stale)
        life.world.cut_off(user, away)
        yield 5.0
        if not annotated:
            user.put(POD, wiped, metadata={"annotations": {}})
        life.world.wipe(user, wiped)
        life.world.kill(wiped)
        life.world.kill(leader)
        life.world.reconnect(user, away)
        yield "healed"

    told, failure, conditions = tell(story)
    assert not failure
    assert told.lost == []
    assert conditions["Ready"] == ("True", "Settled")
    # The wiped member was replaced, and did not rejoin under its ID.
    assert [each.partition(" http")[0] for each in told.world.members.changes] == [
        "remove",
        "add learner",
        "promote",
    ]


def test_a_majority_of_pods_is_started_again_on_its_volumes() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        for name in life.pods(user)[:2]:
            user.remove(POD, key(name))
        yield "healed"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert (told.lost, told.world.members.changes) == ([], [])


def test_a_lost_majority_of_volumes_is_reported_and_nothing_is_founded() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        for name in life.pods(user)[:2]:
            user.remove(CLAIM, key(name))
            user.remove(POD, key(name))
        yield "lost"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Degraded"][0] == "True"
    assert conditions["Ready"][0] == conditions["Available"][0] == "False"
    # The survivor keeps everything.
    assert (told.lost, told.world.members.changes) == ([], [])


@pytest.mark.parametrize("kinds", [(CLAIM,), (POD,), (CLAIM, POD)], ids=["volume", "pod", "both"])
def test_an_object_without_its_label_is_kept_until_a_user_puts_the_label_back(
    kinds: tuple[Resource[Any], ...],
) -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        name = life.followers(user)[0]
        for kind in kinds:
            user.put(kind, name, metadata={"labels": {}})
        yield 300.0
        life.world.kill(name)
        yield 600.0
        assert len(user.all(POD)) == len(user.all(CLAIM)) == 3
        labels = {"app": "etcd", "etcd_cluster": KEY.name, "etcd_node": name}
        for kind in kinds:
            user.put(kind, name, metadata={"labels": labels})
        yield "labelled"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert (told.lost, told.world.members.changes) == ([], [])


def test_a_node_that_is_away_is_unknown_and_its_member_is_kept() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        away = node(user, life.followers(user)[0])
        life.world.cut_off(user, away)
        yield 600.0
        life.world.reconnect(user, away)
        yield "back"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert (told.lost, told.world.members.changes) == ([], [])


def test_auth_hides_the_members_and_justifies_nothing() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        leader, one, other = parts(life, user)
        life.world.members.propose(life.world.running(leader), EnableAuth())
        yield 60.0
        life.world.kill(one)
        user.remove(POD, key(other))
        yield "with auth"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"][0] == "False"
    assert (told.lost, told.world.members.changes) == ([], [])


def test_a_member_that_a_user_has_added_is_never_removed() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        leader = life.world.running(parts(life, user)[0])
        life.world.members.propose(leader, SetMember(Member(STRANGER, "", (URL,), (), True)))
        yield 60.0
        gone = life.followers(user)[0]
        user.remove(POD, key(gone))
        yield "added"

    told, failure, conditions = tell(story)
    assert not failure
    assert "Degraded" in conditions
    assert told.world.members.changes == []
    assert all(STRANGER in each.known for each in told.world.members.processes)


def test_a_full_database_restarts_nothing_and_keeps_all_members_ready() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        leader = life.world.running(parts(life, user)[0])
        life.world.members.propose(leader, Raise(Alarm(leader.id, AlarmType.NOSPACE)))
        yield "full"
        ready = [each["status"]["containerStatuses"][0] for each in user.all(POD)]
        assert [(each["ready"], each["restartCount"]) for each in ready] == [(True, 0)] * 3

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Degraded"] == ("True", "Alarm")
    assert (told.lost, told.world.members.changes) == ([], [])


def fill(life: EtcdLife, user: ModelApi, name: str = "") -> None:
    """Raises the alarm of a member whose database is full; without a name, that of the leader."""
    leader = parts(life, user)[0]
    raised = Raise(Alarm(life.world.running(name or leader).id, AlarmType.NOSPACE))
    life.world.members.propose(life.world.running(leader), raised)


@pytest.mark.parametrize("full", ["leader", "lost"])
def test_a_member_is_replaced_while_a_database_is_full(full: str) -> None:
    """The alarm stays, also if the member that has raised it is gone, because etcd refuses all writes."""

    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        leader, gone, _ = parts(life, user)
        fill(life, user, leader if full == "leader" else gone)
        yield "full"
        user.remove(CLAIM, key(gone))
        user.remove(POD, key(gone))
        yield "replaced"
        assert gone not in life.pods(user)

    told, failure, conditions = tell(story)
    assert not failure
    assert [each.partition(" http")[0] for each in told.world.members.changes] == [
        "remove",
        "add learner",
        "promote",
    ]
    assert told.lost == []
    assert conditions["Degraded"] == ("True", "Alarm")
    assert conditions["Ready"] == ("False", "Alarm")


def test_a_cluster_is_resized_and_upgraded_while_a_database_is_full() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        fill(life, user)
        yield "full"
        life.edit(user, size=5)
        yield "five"
        assert len(life.pods(user)) == 5
        life.edit(user, size=3)
        yield "three"
        assert len(life.pods(user)) == 3
        life.edit(user, version="3.7.3")
        yield "3.7"
        assert {life.world.running(name).version for name in life.pods(user)} == {"3.7.3"}

    told, failure, conditions = tell(story)
    assert not failure
    assert told.lost == []
    assert conditions["Degraded"] == ("True", "Alarm")
    assert conditions["Ready"] == ("False", "Alarm")


def test_a_frozen_member_is_unknown_and_is_kept() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        process = life.world.running(life.followers(user)[0])
        life.world.members.freeze(process)
        yield 300.0
        life.world.members.thaw(process)
        yield "thawed"

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert (told.lost, told.world.members.changes) == ([], [])


def test_a_lost_persistent_volume_is_replaced() -> None:
    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        gone = life.followers(user)[0]
        life.world.lose(user, gone)
        life.world.kill(gone)
        yield "replaced"
        assert user.exists(CLUSTERS, KEY)

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert told.lost == []
    assert len(told.world.members.changes) == 3


def test_a_version_with_a_suffix_is_replaced_and_upgraded_with_its_tags() -> None:
    versions = ("3.6.14-0", "3.7.3-1")

    def story(life: EtcdLife, user: ModelApi) -> Iterator[str | float]:
        images = life.world.machines.versions
        images |= {f"{DEFAULT_REPOSITORY}:v{each}": each.partition("-")[0] for each in versions}
        life.edit(user, version=versions[0])
        yield "changed"
        images.pop(f"{DEFAULT_REPOSITORY}:v3.6.14")
        gone = life.followers(user)[0]
        user.remove(CLAIM, key(gone))
        user.remove(POD, key(gone))
        yield "replaced"
        life.edit(user, version=versions[1])
        yield 8.0
        user.remove(POD, key(life.pods(user)[0]))
        yield "upgraded"
        images_now = {each["spec"]["containers"][0]["image"] for each in user.all(POD)}
        assert images_now == {f"{DEFAULT_REPOSITORY}:v{versions[1]}"}

    told, failure, conditions = tell(story)
    assert not failure
    assert conditions["Ready"] == ("True", "Settled")
    assert told.lost == []
