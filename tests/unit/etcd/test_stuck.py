"""New members that never come up, and alarms: both would stop a cluster without a word."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import model as m
from etcd_operator import plan
from etcd_operator.etcd import Alarm, AlarmType
from tests.unit.etcd.abstract import (
    AWAY,
    CRASH,
    ENDING,
    GONE,
    HANGS,
    LISTED,
    NEW,
    NOW,
    OUT,
    PENDING,
    UP,
    VOTER,
    World,
    carry_out,
    change,
    cluster,
    observe,
    progress,
    settle,
    unfounded,
)

TEN_MINUTES = timedelta(minutes=10)
REMOVED = 64


def decide(observation: m.Observation) -> Any:
    """Decides. Any: a test knows which step it expects."""
    return plan.decide(observation)


def adding(role: int, pod: int, age: timedelta = TEN_MINUTES, *, bound: bool = False) -> m.Observation:
    """A cluster of three that adds a fourth member, whose pod is in a state of its own."""
    world = cluster(3, size=4)
    while not prepared(world, role):
        observation = observe(world)
        after = carry_out(world, observation, decide(observation).step)
        world = after if after != world else next(progress(world))
    index = next(i for i, each in enumerate(world.members) if each.role != VOTER)
    observation = observe(change(world, index, pod=pod))
    assert observation.record.claim
    claim = replace(observation.record.claim, since=NOW - age)
    volumes = tuple(
        replace(each, bound=bound) if each.name == claim.name else each for each in observation.volumes
    )
    return replace(observation, record=replace(observation.record, claim=claim), volumes=volumes)


def prepared(world: World, role: int) -> bool:
    new = any(each.role == role and each.pod != GONE for each in world.members if each.role != VOTER)
    return new and decide(observe(world)).reason == "AddingMember"


def reported(observation: m.Observation) -> list[tuple[str, str]]:
    return [(each.reason, each.message) for each in decide(observation).problems]


@pytest.mark.parametrize(("pod", "bound"), [(AWAY, False), (ENDING, False), (CRASH, True), (PENDING, True)])
def test_a_learner_that_does_not_come_up_is_replaced(pod: int, bound: bool) -> None:
    observation = adding(LISTED, pod, bound=bound)
    decision = decide(observation)
    assert decision.reason == "GivingUpMember"
    assert decision.step.record.claim.action is m.Action.REMOVE
    waits = decide(adding(LISTED, pod, TEN_MINUTES - timedelta(seconds=1), bound=bound))
    assert waits.reason == "AddingMember"


@pytest.mark.parametrize(("pod", "bound"), [(AWAY, False), (ENDING, False), (PENDING, True)])
def test_a_seat_that_etcd_does_not_list_and_that_does_not_come_up_is_given_up(pod: int, bound: bool) -> None:
    decision = decide(adding(OUT, pod, bound=bound))
    assert decision.reason == "GivingUpMember"
    assert decision.step.record.claim is None


@pytest.mark.parametrize("role", [LISTED, OUT])
def test_a_new_member_that_waits_for_its_first_node_is_kept(role: int) -> None:
    assert decide(adding(role, PENDING)).reason == "AddingMember"


@pytest.mark.parametrize("role", [LISTED, OUT])
def test_the_lost_node_of_a_new_member_is_reported_after_a_minute(role: int) -> None:
    assert "NodeUnknown" in dict(reported(adding(role, AWAY, timedelta(minutes=2))))
    assert reported(adding(role, AWAY, timedelta(seconds=59))) == []


def test_an_entry_is_written_while_a_running_member_does_not_serve() -> None:
    """It counts a snapshot from the leader as applied only at the next entry."""
    decision = decide(unready(adding(LISTED, UP, timedelta(seconds=59))))
    assert (decision.step, decision.reason) == (m.Wait(0.5, nudge=True), "AddingMember")
    assert not decide(adding(LISTED, NEW, timedelta(seconds=59))).step.nudge
    silent = decide(unready(observe(settle(change(cluster(3), 0, pod=HANGS)))))
    assert (type(silent.step), silent.step.nudge) == (m.Wait, True)


def unready(observation: m.Observation, age: timedelta = timedelta(seconds=59)) -> m.Observation:
    """The same pods, all of them created and not Ready since then."""
    since = NOW - age
    pods = tuple(replace(each, created=since, unready_since=since) for each in observation.pods)
    return replace(observation, pods=pods)


@pytest.mark.parametrize("pod", [AWAY, HANGS])
def test_entries_become_rare_after_ten_minutes(pod: int) -> None:
    """A lost node must not cost 17,000 writes a day."""
    observation = observe(settle(change(cluster(3), 0, pod=pod)))
    polls = [timedelta(seconds=5 * number) for number in range(24 * 720)]
    written = [age for age in polls if decide(unready(observation, age)).step.nudge]
    assert len(written) == 120 + 23 * 6
    learner = [decide(unready(adding(LISTED, UP), timedelta(minutes=each))).step for each in (9, 11, 60)]
    assert [each.nudge for each in learner] == [True, False, True]


def test_an_entry_is_written_even_if_the_operator_may_not_read_nodes() -> None:
    assert decide(unready(adding(LISTED, AWAY, timedelta(seconds=59)))).step.nudge
    observation = unready(observe(settle(change(cluster(3), 0, pod=AWAY))))
    assert decide(observation).step.nudge
    pods = tuple(replace(each, node=m.Signal.UNHEALTHY) for each in observation.pods)
    assert not decide(replace(observation, pods=pods)).step.nudge


def test_a_stuck_addition_is_observed_less_often() -> None:
    assert decide(adding(OUT, NEW, timedelta(seconds=59))).step == m.Wait(0.5)
    assert decide(adding(OUT, NEW, timedelta(seconds=60))).step == m.Wait(5.0)


@pytest.mark.parametrize(("age", "seconds"), [(59, 0.5), (60, 5.0)])
def test_a_stuck_founding_is_observed_less_often(age: int, seconds: float) -> None:
    observation = founding()
    assert observation.record.founding
    since = NOW - timedelta(seconds=age)
    record = replace(observation.record, founding=replace(observation.record.founding, since=since))
    assert decide(replace(observation, record=record)).step == m.Wait(seconds)


def founding() -> m.Observation:
    """A founding whose pods have been created and do not run yet."""
    world: World = unfounded(3)
    while not isinstance(step := decide(observe(world)).step, m.Wait):
        world = carry_out(world, observe(world), step)
    return observe(settle(world))


def test_a_volume_of_a_founding_that_was_not_empty_is_reported() -> None:
    observation = founding()
    first, second, third = (each.name for each in observation.record.seats)
    answers = ((first, 7), (second, 7), (third, 8))
    endpoints = tuple(m.EndpointState(name=name, cluster_id=id_) for name, id_ in answers)
    [(reason, message)] = reported(replace(observation, endpoints=endpoints))
    assert reason == "OtherCluster"
    assert f"{third} (8)" in message


def scaling(voters: int, size: int) -> m.Observation:
    return observe(settle(change(cluster(voters, size=size), 0, pod=AWAY)))


def test_no_healthy_member_leaves_while_the_rest_could_not_lose_another_one() -> None:
    waits = decide(scaling(5, 3))
    [unseen] = [each.name for each in waits_for(scaling(5, 3))]
    assert (type(waits.step), waits.reason) == (m.Wait, "WaitingForMembers")
    assert unseen in waits.message
    assert decide(scaling(7, 5)).reason == "RemovingMember"


def waits_for(observation: m.Observation) -> list[m.PodState]:
    return [each for each in observation.pods if each.node is not m.Signal.HEALTHY]


@pytest.mark.parametrize(
    ("alarm", "words"),
    [
        (Alarm(1, AlarmType.NOSPACE), "NOSPACE of the member c-"),
        (Alarm(REMOVED, AlarmType.NOSPACE), "NOSPACE of the removed member 40"),
        (Alarm(2, AlarmType.CORRUPT), "CORRUPT of the member c-"),
        (Alarm(0, AlarmType.CORRUPT), "CORRUPT. "),
        (Alarm(3, AlarmType.UNKNOWN), "etcdctl alarm list"),
    ],
    ids=str,
)
def test_every_alarm_is_reported_also_that_of_a_removed_member(alarm: Alarm, words: str) -> None:
    [(reason, message)] = reported(replace(observe(cluster(3)), alarms=(alarm,)))
    assert reason == "Alarm"
    assert words in message


def test_an_alarm_is_not_attributed_without_a_member_list() -> None:
    observation = replace(observe(cluster(3)), alarms=(Alarm(REMOVED, AlarmType.NOSPACE),), members=None)
    assert "removed" not in dict(reported(observation))["Alarm"]


def test_a_pod_that_finalizers_keep_is_named_with_them() -> None:
    observation = observe(settle(change(cluster(3), 0, pod=ENDING)))
    [ending] = [each for each in observation.pods if each.deleting]
    assert [reason for reason, _ in reported(observation)] == ["MemberUnknown"]
    pods = tuple(
        replace(each, held=("example.com/mine",)) if each == ending else each for each in observation.pods
    )
    (reason, message), symptom = reported(replace(observation, pods=pods))
    assert reason == "PodTerminating"
    assert f"The pod {ending.name} is being deleted" in message
    assert "these finalizers keep it: example.com/mine." in message
    assert f"""kubectl patch pod -n default {ending.name} --type=merge -p '{{"metadata":""" in message
    assert symptom == ("MemberDown", f"The member {ending.name} does not serve.")


def test_a_claim_that_finalizers_keep_is_named_with_them() -> None:
    observation = observe(cluster(3))
    first, *others = observation.volumes
    held = replace(first, deleting=True, held=("example.com/mine",))
    message = dict(reported(replace(observation, volumes=(held, *others))))["VolumeTerminating"]
    assert f"keep these PVCs also after that: {first.name} (example.com/mine)." in message
