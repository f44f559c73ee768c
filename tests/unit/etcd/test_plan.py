"""Examples of the plan, one per path. `test_plan_exhaustive` shows that they are not special cases."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import model as m
from etcd_operator import pages, plan
from etcd_operator.etcd import Alarm, AlarmType
from etcd_operator.pages import OTHER_CLUSTER, RECOVERY
from etcd_operator.seats import listed, member_name, new_names
from tests.unit.etcd.abstract import (
    AWAY,
    BAD,
    CORRUPT,
    CRASH,
    DATA,
    EMPTY,
    ENDED,
    ENDING,
    GONE,
    HANGS,
    IMAGE,
    LISTED,
    NEW,
    NONE,
    NOW,
    OTHER,
    OUT,
    OWN,
    PENDING,
    REFUSED,
    SEATED,
    UP,
    VOTER,
    Member,
    World,
    carry_out,
    change,
    change_all,
    cluster,
    observe,
    progress,
    settle,
    unfounded,
)


def decide(observation: m.Observation) -> Any:
    """Decides. Any: a test knows which step it expects."""
    return plan.decide(observation)


def follow(
    world: World, limit: int = 200, seen: Callable[[World], m.Observation] = observe
) -> tuple[list[Any], World]:
    """Carries out steps until the plan stands still, and returns them without the waits."""
    steps: list[Any] = []
    world = settle(world)
    for _ in range(limit):
        observation = seen(world)
        step = decide(observation).step
        following = carry_out(world, observation, step)
        if following == world:
            following = next(progress(world), world)
            if following == world:
                return steps, world
        else:
            steps.append(step)
        world = following
    raise AssertionError("the plan does not come to rest")


def kinds(steps: list[Any], *only: str) -> list[str]:
    names = [type(each).__name__ for each in steps]
    return [each for each in names if not only or each in only]


def reasons(decision: m.Decision) -> set[str]:
    return {each.reason for each in decision.problems}


def broken(world: World, **values) -> World:
    """A cluster whose first member is in another state."""
    return settle(change(world, 0, **values))


@pytest.mark.parametrize(
    ("world", "changes"),
    [
        (change(cluster(3), 0, pod=GONE, volume=NONE, seat=OTHER), ["RemoveMember", "AddLearner", "Promote"]),
        (cluster(1)._replace(size=3), ["AddLearner", "Promote"] * 2),
        (cluster(5)._replace(size=3), ["RemoveMember"] * 2),
        (cluster(3)._replace(target=1), ["PatchImage"] * 3),
    ],
    ids=["heal", "grow", "shrink", "upgrade"],
)
def test_an_alarm_changes_no_step(world, changes):
    without, _ = follow(world)

    def alarmed(world: World) -> m.Observation:
        return replace(observe(world), alarms=(Alarm(1, AlarmType.NOSPACE),))

    steps, end = follow(world, seen=alarmed)
    assert steps == without
    assert kinds(steps, *changes) == changes
    assert "Alarm" in reasons(decide(alarmed(end)))


# --------------------------------------------------------------------------------------------- founding


def test_a_founding_takes_the_steps_of_the_measured_procedure():
    steps, _ = follow(unfounded(3))
    assert kinds(steps) == [
        "RecordFounding",
        "CreateVolumes",
        "RecordVolumes",
        "RecordVolumes",
        "RecordFounded",
        "Flip",
        "MarkVolumes",
        "MarkService",
        "Serve",
    ]
    assert len(steps[2].pods) == 3
    assert not any(pod.serving for pod in steps[2].pods)


def test_a_mistyped_image_is_not_permanent():
    steps, world = follow(unfounded(3, target=BAD))
    assert {each.pod for each in world.members} == {IMAGE}
    steps, world = follow(world._replace(target=0, edited=True))
    assert kinds(steps)[:3] == ["DeletePods", "RecordVolumes", "CreatePods"]
    assert kinds(steps)[-1] == "Serve"


def test_a_founding_that_clients_have_written_to_is_never_given_up():
    steps, world = follow(unfounded(3))
    founding = change_all(world, lambda each: True, marked=False, fresh=False, serving=False, ran=-1)
    founding = change_all(founding, lambda each: True, configuration=m.Configuration.FOUNDING)
    founding = founding._replace(founded=False, formed=False, traced=False, written=True)
    founding = founding._replace(phase=m.Phase.STARTING)
    steps, world = follow(broken(founding, volume=NONE, seat=OTHER, pod=GONE))
    assert kinds(steps)[0] == "RecordFounded"
    assert "RemoveMember" in kinds(steps)
    assert [each.role for each in world.members] == [VOTER] * 3


def test_a_founding_is_not_deleted_after_a_client_has_written():
    world = change_all(
        cluster(3), lambda each: True, marked=False, configuration=m.Configuration.FOUNDING, serving=False
    )
    world = world._replace(founded=False, formed=False, traced=False, edited=True)
    world = world._replace(phase=m.Phase.ABANDONING)
    step = decide(observe(settle(world))).step
    assert isinstance(step, m.RecordVolumes)
    assert step.record.founding
    assert (step.record.founding.phase, step.record.founding.ran) == (m.Phase.STARTING, True)
    never_ran = change_all(world._replace(written=False), lambda each: True, pod=NEW, volume=EMPTY, role=OUT)
    assert isinstance(decide(observe(settle(never_ran))).step, m.DeletePods)


def given_up(**values: Any) -> World:
    """A founding that was given up. Its pods are gone."""
    member = Member(volume=EMPTY, pod=GONE, seat=OWN, configuration=m.Configuration.FOUNDING)
    return unfounded(1, phase=m.Phase.ABANDONING)._replace(members=(member._replace(**values),) * 3)


def test_the_volumes_of_a_founding_that_is_given_up_are_kept_because_members_may_have_run():
    """The members ran, took a write and disappeared after the last observation of their pods."""
    steps, world = follow(given_up(volume=DATA, role=VOTER))
    assert kinds(steps)[:2] == ["MarkVolumes", "RecordFounding"]
    assert all(each.removed and not each.started for each in steps[0].marks)
    assert len(steps[0].marks) == 3
    assert "DeleteVolumes" not in kinds(steps)
    assert len(world.members) == 1


def test_kept_volumes_are_named_and_block_no_other_founding():
    observation = observe(settle(given_up()))
    decision = decide(observation)
    assert all(each.name in decision.message for each in observation.volumes)
    assert "Delete these PVCs when you are sure" in decision.message
    kept = tuple(replace(each, removed=True) for each in observation.volumes)
    step = decide(replace(observation, volumes=kept)).step
    assert isinstance(step, m.RecordFounding)
    assert not {each.name for each in step.record.seats} & {each.name for each in kept}
    following = decide(replace(observation, volumes=kept, record=step.record)).step
    assert isinstance(following, m.CreateVolumes)


@pytest.mark.parametrize("values", [{"bound": False}, {"deleting": True}], ids=str)
def test_a_volume_that_no_pod_can_have_used_is_deleted(values):
    observation = observe(settle(given_up()))
    first, *others = observation.volumes
    step = decide(replace(observation, volumes=(replace(first, **values), *others))).step
    if "bound" in values:
        assert step == m.DeleteVolumes((first.name,))
    else:
        assert [each.name for each in step.marks] == [each.name for each in others]


def test_the_volumes_of_a_founding_without_pods_are_deleted():
    steps, _ = follow(given_up(seat=SEATED))
    assert kinds(steps)[:2] == ["DeleteVolumes", "RecordFounding"]


def test_members_that_disappeared_before_it_was_recorded_that_they_ran_are_kept():
    """All pods of the founding are missing: they ran and took a write while the operator was away."""
    members = given_up(volume=DATA, role=VOTER).members
    world = unfounded(1, phase=m.Phase.STARTING, written=True)._replace(members=members)
    steps, world = follow(world)
    assert kinds(steps)[:2] == ["RecordVolumes", "CreatePods"]
    assert steps[0].record.founding.ran
    assert "RecordAbandoning" not in kinds(steps)
    assert "DeleteVolumes" not in kinds(steps)
    assert [each.role for each in world.members] == [VOTER]


@pytest.mark.parametrize("values", [{"scheme": "https/https"}, {"domain": ".cluster.local"}], ids=str)
def test_a_founding_that_may_have_run_creates_no_pod_with_other_peer_urls(values):
    members = given_up(volume=DATA, role=VOTER).members
    observation = observe(
        settle(unfounded(3, phase=m.Phase.STARTING, started=True)._replace(members=members))
    )
    volumes = tuple(replace(each, domain="") for each in observation.volumes)
    observation = replace(observation, volumes=volumes)
    assert isinstance(decide(observation).step, m.CreatePods)
    decision = decide(replace(observation, desired=replace(observation.desired, **values)))
    assert (decision.step, decision.reason) == (m.Wait(), "FoundingStarted")


def test_a_size_that_is_edited_while_a_member_cannot_start_does_not_give_up_the_others():
    """Four of five members serve. The fifth finds no node until the size is edited."""
    member = Member(volume=DATA, pod=UP, role=VOTER, seat=OWN, configuration=m.Configuration.FOUNDING)
    pending = member._replace(volume=EMPTY, pod=PENDING, role=OUT)
    world = unfounded(5, phase=m.Phase.STARTING, started=True, written=True)
    world = world._replace(members=(member,) * 4 + (pending,))
    assert decide(observe(settle(world))).reason == "Founding"
    step = decide(observe(settle(world._replace(size=3)))).step
    assert isinstance(step, m.RecordFounded)


@pytest.mark.parametrize(("seconds", "corrected"), [(59, False), (60, True)])
def test_an_edited_spec_reaches_a_member_of_a_founding_that_runs_and_finds_no_leader(seconds, corrected):
    member = Member(volume=DATA, pod=HANGS, role=VOTER, seat=OWN, configuration=m.Configuration.FOUNDING)
    world = unfounded(3, phase=m.Phase.STARTING, started=True)
    observation = observe(settle(world._replace(members=(member._replace(shaped=False),) * 3)))
    since = NOW - timedelta(seconds=seconds)
    pods = tuple(replace(each, unready_since=since) for each in observation.pods)
    step = decide(replace(observation, pods=pods)).step
    assert isinstance(step, m.DeletePods if corrected else m.Wait)


def founded_members() -> m.Observation:
    """A founding whose three members serve and agree, so that the next step records it as complete."""
    world = settle(unfounded(3))
    while not isinstance((step := decide(observe(world)).step), m.RecordFounded):
        after = carry_out(world, observe(world), step)
        world = after if after != world else next(progress(world))
    return observe(world)


@pytest.mark.parametrize(
    "differs",
    [
        {"cluster_id": 8},
        {"leader_id": 2},
        {"term": 3},
        {"revision": 2},
        {"hash": 6},
        {"member_id": 9},
        {"health": m.Signal.UNKNOWN},
    ],
    ids=lambda differs: next(iter(differs)),
)
@pytest.mark.parametrize("index", range(3))
def test_a_founding_is_not_complete_while_one_member_differs(index, differs):
    observation = founded_members()
    endpoints = list(observation.endpoints)
    endpoints[index] = replace(endpoints[index], **differs)
    assert endpoints[index] != observation.endpoints[index]
    decision = decide(replace(observation, endpoints=tuple(endpoints)))
    assert (type(decision.step), decision.reason) == (m.Wait, "Founding")


def test_a_founding_is_not_complete_while_its_leader_is_not_one_of_its_members():
    observation = founded_members()
    endpoints = tuple(replace(each, leader_id=9) for each in observation.endpoints)
    assert isinstance(decide(replace(observation, endpoints=endpoints)).step, m.Wait)


@pytest.mark.parametrize(
    ("more", "fewer"),
    [
        (m.MemberState(9, "c-other"), 0),
        (m.MemberState(9, "", urls=("http://other.example:2380",), outside=True), 0),
        (m.MemberState(9, "", learner=True, started=False), 0),
        (None, 1),
    ],
    ids=["seat", "user", "learner", "missing"],
)
def test_a_founding_is_not_complete_with_other_members_than_the_recorded_ones(more, fewer):
    observation = founded_members()
    assert observation.members
    members = (*observation.members[fewer:], *([more] if more else []))
    decision = decide(replace(observation, members=members))
    assert (type(decision.step), decision.reason) == (m.Wait, "Founding")


def test_a_founding_is_not_complete_while_its_members_and_their_list_are_of_different_clusters():
    decision = decide(replace(founded_members(), members_cluster_id=8))
    assert (type(decision.step), decision.reason) == (m.Wait, "Founding")


@pytest.mark.parametrize("differs", [{"uid": "other"}, {"deleting": True}, {"lost": True}, None])
def test_a_founding_that_has_lost_a_volume_is_complete_with_the_others_if_they_serve(differs):
    """It is not given up, because a client can write as soon as a majority serves."""
    observation = founded_members()
    first, *others = observation.volumes
    kept = [replace(first, **differs)] if differs else []
    lost = replace(observation, volumes=(*kept, *others))
    step = decide(lost).step
    assert isinstance(step, m.RecordFounded)
    assert [each.volume_uid for each in step.record.seats] == [each.uid for each in observation.volumes]
    silent = tuple(
        replace(each, health=m.Signal.UNKNOWN) if each.name != first.name else each
        for each in observation.endpoints
    )
    assert decide(replace(lost, endpoints=silent)).reason == "FoundingLostVolumes"


@pytest.mark.parametrize("phase", [m.Phase.STARTING, m.Phase.ABANDONING])
@pytest.mark.parametrize(
    ("ran", "given_up"), [((0, 0, 0), True), ((1, 0, 0), True), ((1, 1, 0), False), ((1, 1, 1), False)]
)
def test_an_edited_founding_is_given_up_only_if_a_majority_of_its_first_pods_never_ran(ran, given_up, phase):
    """What the members answer proves nothing: a client can write in the next moment."""
    observation = founded_members()
    assert observation.record.founding
    pods = tuple(replace(each, ran=bool(one)) for each, one in zip(observation.pods, ran, strict=True))
    desired, founding = (
        replace(observation.desired, size=5),
        replace(observation.record.founding, phase=phase),
    )
    observation = replace(observation, pods=pods, desired=desired, members=None, members_cluster_id=0)
    for recorded in (False, True):
        record = replace(observation.record, founding=replace(founding, ran=recorded))
        step = decide(replace(observation, record=record)).step
        kind = m.RecordAbandoning if phase is m.Phase.STARTING else m.DeletePods
        assert isinstance(step, kind) == (given_up and not recorded)


@pytest.mark.parametrize("phase", [m.Phase.STARTING, m.Phase.ABANDONING])
def test_the_pods_of_a_founding_are_deleted_before_a_restored_status_of_an_earlier_one_goes_on(phase):
    observation = founded_members()
    founding, names = observation.record.founding, [each.name for each in observation.pods]
    assert founding
    seats = tuple(m.Seat(f"c-earlier{index}", volume_uid="gone") for index in range(3))
    record = replace(observation.record, founding=replace(founding, phase=phase), seats=seats)
    restored = replace(observation, record=record)
    assert decide(restored).step == m.DeletePods(tuple(names))
    ending = tuple(replace(each, deleting=True) for each in observation.pods)
    decision = decide(replace(restored, pods=ending))
    assert (decision.step, decision.reason) == (m.Wait(1.0), "FoundingUnknown")
    assert isinstance(decide(replace(restored, pods=())).step, m.RecordAbandoning | m.RecordFounding)


@pytest.mark.parametrize("kind", ["volumes", "pods", "status"])
def test_nothing_is_founded_beside_foreign_objects(kind):
    observation = observe(unfounded(3))
    volume = m.VolumeState(name="c-old", uid="1")
    pod = replace(observe(cluster(1)).pods[0], owner="")
    foreign: dict[str, Any] = {"volumes": (volume,)} if kind == "volumes" else {"pods": (pod,)}
    if kind == "status":
        foreign = {"record": replace(observation.record, foreign_status=True)}
    decision = decide(replace(observation, **foreign))
    assert (decision.step, decision.reason) == (m.Blocked(), "ForeignObjects")


def test_a_founding_waits_for_the_pods_of_the_deleted_cluster_of_the_same_name():
    pod = replace(observe(cluster(1)).pods[0], owner="the UID of the deleted object")
    decision = decide(replace(observe(unfounded(3)), pods=(pod,)))
    assert decision.reason == "EarlierPods"


# ------------------------------------------------------------------------------------------- resumption


def retained(size: int = 3, **values) -> m.Observation:
    """A new EtcdCluster over the retained volumes of a deleted one."""
    before = observe(settle(cluster(size)))
    volumes = tuple(replace(each, owner="the UID of the deleted object", **values) for each in before.volumes)
    return replace(before, record=m.Record(), volumes=volumes, pods=(), members=None, members_cluster_id=0)


def test_a_recreated_object_resumes_exactly_the_last_voters():
    observation = retained()
    removed = replace(observation.volumes[0], name="c-gone", uid="x", member_id=90, removed=True)
    earlier = replace(observation.volumes[0], name="c-earlier", uid="y", incarnation=0, cluster_id=6)
    step = decide(replace(observation, volumes=(*observation.volumes, removed, earlier))).step
    assert isinstance(step, m.RecordResumed)
    assert [each.name for each in step.record.seats] == [each.name for each in observation.volumes]
    assert (step.record.founded, step.record.cluster_id, step.record.incarnation) == (True, 7, 1)
    following = decide(replace(observation, record=step.record)).step
    assert isinstance(following, m.CreatePods)
    assert {each.configuration for each in following.pods} == {m.Configuration.POISONED}
    assert len(following.pods) == 3


def test_a_resumed_cluster_with_a_quorum_replaces_the_member_whose_volume_is_missing():
    observation = retained()
    step = decide(replace(observation, volumes=observation.volumes[:2])).step
    assert isinstance(step, m.RecordResumed)
    assert [each.volume_uid for each in step.record.seats][2] == "lost"


def lost_majority(lost: int, restored: int = 0, *, size: int = 3) -> str:
    """Returns the message after volumes are lost, of which some are there again under their names."""
    world = cluster(size)
    for index in range(lost):
        world = change(world, index, pod=GONE, volume=DATA if index < restored else NONE, seat=OTHER)
    decision = decide(observe(settle(world)))
    assert (decision.step, decision.reason) == (m.Blocked(), "QuorumLost")
    assert "delete pvc" not in decision.message
    return str(decision.message)


RESUME = (
    """run kubectl patch etcdcluster c --type=merge -p '{"spec":{"storage":{"whenDeleted":"Retain"}}}', """
    "wait until no PVC has an owner reference, run kubectl delete etcdcluster c, and create the EtcdCluster "
    "again."
)
PAUSE = (
    "run kubectl patch etcdcluster c --type=merge -p "
    """'{"spec":{"paused":true,"storage":{"whenScaled":"Retain"}}}', delete the pod of c-28sec, and run """
    f"etcd once with --force-new-cluster on its volume. {pages.MAJORITY_LOST} has all commands."
)


def test_a_lost_majority_names_what_is_lost_what_survives_and_the_commands():
    message = lost_majority(2)
    assert message.startswith("The data of c-03sq9, c-0jjnb is lost, so the cluster of size 3 has no quorum.")
    assert "Surviving members: c-28sec (revision 2)." in message
    assert message.endswith(f"Restore the lost PVCs with their data. If you cannot: {PAUSE}")


def test_volumes_that_were_restored_after_a_lost_majority_are_resumed_or_a_survivor_is():
    message = lost_majority(2, restored=1)
    assert "The PVCs c-0jjnb are not those that the status records, so they may miss writes." in message
    held = "If they hold the lost data, and not older copies, resume the cluster from its PVCs: "
    assert f"{held}{RESUME}" in message
    assert message.endswith(f"Otherwise: {PAUSE}")
    all_restored = lost_majority(3, restored=3)
    assert "The PVCs c-03sq9, c-0jjnb, c-28sec are not those that the status records" in all_restored
    assert "If they hold copies of the lost data, resume" in all_restored
    assert all_restored.endswith(f"{RESUME} {pages.ALL_LOST} has all commands.")


def test_too_few_restored_volumes_are_not_enough_to_resume():
    message = lost_majority(5, restored=1, size=5)
    assert (
        "copies of the lost data and the PVCs of 2 more of the lost members are restored, too, res" in message
    )


def test_without_survivors_only_a_snapshot_is_left():
    message = lost_majority(3)
    assert "Surviving members: none." in message
    assert message.endswith(
        "Restore the lost PVCs with their data, or create the EtcdCluster again from a snapshot. "
        f"{pages.ALL_LOST} has all commands."
    )


def test_without_all_revisions_no_survivor_is_chosen():
    world = cluster(5)
    for index in range(3):
        world = change(world, index, pod=GONE, volume=NONE, seat=OTHER)
    observation = observe(settle(world))
    first, second = observation.endpoints
    message = decide(replace(observation, endpoints=(first, replace(second, revision=9)))).message
    assert f"delete the pod of {second.name}, and" in message
    silent = replace(observation, endpoints=(m.EndpointState(name=first.name), second))
    assert "delete the pod of the survivor with the highest revision, and" in decide(silent).message


@pytest.mark.parametrize(("away", "advice"), [(1, "for this member alone"), (2, "Do not delete its PVC")])
def test_a_volume_is_given_up_only_while_the_others_serve(away, advice):
    world = cluster(3)
    for index in range(away):
        world = change(world, index, pod=AWAY)
    found = decide(observe(settle(world))).problems
    assert any(each.reason == "NodeUnknown" and advice in each.message for each in found)


def test_copies_of_the_volumes_of_another_cluster_are_not_started():
    observation = replace(retained(service="prod.default.svc"), service="prod.test.svc")
    decision = decide(observation)
    assert (decision.step, decision.reason) == (m.Blocked(), "OtherService")
    assert "hold members of the cluster prod.default.svc, and this one is prod.test.svc" in decision.message
    assert "elete" not in decision.message
    assert isinstance(decide(replace(observation, service="prod.default.svc")).step, m.RecordResumed)


def test_volumes_of_different_clusters_are_not_started_together():
    observation = retained()
    first, *others = observation.volumes
    decision = decide(replace(observation, volumes=(replace(first, cluster_id=8), *others)))
    assert (decision.step, decision.reason) == (m.Blocked(), "VolumesOfDifferentClusters")


def test_an_unreadable_annotation_is_named_and_no_data_is_to_be_deleted():
    observation = retained()
    first, *others = observation.volumes
    wrong = replace(first, owner="", started=False, unreadable="etcd.pilothouse.dev/voters")
    decision = decide(replace(observation, volumes=(wrong, *others)))
    assert (decision.step, decision.reason) == (m.Blocked(), "UnreadableAnnotation")
    assert f"etcd.pilothouse.dev/voters of PVC {first.name}. Correct them." in decision.message
    assert "elete" not in decision.message


def unreadable(observation: m.Observation, index: int = 0, **values: Any) -> m.Observation:
    """An observation in which an annotation of a volume cannot be read."""
    volumes = list(observation.volumes)
    volumes[index] = replace(volumes[index], **{"unreadable": "etcd.pilothouse.dev/version"} | values)
    return replace(observation, volumes=tuple(volumes))


def test_the_annotations_of_a_voter_s_volume_are_written_again():
    observation = observe(settle(cluster(3)))
    for values in ({"incarnation": 0}, {"member_id": 0}, {"voters": (), "epoch": 0}, {"version": ""}, {}):
        wrong = unreadable(observation, **values)
        decision = decide(wrong)
        assert reasons(decision) == {"UnreadableAnnotation"}
        [mark] = decision.step.marks
        seat = observation.record.seats[0]
        assert (mark.name, mark.member_id, mark.version) == (seat.name, seat.member_id, "3.5.33")
        assert mark.voters == tuple(each.name for each in observation.record.seats)


def test_the_service_of_a_volume_is_recorded_once():
    observation = replace(observe(settle(cluster(3))), service="c.default.svc")
    volumes = tuple(replace(each, service=None) for each in observation.volumes)
    assert len(decide(replace(observation, volumes=volumes)).step.marks) == 3
    volumes = tuple(replace(each, service="c.default.svc") for each in observation.volumes)
    assert decide(replace(observation, volumes=volumes)).step == m.Settled()


@pytest.mark.parametrize("delete", [True, False])
def test_a_volume_with_an_unreadable_annotation_is_reported_and_plays_no_part(delete):
    """It can be that of a removed member, or any other."""
    observation = observe(settle(cluster(1, delete=delete)))
    name = member_name("c", "uid", 1, 40)
    for removed in (True, False):
        old = replace(observation.volumes[0], name=name, uid="old", member_id=9, removed=removed)
        decision = decide(unreadable(replace(observation, volumes=(*observation.volumes, old)), 1))
        assert decision.step == m.Settled()
        [problem] = decision.problems
        assert problem.reason == "UnreadableAnnotation"
        assert f"etcd.pilothouse.dev/version of PVC {name}. Correct them. Keep the PVCs" in problem.message


def test_an_unreadable_volume_is_no_voter_without_a_quorum():
    world = settle(change(change(cluster(3), 0, pod=CRASH), 1, pod=CRASH))
    observation = observe(world)
    old = replace(observation.volumes[0], name=member_name("c", "uid", 1, 40), uid="old")
    decision = decide(unreadable(replace(observation, volumes=(*observation.volumes, old)), 3))
    assert "2 of 3 members must serve" in decision.message


def test_a_learner_whose_volume_has_an_unreadable_annotation_becomes_a_voter():
    world = settle(cluster(3, size=4))
    while not any(each.role == LISTED for each in world.members):
        after = carry_out(world, observe(world), decide(observe(world)).step)
        world = after if after != world else next(progress(world))
    observation = observe(world)
    index = next(i for i, each in enumerate(world.members) if each.role == LISTED)
    decision = decide(unreadable(observation, index, incarnation=0))
    assert decision.step == decide(observation).step


def test_a_recreated_object_without_a_quorum_of_volumes_is_blocked():
    observation = retained()
    decision = decide(replace(observation, volumes=observation.volumes[:1]))
    assert (decision.step, decision.reason) == (m.Blocked(), "VolumesMissing")
    assert observation.volumes[2].name in decision.message


@pytest.mark.parametrize(
    ("values", "reason"),
    [({"scheme": "https/https"}, "OtherScheme"), ({"version": "3.6.14"}, "OtherVersion")],
)
def test_a_recreated_object_with_another_scheme_or_an_older_version_is_blocked(values, reason):
    decision = decide(retained(**values))
    assert (decision.step, decision.reason) == (m.Blocked(), reason)


def test_a_recreated_object_without_a_version_keeps_the_version_of_its_volumes():
    observation = retained()
    desired = replace(observation.desired, version="3.7.1", pinned=False)
    step = decide(replace(observation, desired=desired)).step
    assert isinstance(step, m.RecordResumed)
    assert step.record.version == "3.5.33"


def test_a_resumption_without_a_version_takes_the_newest_one_by_number():
    observation = retained()
    first, *others = observation.volumes
    volumes = (replace(first, version="3.5.9"), *others)
    desired = replace(observation.desired, pinned=False)
    step = decide(replace(observation, desired=desired, volumes=volumes)).step
    assert step.record.version == "3.5.33"


def test_a_resumption_without_a_version_takes_a_tag_that_ran():
    observation = retained(version="3.5.33-10")
    first, *others = observation.volumes
    volumes = (replace(first, version="3.5.9-0"), *others)
    desired = replace(observation.desired, pinned=False)
    step = decide(replace(observation, desired=desired, volumes=volumes)).step
    assert step.record.version == "3.5.33-10"
    resumed = replace(observation, desired=replace(desired, version="3.5.33-10"), record=step.record)
    assert versions_of([decide(resumed).step]) == {"3.5.33-10"}


def test_a_lost_status_resumes_the_living_cluster():
    world = settle(cluster(3))
    lost = change_all(world, lambda each: True, seat=0)._replace(founded=False)
    steps, after = follow(lost)
    assert kinds(steps) == ["RecordResumed"]
    assert after == world


def test_a_lost_status_without_any_volume_founds_nothing():
    observation = observe(settle(cluster(1)))
    decision = decide(replace(observation, record=m.Record(), volumes=(), pods=()))
    assert (decision.step, decision.reason) == (m.Blocked(), "DataLost")


def test_a_lost_status_without_any_volume_deletes_no_pod():
    observation = observe(settle(cluster(1)))
    decision = decide(replace(observation, record=m.Record(), volumes=()))
    assert (decision.step, decision.reason) == (m.Blocked(), "DataLost")


# ---------------------------------------------------------------------------------------------- healing


def test_a_deleted_pod_is_created_again_on_its_volume_with_poison():
    steps, _ = follow(broken(cluster(3), pod=GONE, serving=False))
    assert kinds(steps) == ["CreatePods"]
    assert steps[0].pods[0].configuration is m.Configuration.POISONED
    assert steps[0].pods[0].serving


def test_all_lost_pods_are_created_at_the_same_time_without_a_quorum():
    world = change_all(cluster(3), lambda each: True, pod=GONE, serving=False)
    steps, _ = follow(world)
    assert len(steps[0].pods) == 3
    assert kinds(steps) == ["CreatePods"]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"pod": REFUSED, "volume": EMPTY}, id="wiped"),
        pytest.param({"pod": GONE, "volume": NONE, "seat": OTHER}, id="lost"),
        pytest.param({"pod": GONE, "volume": EMPTY, "seat": OTHER, "marked": False}, id="replaced"),
    ],
)
def test_a_lost_volume_means_remove_and_add(values):
    steps, world = follow(broken(cluster(3), **values))
    order = ["RemoveMember", "AddLearner", "Flip", "Promote", "Serve"]
    assert kinds(steps, *order) == order
    assert [each.role for each in world.members] == [VOTER] * 3


def test_a_terminating_volume_is_replaced_before_its_data_is_gone():
    steps, world = follow(broken(cluster(1), terminating=True))
    order = ["Promote", "MoveLeader", "RemoveMember"]
    assert kinds(steps, *order) == order
    assert not any(each.terminating for each in world.members)


def messages(world: World, reason: str) -> list[str]:
    """Returns the messages of the decisions with a reason, each once, until the plan stands still."""
    found: dict[str, None] = {}

    def seen(state: World) -> m.Observation:
        decision = decide(observation := observe(state))
        if decision.reason == reason:
            found[decision.message] = None
        return observation

    follow(world, seen=seen)
    return [*found]


@pytest.mark.parametrize("size", [1, 3])
def test_a_member_on_a_terminating_volume_is_reported_as_replaced(size):
    world = broken(cluster(size), terminating=True)
    doomed = next(each.name for each in observe(world).volumes if each.deleting)
    assert messages(world, "AddingMember")[0].endswith(f" to replace {doomed}.")
    removals = messages(world, "RemovingMember")
    assert removals
    for each in removals:
        assert " is replaced, because its PVC is being deleted: removing it from etcd." in each


def test_a_cluster_that_grows_while_a_volume_is_deleted_counts_all_voters():
    world = broken(cluster(1, size=3), terminating=True)
    assert messages(world, "AddingMember")[0].endswith(", because the cluster has 1 of 3 voters.")


def test_the_member_after_a_lost_one_is_not_reported_as_growth():
    world = broken(cluster(3), pod=GONE, volume=NONE, seat=OTHER)
    assert messages(world, "AddingMember")[0].endswith(", because the cluster has 2 of 3 voters.")


def test_a_member_with_an_emptydir_is_reported_as_replaced_when_the_spec_changes():
    world = cluster(3, ephemeral=True)
    pods = tuple(replace(each, shape="old") for each in observe(world).pods)
    assert " to replace " in decide(replace(observe(world), pods=pods)).message
    grown = cluster(3, size=2, ephemeral=True)
    pods = tuple(replace(each, shape="old") for each in observe(grown).pods)
    removed = decide(replace(observe(grown), pods=pods)).message
    assert " is replaced, because its data is in its pod, which differs from the spec: " in removed


def test_a_voter_whose_claim_is_lost_while_it_runs_is_reported_as_replaced():
    observation = observe(settle(cluster(3, size=2)))
    decision = decide(replace(observation, volumes=observation.volumes[1:]))
    assert "is replaced, because its volume is lost: removing it from etcd." in decision.message


@pytest.mark.parametrize("begun", range(1, 5))
def test_a_replacement_that_has_begun_goes_on_after_the_member_that_it_replaces_is_lost(begun):
    """A PVC is deleted, and its pod some time later: the second member that was prepared is not wasted."""
    world = broken(cluster(3), terminating=True)
    for _ in range(begun):
        observation = observe(world)
        after = carry_out(world, observation, decide(observation).step)
        world = after if after != world else next(progress(world), world)
    [doomed] = [i for i, each in enumerate(world.members) if each.terminating]
    steps, world = follow(change(world, doomed, pod=ENDING))
    created = kinds(steps, "CreateVolumes")
    assert len(created) == (1 if begun < 2 else 0)
    assert kinds(steps, "DeleteVolumes") == []
    order = ["RemoveMember", "AddLearner", "Promote", "Serve"]
    assert kinds(steps, *order) == order
    assert [each.role for each in world.members] == [VOTER] * 3


def test_a_prepared_seat_that_the_spec_no_longer_asks_for_is_deleted():
    world = broken(cluster(3), terminating=True)
    for _ in range(4):
        observation = observe(world)
        after = carry_out(world, observation, decide(observation).step)
        world = after if after != world else next(progress(world), world)
    [doomed] = [i for i, each in enumerate(world.members) if each.terminating]
    steps, world = follow(change(world, doomed, pod=ENDING)._replace(size=2))
    assert "AddLearner" not in kinds(steps)
    assert [each.role for each in world.members] == [VOTER] * 2


def test_a_majority_lost_with_its_volumes_is_blocked_and_names_the_survivors():
    world = cluster(3)
    for index in (0, 1):
        world = change(world, index, pod=GONE, volume=NONE, seat=OTHER)
    decision = decide(observe(settle(world)))
    assert (decision.step, decision.reason) == (m.Blocked(), "QuorumLost")
    assert "(revision 2)" in decision.message
    assert reasons(decision) >= {"VolumeLost", "MemberDown"}


def test_the_pod_of_a_learner_does_not_crash_until_the_quorum_is_recovered():
    """It cannot join, and its crashes would hide what is wrong. Nothing that has a vote is touched."""
    world = cluster(3, size=4)
    while not any(each.role == LISTED for each in world.members):
        observation = observe(world)
        after = carry_out(world, observation, decide(observation).step)
        world = after if after != world else next(progress(world))
    [learner] = [i for i, each in enumerate(world.members) if each.role == LISTED]
    world = change(world, learner, pod=CRASH)
    lost = [i for i, each in enumerate(world.members) if each.role == VOTER][:2]
    for index in lost:
        world = change(world, index, pod=GONE, volume=NONE, seat=OTHER)
    first = decide(observe(world))
    assert (first.reason, first.problems[0].reason) == ("NoQuorum", "QuorumLost")
    steps, after = follow(world)
    assert kinds(steps) == ["DeletePods"]
    assert decide(observe(after)).reason == "QuorumLost"
    assert sorted(each.pod for each in after.members) == sorted([GONE, GONE, GONE, UP])
    assert sum(each.volume == EMPTY for each in after.members) == 1


def test_a_lost_majority_is_reported_although_the_survivor_does_not_answer_yet():
    """A member that has restarted without a quorum accepts connections, and answers nothing."""
    world = cluster(3)
    for index in (0, 1):
        world = change(world, index, pod=GONE, volume=NONE, seat=OTHER)
    observation = observe(settle(world))
    silent = tuple(m.EndpointState(name=each.name) for each in observation.endpoints)
    assert decide(replace(observation, endpoints=silent)).reason == "QuorumLost"


@pytest.mark.parametrize(("seconds", "reason"), [(59, "NoQuorum"), (60, "QuorumLost")])
def test_a_member_that_may_be_removed_leaves_doubt_for_a_minute(seconds, reason):
    observation = observe(settle(change(cluster(2), 0, pod=GONE, volume=NONE, seat=OTHER)))
    lost = next(each for each in observation.record.seats if each.volume_uid == "other")
    claim = m.Claim(m.Action.REMOVE, lost.name, lost.member_id, since=NOW - timedelta(seconds=seconds))
    silent = tuple(m.EndpointState(name=each.name) for each in observation.endpoints)
    record = replace(observation.record, claim=claim)
    assert decide(replace(observation, record=record, endpoints=silent)).reason == reason


@pytest.mark.parametrize(("pod", "advised"), [(CRASH, True), (IMAGE, False)])
def test_a_majority_that_crashes_is_waited_for_and_the_commands_are_named(pod, advised):
    decision = decide(observe(settle(change(change(cluster(3), 1, pod=pod), 2, pod=pod))))
    assert (type(decision.step), decision.reason) == (m.Wait, "NoQuorum")
    assert (RECOVERY in decision.message) == advised
    # The survivor does not serve, which is only a symptom.
    cause = "MemberCrashing" if advised else "ImageUnavailable"
    assert [each.reason for each in decision.problems] == [cause, cause, "MemberDown"]


def test_refused_permissions_are_unknown_and_not_dead():
    decision = decide(replace(observe(cluster(3, blind=True)), blind="Auth is enabled."))
    assert (decision.step, decision.reason) == (m.Wait(5.0), "MembersHidden")
    assert decision.message == "Waiting until the operator can see the members. Auth is enabled."
    names = listed([each.name for each in observe(cluster(3)).record.seats])
    [problem] = decision.problems
    assert (problem.reason, problem.cause) == ("MemberUnknown", "Auth is enabled.")
    assert problem.message == f"The operator cannot see whether these members serve: {names}."


def test_members_that_certainly_do_not_run_are_no_quorum_although_the_others_are_hidden():
    observation = observe(settle(change(change(cluster(3), 0, pod=CRASH), 1, pod=CRASH)))
    decision = decide(replace(observation, blind="Auth is enabled."))
    assert (decision.step, decision.reason) == (m.Wait(5.0), "NoQuorum")
    assert "2 of 3 members must serve. Auth is enabled." in decision.message


def test_a_member_on_a_node_out_of_sight_is_waited_for():
    decision = decide(observe(broken(cluster(3), pod=AWAY)))
    assert decision.reason == "WaitingForMembers"


def crashing(since: timedelta, **values) -> Any:
    observation = observe(broken(cluster(3), pod=CRASH, **values))
    pods = tuple(
        replace(each, failing_since=NOW - since) if each.failure else each for each in observation.pods
    )
    return decide(replace(observation, pods=pods))


def test_a_crashing_member_is_replaced_after_five_minutes():
    assert crashing(timedelta(minutes=4, seconds=59)).reason == "WaitingForMembers"
    assert crashing(timedelta(minutes=5)).reason == "ReplacingMember"


def test_a_crashing_member_is_not_replaced_if_no_other_member_runs_what_it_runs():
    assert crashing(timedelta(hours=1), version=2).reason != "ReplacingMember"


def test_a_crashing_member_whose_peer_url_a_user_has_changed_is_not_replaced():
    """The reason can be the peer URL, which a new member would not correct."""
    assert crashing(timedelta(hours=1)).reason == "ReplacingMember"
    assert crashing(timedelta(hours=1), moved=True).reason == "WaitingForMembers"


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("count", ["one", "all"])
def test_pods_that_have_ended_are_created_again_at_the_same_time_on_their_volumes(size, count):
    ended = size if count == "all" else 1
    world = cluster(size)
    for index in range(ended):
        world = change(world, index, pod=ENDED)
    world = settle(world)
    assert {each.reason for each in decide(observe(world)).problems} >= {"PodEnded"}
    steps, after = follow(world)
    deletion, *creations = steps
    assert (type(deletion), len(deletion.names)) == (m.DeletePods, ended)
    pods = [each for creation in creations for each in creation.pods]
    assert [each.configuration for each in pods] == [m.Configuration.POISONED] * ended
    assert [each.role for each in after.members] == [VOTER] * size


def with_ended(world: World, age: timedelta, **values) -> Any:
    observation = observe(settle(world))
    pods = tuple(
        replace(each, created=NOW - age, failing_since=NOW - timedelta(hours=1), **values)
        if each.failure
        else each
        for each in observation.pods
    )
    return decide(replace(observation, pods=pods))


def test_a_pod_that_ends_soon_after_its_creation_is_created_again_after_a_pause():
    world, detail = change(cluster(3), 0, pod=ENDED), "OutOfcpu: not enough cpu"
    early = with_ended(world, timedelta(seconds=29), detail=detail)
    assert (type(early.step), early.reason) == (m.Wait, "WaitingForMembers")
    [problem] = early.problems
    assert problem.reason == "PodEnded"
    assert problem.message.endswith(f" has ended: {detail}.")
    later = with_ended(world, timedelta(seconds=30), detail=detail)
    assert (type(later.step), later.reason) == (m.DeletePods, "RecreatingPods")
    assert detail in later.message


def test_a_majority_of_rejected_pods_waits_without_advice_to_give_up_data():
    world = change(change(cluster(3), 0, pod=ENDED), 1, pod=ENDED)
    decision = with_ended(world, timedelta(seconds=1))
    assert (type(decision.step), decision.reason) == (m.Wait, "NoQuorum")
    assert RECOVERY not in decision.message


def test_the_pod_of_a_founding_or_of_a_learner_that_has_ended_is_created_again():
    for start, ready in (
        (unfounded(3), lambda world: world.phase is m.Phase.STARTING and world.members[0].pod == NEW),
        (cluster(3, size=4), lambda world: any(each.role == LISTED for each in world.members)),
        (cluster(3, size=4), lambda world: any(each.claim and each.pod == NEW for each in world.members)),
    ):
        world = settle(start)
        while not ready(world):
            after = carry_out(world, observe(world), decide(observe(world)).step)
            world = after if after != world else next(progress(world))
        victim = next(i for i, each in enumerate(world.members) if each.pod == NEW or each.role == LISTED)
        steps, after = follow(change(world, victim, pod=ENDED))
        assert {*kinds(steps, "DeletePods", "DeleteVolumes", "RemoveMember")} == {"DeletePods"}
        assert [each.role for each in after.members] == [VOTER] * start.size


def test_the_data_of_a_pod_with_emptydir_that_has_ended_is_lost():
    steps, world = follow(broken(cluster(3, ephemeral=True), pod=ENDED, volume=EMPTY))
    assert kinds(steps, "RemoveMember", "DeletePods", "Promote") == ["RemoveMember", "DeletePods", "Promote"]
    assert [each.role for each in world.members] == [VOTER] * 3


def test_a_rejected_pod_with_emptydir_is_not_followed_by_the_next_one_immediately():
    world = settle(cluster(3, size=4, ephemeral=True))
    while not any(each.claim and each.pod == NEW for each in world.members):
        world = carry_out(world, observe(world), decide(observe(world)).step)
    joining = next(i for i, each in enumerate(world.members) if each.claim)
    world = change(world, joining, pod=ENDED)
    assert isinstance(with_ended(world, timedelta(seconds=29)).step, m.Wait)
    assert isinstance(with_ended(world, timedelta(seconds=30)).step, m.DeletePods)
    abandoned = settle(unfounded(1, ephemeral=True))
    while not any(each.pod == NEW for each in abandoned.members):
        abandoned = carry_out(abandoned, observe(abandoned), decide(observe(abandoned)).step)
    abandoned = change(abandoned, 0, pod=ENDED, seat=OWN)._replace(phase=m.Phase.ABANDONING)
    assert isinstance(with_ended(abandoned, timedelta(seconds=29)).step, m.Wait)
    assert isinstance(with_ended(abandoned, timedelta(seconds=30)).step, m.DeletePods)


def test_a_member_that_a_user_has_added_is_reported_and_never_removed():
    steps, world = follow(cluster(3, stranger=VOTER))
    assert "RemoveMember" not in kinds(steps)
    assert "MembersAddedByUser" in reasons(decide(observe(world)))


def test_a_quorum_that_is_lost_because_of_a_user_s_voter_names_it_and_what_to_do():
    observation = observe(settle(change(cluster(3, stranger=VOTER), 0, pod=GONE, volume=NONE, seat=OTHER)))
    assert observation.members is None
    own = tuple(m.MemberState(seat.member_id, seat.name) for seat in observation.record.seats)
    learner = m.MemberState(98, "", learner=True, started=False)
    voter = m.MemberState(99, "", started=False, urls=("http://stranger.example:2380",))
    decision = decide(replace(observation, recalled=(*own, learner, voter)))
    assert (type(decision.step), decision.reason) == (m.Wait, "NoQuorum")
    assert "3 of 4 members must serve. A user has added these voters: 63." in decision.message
    [problem] = [each for each in decision.problems if each.reason == "MembersAddedByUser"]
    assert "63 (http://stranger.example:2380)" in problem.message
    assert "etcdctl member remove 63. If there will be no quorum" in problem.message
    assert RECOVERY in problem.message


def test_the_members_that_voters_recall_decide_nothing():
    observation = observe(settle(change(change(cluster(3), 0, pod=NEW), 1, pod=NEW)))
    own = tuple(m.MemberState(seat.member_id, seat.name) for seat in observation.record.seats)
    without, recalled = decide(observation), decide(replace(observation, recalled=own))
    assert without == recalled


def test_the_learner_of_a_killed_operator_is_adopted():
    world = cluster(1, size=2)
    while not isinstance(step := decide(observe(world)).step, m.AddLearner):
        after = carry_out(world, observe(world), step)
        world = after if after != world else next(progress(world))
    world = carry_out(world, observe(world), step)
    without_claim = change_all(world, lambda each: True, claim=None)
    steps, after = follow(without_claim)
    assert "RemoveMember" not in kinds(steps)
    assert len(after.members) == 2


def test_another_cluster_id_stops_everything():
    observation = observe(cluster(3))
    endpoints = (replace(observation.endpoints[0], cluster_id=8), *observation.endpoints[1:])
    other = replace(observation, endpoints=endpoints)
    assert decide(other).step == m.Unserve((observation.endpoints[0].name,))
    pods = (replace(other.pods[0], serving=False), *other.pods[1:])
    decision = decide(replace(other, pods=pods))
    assert (decision.step, decision.reason) == (m.Blocked(), "OtherCluster")
    assert "until that member's pod and PVC are deleted" in decision.message


@pytest.mark.parametrize(
    ("count", "belongs", "deleted"),
    [
        (1, " does not belong to the cluster ", "until that member's pod and PVC are deleted."),
        (2, " do not belong to the cluster ", "until the pods and PVCs of those members are deleted."),
    ],
)
def test_sentences_agree_with_the_number_of_members(count, belongs, deleted):
    observation = observe(cluster(3))
    endpoints = [
        replace(each, cluster_id=8) if i < count else each for i, each in enumerate(observation.endpoints)
    ]
    other = replace(observation, endpoints=(*endpoints,))
    names = ", ".join(each.name for each in endpoints[:count])
    words = f"Taking pods that are not voters of this cluster out of the client Service: {names}."
    assert decide(other).message == words
    pods = [replace(each, serving=False) for each in other.pods]
    message = decide(replace(other, pods=(*pods,))).message
    assert message.startswith(names + belongs)
    assert deleted in message
    assert ", which the status records, but to 8." in message


def test_missing_pods_are_named_in_a_sentence_for_any_number():
    world = change(cluster(3), 0, pod=GONE)
    message = decide(observe(world)).message
    assert (
        message == f"Creating missing pods again on their volumes: {observe(cluster(3)).endpoints[0].name}."
    )


def test_a_member_list_of_another_cluster_stops_everything():
    """The member that returned it may have restarted since it answered Status."""
    decision = decide(replace(observe(broken(cluster(3), pod=AWAY)), members_cluster_id=8))
    assert (decision.step, decision.reason) == (m.Blocked(), "OtherCluster")


def test_the_service_is_not_marked_before_a_volume_is():
    """A mark without marked volumes would refuse the founding that follows a lost status."""
    world = change_all(cluster(3), lambda each: True, marked=False, fresh=False, ran=-1, serving=False)
    observation = observe(settle(world._replace(traced=False)))
    unlisted = replace(observation, members=None, members_cluster_id=0)
    assert isinstance(decide(unlisted).step, m.Wait)
    marked = replace(unlisted, volumes=observe(settle(cluster(3))).volumes)
    assert isinstance(decide(marked).step, m.MarkService)


def test_a_snapshot_that_was_restored_onto_the_volumes_is_not_to_be_deleted():
    observation = observe(cluster(3))
    endpoints = tuple(replace(each, cluster_id=8) for each in observation.endpoints)
    pods = tuple(replace(each, serving=False) for each in observation.pods)
    decision = decide(replace(observation, endpoints=endpoints, pods=pods, members_cluster_id=8))
    assert (decision.step, decision.reason) == (m.Blocked(), "OtherCluster")
    assert "do not delete them" in decision.message
    assert "are deleted" not in decision.message
    assert OTHER_CLUSTER not in decision.message


def test_a_status_that_alone_has_another_cluster_id_is_probably_edited():
    observation = observe(cluster(3))
    pods = tuple(replace(each, serving=False) for each in observation.pods)
    edited = replace(observation.record, cluster_id=8)
    decision = decide(replace(observation, record=edited, pods=pods))
    assert (decision.step, decision.reason) == (m.Blocked(), "OtherCluster")
    assert "the cluster 8, which the status records, but to 7." in decision.message
    assert "edited or restored status.record.clusterID" in decision.message
    assert OTHER_CLUSTER in decision.message


# ------------------------------------------------------------------------------------------- lost labels


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("pod", [UP, NEW, GONE])
def test_a_volume_that_has_lost_its_label_is_not_lost(size, pod):
    observation = observe(broken(cluster(size), pod=pod))
    names = [each.name for each in observation.volumes]
    for name in names:
        volumes = tuple(replace(each, unlabelled=each.name == name) for each in observation.volumes)
        before, after = decide(observation), decide(replace(observation, volumes=volumes))
        assert after.step == before.step
        [problem] = [each for each in after.problems if each.reason == "LabelMissing"]
        assert problem.message.endswith(
            "Put its labels back: kubectl label --overwrite -n default pvc "
            f"{name} app=etcd etcd_cluster=c etcd_node={name}"
        )
        assert reasons(after) - {"LabelMissing"} == reasons(before)


def test_a_volume_without_its_label_is_neither_annotated_nor_deleted():
    observation = observe(settle(change_all(cluster(3), lambda each: True, fresh=False)))
    first, *others = observation.volumes
    step = decide(replace(observation, volumes=(replace(first, unlabelled=True), *others))).step
    assert isinstance(step, m.MarkVolumes)
    assert [each.name for each in step.marks] == [each.name for each in others]
    alone = m.VolumeState(
        name=member_name("c", "uid", 1, 40), uid="x", owner="uid", incarnation=1, unlabelled=True
    )
    settled = observe(settle(cluster(3, delete=True)))
    assert decide(replace(settled, volumes=(*settled.volumes, alone))).step == m.Settled()
    shown = replace(settled, volumes=(*settled.volumes, replace(alone, unlabelled=False)))
    assert decide(shown).step == m.DeleteVolumes((alone.name,))


@pytest.mark.parametrize("values", [{"deleting": True}, {"uid": "another", "started": False}])
def test_a_volume_without_its_label_that_is_being_deleted_or_another_one_is_replaced(values):
    observation = observe(broken(cluster(3), pod=GONE))
    [name] = {each.name for each in observation.volumes} - {each.name for each in observation.pods}
    volumes = tuple(
        replace(each, unlabelled=True, **values) if each.name == name else each
        for each in observation.volumes
    )
    decision = decide(replace(observation, volumes=volumes))
    assert decision.reason == "ReplacingMember"
    assert "LabelMissing" not in reasons(decision)


def unlabelled_pod(observation: m.Observation, name: str, **values: Any) -> m.Observation:
    lost = {"unlabelled": True, "serving": False, "addressed": False, **values}
    pods = tuple(replace(each, **lost) if each.name == name else each for each in observation.pods)
    return replace(observation, pods=pods)


def test_a_pod_that_has_lost_its_label_is_not_created_again_or_changed():
    observation = observe(settle(cluster(3)))
    name = observation.pods[0].name
    decision = decide(unlabelled_pod(observation, name))
    assert decision.step == m.Settled()
    [problem] = decision.problems
    assert problem.message.endswith(
        f"kubectl label --overwrite -n default pod {name} app=etcd etcd_cluster=c etcd_node={name}"
    )
    joining = unlabelled_pod(observation, name, configuration=m.Configuration.JOINING)
    assert decide(joining).step == m.Settled()
    # Its PVC may have lost it, too.
    volumes = tuple(replace(each, unlabelled=each.name == name) for each in observation.volumes)
    decision = decide(replace(unlabelled_pod(observation, name), volumes=volumes))
    assert (decision.step, len(decision.problems)) == (m.Settled(), 2)


def test_an_upgrade_waits_for_the_label_of_a_pod():
    observation = observe(settle(cluster(3, target=1)))
    for pod in observation.pods:
        decision = decide(unlabelled_pod(observation, pod.name))
        assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForMembers")


def test_a_failing_pod_without_its_label_is_not_patched():
    observation = observe(broken(cluster(3, target=1), pod=IMAGE, version=BAD))
    [failing] = [each.name for each in observation.pods if each.failure]
    assert isinstance(decide(observation).step, m.Announce)
    assert isinstance(decide(unlabelled_pod(observation, failing)).step, m.Wait)


def test_a_learner_without_its_labels_gets_no_vote():
    world = settle(cluster(3, size=4))
    while not isinstance(decide(observe(world)).step, m.Flip):
        after = carry_out(world, observe(world), decide(observe(world)).step)
        world = after if after != world else next(progress(world))
    observation = observe(world)
    [learner] = [each.name for each in observation.members or () if each.learner]
    volumes = tuple(replace(each, unlabelled=each.name == learner) for each in observation.volumes)
    for seen in (unlabelled_pod(observation, learner), replace(observation, volumes=volumes)):
        decision = decide(seen)
        assert (type(decision.step), decision.reason) == (m.Wait, "AddingMember")
        assert "LabelMissing" in reasons(decision)


def test_a_prepared_pod_without_its_label_is_created_again():
    world = settle(cluster(3, size=4))
    while not any(each.claim and each.pod == NEW for each in world.members):
        after = carry_out(world, observe(world), decide(observe(world)).step)
        world = after if after != world else next(progress(world))
    observation = observe(world)
    name = observation.record.claim.name if observation.record.claim else ""
    assert decide(unlabelled_pod(observation, name)).step == m.DeletePods((name,))


# --------------------------------------------------------------------------------------------- resizing


def test_a_new_member_is_a_learner_first_and_serves_last():
    steps, _ = follow(cluster(3, size=4))
    order = ["CreateVolumes", "AddLearner", "Flip", "Promote", "RecordSeats", "Serve"]
    assert kinds(steps, *order) == order


def test_scaling_in_keeps_the_leader_and_the_data():
    world = settle(cluster(3, size=1))
    leader = next(i for i, each in enumerate(world.members) if each.leads)
    steps, _ = follow(world)
    removed = [each.name for each in steps if isinstance(each, m.RemoveMember)]
    order = ["Unserve", "RemoveMember", "DeletePods"]
    assert kinds(steps, *order, "DeleteVolumes") == order * 2
    assert observe(world).pods[leader].name not in removed[:1]
    assert sum(isinstance(each, m.MarkVolumes) and each.marks[0].removed for each in steps) == 2


def test_scaling_in_deletes_the_data_if_the_spec_says_so_and_etcd_has_confirmed():
    steps, _ = follow(cluster(3, size=1, delete=True))
    found = kinds(steps, "RemoveMember", "DeleteVolumes")
    assert (found[0], found.count("DeleteVolumes")) == ("RemoveMember", 2)


def test_retained_volumes_of_removed_members_are_never_used_or_deleted():
    observation = observe(settle(cluster(1)))
    old = replace(observation.volumes[0], name=member_name("c", "uid", 1, 40), uid="old", removed=True)
    desired = replace(observation.desired, size=2, delete_scaled=True)
    record = replace(observation.record, next_member=40)
    step = decide(
        replace(observation, volumes=(*observation.volumes, old), desired=desired, record=record)
    ).step
    claim = m.Claim(m.Action.ADD, member_name("c", "uid", 1, 41), since=NOW)
    assert step == m.Announce(replace(record, claim=claim, next_member=42))


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("cluster_id", [7, 0])
def test_a_volume_is_not_deleted_if_etcd_lists_its_member_under_another_name(delete, cluster_id):
    """A user has copied the volume with its annotations, or with some of them."""
    observation = observe(settle(cluster(3, delete=delete)))
    name = member_name("c", "uid", 1, 40)
    copy = replace(observation.volumes[0], name=name, uid="copy", cluster_id=cluster_id)
    decision = decide(replace(observation, volumes=(*observation.volumes, copy)))
    assert decision.step == m.Settled()
    other = replace(copy, member_id=9)
    decision = decide(replace(observation, volumes=(*observation.volumes, other)))
    assert isinstance(decision.step, m.DeleteVolumes if delete else m.MarkVolumes)


def test_a_learner_gets_no_vote_while_too_few_voters_serve():
    world = settle(cluster(3, size=4))
    while not isinstance((step := decide(observe(world)).step), m.Promote):
        after = carry_out(world, observe(world), step)
        world = after if after != world else next(progress(world))
    voter = next(i for i, each in enumerate(world.members) if each.role == VOTER and not each.leads)
    decision = decide(observe(settle(change(world, voter, pod=AWAY))))
    assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForQuorum")


def test_a_member_name_is_the_same_after_a_crash_and_differs_between_incarnations():
    observation = observe(cluster(1))
    assert new_names(observation, 1, 3) == new_names(observation, 1, 3)
    assert not {*new_names(observation, 1, 3)[0]} & {*new_names(observation, 2, 3)[0]}


# -------------------------------------------------------------------------------------------- upgrading


def test_an_upgrade_patches_followers_first_and_the_leader_last():
    world = settle(cluster(3, target=1))
    leader = next(observe(world).pods[i].name for i, each in enumerate(world.members) if each.leads)
    steps, after = follow(world)
    patched = [each for each in steps if isinstance(each, m.PatchImage)]
    assert len(patched) == 3
    assert patched[0].name != leader
    assert "DeletePods" not in kinds(steps)
    assert {each.version for each in after.members} == {1}


def test_a_change_of_the_shape_creates_the_pods_again_one_by_one():
    steps, _ = follow(change_all(cluster(3), lambda each: True, shaped=False))
    assert kinds(steps, "DeletePods", "CreatePods") == ["DeletePods", "CreatePods"] * 3


@pytest.mark.parametrize(("claim", "version"), [(m.Action.RESTART, "3.6.14"), (None, "3.5.33")])
def test_a_pod_that_is_created_again_has_the_new_version_only_if_its_restart_was_claimed(claim, version):
    decision = decide(observe(broken(cluster(3, target=1), pod=GONE, leads=False, claim=claim)))
    assert isinstance(decision.step, m.CreatePods)
    assert [each.version for each in decision.step.pods] == [version]


def test_several_minors_are_walked_one_by_one():
    steps, _ = follow(cluster(3, target=2))
    versions = [each.version for each in steps if isinstance(each, m.PatchImage)]
    assert versions == ["3.6.14"] * 3 + ["3.7.1"] * 3


def test_a_minor_upgrade_begins_with_the_patch_release_that_it_needs():
    observation = observe(settle(cluster(3, target=1)))
    old = "3.5.0"
    pods = tuple(replace(each, version=old) for each in observation.pods)
    volumes = tuple(replace(each, version=old) for each in observation.volumes)
    endpoints = tuple(replace(each, version=old) for each in observation.endpoints)
    decision = decide(replace(observation, pods=pods, volumes=volumes, endpoints=endpoints))
    assert decision.step.record.claim.version == "3.5.33"


def tagged(world: World, version: str, recorded: str, wanted: str = "") -> m.Observation:
    """A cluster whose pods have a version with a suffix. etcd reports the release alone."""
    observation = observe(settle(world))
    return replace(
        observation,
        desired=replace(observation.desired, version=wanted or version),
        pods=tuple(replace(each, version=version) for each in observation.pods),
        volumes=tuple(replace(each, version=recorded) for each in observation.volumes),
        endpoints=tuple(
            replace(each, version=version.partition("-")[0] if each.version else "")
            for each in observation.endpoints
        ),
    )


def versions_of(steps: list[Any]) -> set[str]:
    """Returns the versions of the pods that the steps create."""
    return {pod.version for each in steps if isinstance(each, m.CreatePods) for pod in each.pods}


def test_the_annotated_version_has_the_suffix_of_the_image_that_runs():
    observation = tagged(cluster(3), "3.5.33-0", "3.5.33")
    step = decide(observation).step
    assert isinstance(step, m.MarkVolumes)
    assert {each.version for each in step.marks} == {"3.5.33-0"}
    # The patched image has not started yet.
    patched = tuple(replace(each, version="3.5.33-1", patched=True) for each in observation.pods)
    assert isinstance(decide(replace(observation, pods=patched)).step, m.Wait)
    volumes = tuple(replace(each, version="3.5.33-0") for each in observation.volumes)
    assert isinstance(decide(replace(observation, pods=patched, volumes=volumes)).step, m.Wait)


@pytest.mark.parametrize("recorded", ["3.5.33", "3.5.33-0"])
@pytest.mark.parametrize("wanted", ["3.5.33-0", "3.6.14-0", "3.5.33-typo"])
def test_a_pod_is_created_again_with_the_tag_that_ran(recorded, wanted):
    observation = tagged(broken(cluster(3), pod=GONE), "3.5.33-0", recorded, wanted)
    decision = decide(observation)
    if isinstance(decision.step, m.MarkVolumes):
        marked = {each.name: each.version for each in decision.step.marks}
        volumes = tuple(
            replace(each, version=marked.get(each.name, each.version)) for each in observation.volumes
        )
        decision = decide(replace(observation, volumes=volumes))
    assert versions_of([decision.step]) == {"3.5.33-0"}


@pytest.mark.parametrize(("recorded", "wanted"), [("3.5.33-0", "3.6.14-0"), ("3.5.33", "3.5.33-0")])
def test_all_pods_are_created_again_with_the_recorded_tag_or_that_of_the_spec(recorded, wanted):
    world = change_all(cluster(3), lambda each: True, pod=GONE, serving=False)
    assert versions_of([decide(tagged(world, "3.5.33-0", recorded, wanted)).step]) == {"3.5.33-0"}


def test_a_tag_that_is_being_tried_is_not_used_for_all_pods():
    world = change_all(cluster(3), lambda each: True, pod=GONE, serving=False)
    observation = tagged(change(world, 1, claim=m.Action.RESTART), "3.5.33-typo", "3.5.33")
    claim = observation.record.claim
    assert claim
    claim = replace(claim, version="3.5.33-typo")
    decision = decide(replace(observation, record=replace(observation.record, claim=claim)))
    versions = {pod.name: pod.version for pod in decision.step.pods}
    assert versions.pop(claim.name) == "3.5.33-typo"
    assert {*versions.values()} == {"3.5.33"}


@pytest.mark.parametrize(
    ("wanted", "joins"),
    [("3.5.33-0", "3.5.33-0"), ("3.5.33-typo", "3.5.33-0"), ("3.6.14-0", "3.5.33-0")],
)
def test_a_new_member_gets_the_tag_that_a_voter_runs(wanted, joins):
    observation = tagged(cluster(3, size=4), "3.5.33-0", "3.5.33-0", wanted)
    step = decide(observation).step
    assert isinstance(step, m.Announce)
    assert step.record.claim
    name = step.record.claim.name
    prepared = m.VolumeState(name=name, uid="n", owner=observation.uid, incarnation=1)
    observation = replace(observation, record=step.record, volumes=(*observation.volumes, prepared))
    assert versions_of([decide(observation).step]) == {joins}


def test_a_new_member_gets_the_tag_of_the_spec_if_the_repository_is_another_one():
    """The shape has the repository. No voter has shown that it has the tag without a suffix."""
    world = change_all(cluster(3, size=4), lambda each: True, shaped=False)
    observation = tagged(world, "3.5.33", "3.5.33", "3.5.33-0")
    claim = m.Claim(m.Action.ADD, name := member_name("c", "uid", 1, 40), since=NOW)
    prepared = m.VolumeState(name=name, uid="n", owner=observation.uid, incarnation=1)
    record = replace(observation.record, claim=claim)
    observation = replace(observation, record=record, volumes=(*observation.volumes, prepared))
    assert versions_of([decide(observation).step]) == {"3.5.33-0"}


@pytest.mark.parametrize("recorded", ["3.5.33", "3.5.33-0"])
@pytest.mark.parametrize("failure", [m.Failure.CRASH, m.Failure.PENDING])
def test_a_member_with_a_suffix_that_is_down_begins_no_minor_upgrade(recorded, failure):
    observation = tagged(broken(cluster(3), pod=CRASH), "3.5.33-0", recorded, "3.6.14-0")
    failing = {"failure": failure, "failing_since": NOW - timedelta(seconds=30)}
    pods = tuple(replace(each, **failing) if each.failure else each for each in observation.pods)
    volumes = tuple(
        each if pod.failure else replace(each, version="3.5.33-0")
        for each, pod in zip(observation.volumes, pods, strict=True)
    )
    decision = decide(replace(observation, pods=pods, volumes=volumes))
    assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForMembers")


def test_a_mistyped_suffix_does_not_keep_a_member_down_after_an_edit_to_the_next_minor():
    observation = tagged(broken(cluster(3), pod=IMAGE), "3.5.33-0", "3.5.33-0", "3.6.14-0")
    pods = tuple(replace(each, version="3.5.33-typo") if each.failure else each for each in observation.pods)
    [failing] = [each.name for each in pods if each.failure]
    decision = decide(observation := replace(observation, pods=pods))
    assert decision.step.record.claim.version == "3.5.33-0"
    step = decide(replace(observation, record=decision.step.record)).step
    assert step == m.PatchImage(failing, "3.5.33-0")


@pytest.mark.parametrize(("before", "after"), [("3.5.33", "3.5.33-1"), ("3.5.33-1", "3.5.33")])
def test_a_change_of_the_suffix_is_a_rolling_change_of_the_image(before, after):
    observation = tagged(cluster(3), before, before, after)
    patched = []
    while isinstance(step := decide(observation).step, m.Announce):
        assert decide(observation).problems == ()
        observation = replace(observation, record=step.record)
        step = decide(observation).step
        assert isinstance(step, m.PatchImage)
        assert step.version == after
        patched.append(step.name)
        observation = replace(
            observation,
            pods=tuple(
                replace(each, version=after) if each.name == step.name else each for each in observation.pods
            ),
            volumes=tuple(
                replace(each, version=after) if each.name == step.name else each
                for each in observation.volumes
            ),
        )
        if len(patched) == 3:
            break
    assert sorted(patched) == [each.name for each in observation.pods]
    final = replace(observation, record=replace(observation.record, claim=None))
    assert decide(final).step == m.Settled()


def test_a_step_of_an_upgrade_keeps_the_suffix_of_members_that_have_taken_it():
    observation = tagged(cluster(3), "3.5.33-0", "3.5.33-0", "3.7.1-0")
    first, *others = observation.pods
    pods = (replace(first, version="3.6.14-0"), *others)
    volumes = (replace(observation.volumes[0], version="3.6.14-0"), *observation.volumes[1:])
    endpoints = (replace(observation.endpoints[0], version="3.6.14"), *observation.endpoints[1:])
    decision = decide(replace(observation, pods=pods, volumes=volumes, endpoints=endpoints))
    assert decision.step.record.claim.version == "3.6.14-0"
    assert decision.step.record.claim.name != first.name


def test_the_next_step_of_the_same_minor_does_not_wait_although_its_suffix_has_changed():
    world = settle(change_all(cluster(2), lambda each: True))
    observation = tagged(world, "3.5.33-0", "3.5.33-0", "3.6.14-1")
    claim = m.Claim(m.Action.RESTART, observation.pods[0].name, 0, "3.6.14-0", True, NOW)
    decision = decide(replace(observation, record=replace(observation.record, claim=claim)))
    assert decision.step.record.claim.version == "3.6.14-1"


def test_the_next_minor_waits_until_etcd_has_raised_its_cluster_version():
    world = settle(change_all(cluster(1, target=2), lambda each: True, version=1, binary=1, ran=1))
    observation = observe(world)
    name = observation.pods[0].name
    for seconds, waits in ((14, True), (15, False)):
        claim = m.Claim(m.Action.RESTART, name, 0, "3.6.14", True, NOW - timedelta(seconds=seconds))
        decision = decide(replace(observation, record=replace(observation.record, claim=claim)))
        assert isinstance(decision.step, m.Wait) == waits


def test_a_policy_that_stops_at_each_minor_asks_for_the_next_one():
    observation = observe(cluster(3, target=2))
    decision = decide(replace(observation, desired=replace(observation.desired, automatic=False)))
    assert decision.step == m.Settled()
    assert reasons(decision) == {"UpgradeStepRequired"}


def test_a_downgrade_is_refused_with_the_reason():
    world = settle(change_all(cluster(3), lambda each: True, version=1, binary=1, ran=1))
    decision = decide(observe(world))
    assert decision.step == m.Settled()
    assert reasons(decision) == {"DowngradeRefused"}


def test_a_failing_member_stops_the_upgrade_and_gets_the_corrected_version_first():
    steps, world = follow(cluster(3, target=BAD))
    assert kinds(steps) == ["Announce", "PatchImage"]
    assert "ImageUnavailable" in reasons(decide(observe(world)))
    failing = next(observe(world).pods[i].name for i, each in enumerate(world.members) if each.pod == IMAGE)
    for target in (0, 1):
        steps, after = follow(world._replace(target=target))
        first = next(each for each in steps if isinstance(each, m.PatchImage))
        assert first.name == failing
        assert {each.version for each in after.members} == {target}


@pytest.mark.parametrize("failure", [m.Failure.CRASH, m.Failure.IMAGE])
def test_a_pod_that_keeps_a_terminating_volume_is_not_created_again_with_the_corrected_spec(failure):
    observation = observe(broken(cluster(1), terminating=True, pod=IMAGE, shaped=False))
    (pod,) = observation.pods
    decision = decide(replace(observation, pods=(replace(pod, failure=failure),)))
    assert isinstance(decision.step, m.Wait)
    assert decision.reason == "NoQuorum"
    assert f"The PVCs of {pod.name} are being deleted, and only their pods keep the data" in decision.message


def test_a_member_that_keeps_a_terminating_volume_is_removed_with_a_quorum():
    steps, world = follow(broken(cluster(3), terminating=True, pod=IMAGE, version=BAD, shaped=False))
    assert kinds(steps, "RemoveMember", "DeletePods")[:2] == ["RemoveMember", "DeletePods"]
    assert len(world.members) == 3


def with_crash(world: World, seconds: float, **values: Any) -> Any:
    observation = observe(settle(world))
    values["failing_since"] = NOW - timedelta(seconds=seconds)
    pods = [replace(each, **values) if each.failure else each for each in observation.pods]
    return decide(replace(observation, pods=tuple(pods))).step


@pytest.mark.parametrize("claim", [None, m.Action.RESTART])
@pytest.mark.parametrize("damaged", [False, True])
def test_a_damaged_member_does_not_get_an_edited_spec_but_is_replaced(claim, damaged):
    """If etcd does not name its data as the reason, a member that was restarted last gets the edited spec."""
    world = change_all(cluster(3), lambda each: True, shaped=False)
    world = broken(world, pod=CRASH, volume=CORRUPT, claim=claim)
    step = with_crash(world, 30, damaged=damaged)
    if claim and not damaged:
        assert isinstance(step, m.DeletePods)
    else:
        assert isinstance(step, m.Wait)
        assert "RemoveMember" in kinds(follow(world)[0])


@pytest.mark.parametrize("damaged", [False, True])
def test_two_damaged_members_of_five_are_replaced_if_etcd_names_the_reason(damaged):
    """Otherwise, the reason can be one that they share."""
    world = change(broken(cluster(5), pod=CRASH, volume=CORRUPT), 1, pod=CRASH, volume=CORRUPT)
    step = with_crash(world, 300, damaged=damaged)
    assert isinstance(step, m.Announce) == damaged
    steps, after = follow(settle(world))
    changes = ["RemoveMember", "AddLearner", "Promote"]
    assert sorted(kinds(steps, *changes)) == sorted(changes * 2)
    assert [each.volume for each in after.members] == [DATA] * 5


@pytest.mark.parametrize("values", [{"version": 1}, {"shaped": False}], ids=["version", "shape"])
def test_a_member_that_is_damaged_during_its_own_restart_is_replaced(values):
    """No other member runs what it runs, so only the words of etcd show that the spec is not the reason."""
    others = {"shaped": False} if "shaped" in values else {}
    world = change_all(cluster(3, target=values.get("version", 0)), lambda each: True, **others)
    restarted = {"shaped": True} if others else values
    world = broken(world, pod=CRASH, volume=CORRUPT, claim=m.Action.RESTART, **restarted)
    for seconds, damaged, replaced in ((299, True, False), (300, True, True), (3600, False, False)):
        step = with_crash(world, seconds, damaged=damaged)
        claim = step.record.claim if isinstance(step, m.Announce) else None
        announced = claim is not None and claim.action is m.Action.REMOVE
        assert announced == replaced
    steps, after = follow(world)
    assert kinds(steps, "RemoveMember", "AddLearner", "Promote") == ["RemoveMember", "AddLearner", "Promote"]
    assert [each.volume for each in after.members] == [DATA] * 3


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("health", [m.Signal.UNHEALTHY, m.Signal.UNKNOWN])
@pytest.mark.parametrize(("seconds", "corrected"), [(59, False), (60, True)])
def test_a_corrected_shape_reaches_the_restarted_member_that_runs_but_does_not_serve(
    size, health, seconds, corrected
):
    world = broken(
        cluster(size, announced=size < 3), pod=HANGS, shaped=False, leads=False, claim=m.Action.RESTART
    )
    observation = observe(world)
    [hangs] = [each.name for each in observation.pods if not each.ready]

    def decision(**values: Any) -> Any:
        pods = tuple(
            replace(each, **({"unready_since": NOW - timedelta(seconds=seconds)} | values))
            if each.name == hangs
            else each
            for each in observation.pods
        )
        endpoints = tuple(
            m.EndpointState(name=hangs, health=health) if each.name == hangs else each
            for each in observation.endpoints
        )
        return decide(replace(observation, pods=pods, endpoints=endpoints))

    assert isinstance(decision().step, m.DeletePods if corrected else m.Wait)
    assert isinstance(decision(shape="new").step, m.Wait)
    assert isinstance(decision(node=m.Signal.UNKNOWN).step, m.Wait)
    other = replace(observation.record, claim=None)
    assert isinstance(decide(replace(observation, record=other)).step, m.Wait)


def test_a_member_that_does_not_serve_is_not_restarted_without_a_quorum_of_the_others():
    world = change(cluster(3), 0, pod=HANGS, shaped=False, leads=False, claim=m.Action.RESTART)
    world = settle(change(world, 1, pod=AWAY))
    assert isinstance(decide(observe(world)).step, m.Wait)


def test_one_and_two_voters_announce_the_interruption_first():
    for size in (1, 2):
        decision = decide(observe(settle(cluster(size, target=1))))
        assert kinds([decision.step]) == ["Announce"]
        assert decision.step.record.claim.interrupts
        assert "Clients may notice an interruption" in decision.message
    decision = decide(observe(settle(cluster(3, target=1))))
    assert not decision.step.record.claim.interrupts


def test_an_upgrade_waits_for_every_member():
    for pod in (NEW, ENDING, AWAY):
        decision = decide(observe(broken(cluster(5, target=1), pod=pod)))
        assert decision.reason == "WaitingForMembers"


@pytest.mark.parametrize("linked", [m.Signal.UNHEALTHY, m.Signal.UNKNOWN])
@pytest.mark.parametrize("shaped", [True, False])
def test_no_member_restarts_before_every_member_is_linked(linked, shaped):
    world = settle(change_all(cluster(3, target=int(shaped)), lambda each: True, shaped=shaped))
    observation = observe(world)
    assert kinds([decide(observation).step]) == ["Announce"]
    for index in range(3):
        endpoints = list(observation.endpoints)
        endpoints[index] = replace(endpoints[index], linked=linked)
        decision = decide(replace(observation, endpoints=tuple(endpoints)))
        assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForMembers")


def test_no_member_restarts_before_every_pod_is_ready():
    observation = observe(settle(cluster(3, target=1)))
    for index in range(3):
        pods = list(observation.pods)
        pods[index] = replace(pods[index], ready=False)
        decision = decide(replace(observation, pods=tuple(pods)))
        assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForMembers")


@pytest.mark.parametrize(("size", "seconds", "waits"), [(3, 6, True), (3, 7, False), (2, 6, False)])
@pytest.mark.parametrize("shaped", [True, False])
def test_no_member_restarts_before_the_followers_have_found_each_other_again(size, seconds, waits, shaped):
    world = change_all(cluster(size, target=int(shaped)), lambda each: True, shaped=shaped)
    observation = observe(settle(world))
    pods = list(observation.pods)
    pods[0] = replace(pods[0], first_start=NOW - timedelta(seconds=seconds))
    decision = decide(replace(observation, pods=tuple(pods)))
    if waits:
        assert (type(decision.step), decision.reason) == (m.Wait, "WaitingForMembers")
        assert f"the members to find the new addresses of {pods[0].name}" in decision.message
    else:
        assert kinds([decision.step]) == ["Announce"]


def test_a_paused_cluster_is_left_alone():
    observation = observe(broken(cluster(3), pod=GONE))
    decision = decide(replace(observation, desired=replace(observation.desired, paused=True)))
    assert (decision.step, decision.reason) == (m.Wait(300.0), "Paused")


def test_a_settled_cluster_needs_nothing():
    decision = decide(observe(settle(cluster(3))))
    assert (decision.step, decision.problems) == (m.Settled(), ())
