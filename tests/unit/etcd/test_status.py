"""What the status of an EtcdCluster shows of an observation and a decision."""

from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import model as m
from etcd_operator.etcd import Alarm, AlarmType
from etcd_operator.mistakes import Mistake
from etcd_operator.plan import decide
from etcd_operator.reasons import ALARMS, PLAN, PROBLEMS
from etcd_operator.status import Aspect, Report, failed_status, notices, report, rounded
from etcd_operator.types import EtcdClusterStatus, MembersStatus
from etcd_operator.validation import Verdict
from pilothouse import TaskFailed
from pilothouse.kube import Condition
from tests.unit.etcd.abstract import (
    AWAY,
    BAD,
    CRASH,
    ENDING,
    GONE,
    IMAGE,
    MISLABELLED,
    NONE,
    OTHER,
    VOTER,
    World,
    change,
    change_all,
    cluster,
    observe,
    settle,
    unfounded,
)

VERDICT = Verdict(None, None, (), (), {"size": 3})
WAIT = m.Decision(m.Wait(), "WaitingForMembers", "Waiting.")
SETTLED = m.Decision(m.Settled(), "Settled", "All members serve.")


def shown(
    world: World | m.Observation,
    decision: m.Decision | None = None,
    status: EtcdClusterStatus = EtcdClusterStatus(),  # noqa: B008
    verdict: Verdict = VERDICT,
    **values: Any,
) -> Report:
    observation = observe(settle(world)) if isinstance(world, World) else world
    return report(status, observation, decision or decide(observation), verdict, **values)


def aspect(found: Report, type_: str) -> Aspect:
    return next((each for each in found.conditions if each.type == type_), Aspect(type_, False, "", ""))


def lost(world: World, *indexes: int) -> World:
    for index in indexes:
        world = change(world, index, pod=GONE, volume=NONE, seat=OTHER)
    return world


# ------------------------------------------------------------------------- a condition for every reason


@pytest.mark.parametrize("reason", [*PLAN])
@pytest.mark.parametrize("step", [m.Wait(), m.Flip(()), m.Blocked()], ids=lambda step: type(step).__name__)
def test_every_reason_of_the_plan_is_in_ready_and_in_progressing(reason: str, step: m.Step) -> None:
    found = shown(cluster(3), m.Decision(step, reason, "What it does."))
    assert (found.ready, found.reason, found.message) == (False, reason, "What it does.")
    blocked = isinstance(step, m.Blocked)
    assert aspect(found, "Progressing") == Aspect("Progressing", not blocked, reason, "What it does.")
    assert aspect(found, "Degraded").status is blocked
    assert (found.status.phase, found.status.reason) == (
        ("Failed", "What it does.") if blocked else ("Running", "")
    )


@pytest.mark.parametrize("reason", [*PROBLEMS])
def test_every_problem_is_in_degraded_and_keeps_a_settled_cluster_from_being_ready(reason: str) -> None:
    problem = m.Problem(reason, "What is wrong.")
    found = shown(cluster(3), replace(SETTLED, problems=(problem,)))
    assert (found.ready, found.reason, found.message) == (False, reason, "What is wrong.")
    assert aspect(found, "Degraded") == Aspect("Degraded", True, reason, "What is wrong.")


def test_degraded_has_the_messages_of_all_problems_and_the_reason_of_the_first() -> None:
    problems = (m.Problem("MemberDown", "A is down."), m.Problem("Alarm", "There is an alarm."))
    degraded = aspect(shown(cluster(3), replace(SETTLED, problems=problems)), "Degraded")
    assert (degraded.reason, degraded.message) == ("MemberDown", "A is down. There is an alarm.")


def test_degraded_has_a_cause_that_problems_share_once() -> None:
    unseen = [m.Problem("MemberUnknown", f"{each} is not seen.", "The Secret is gone.") for each in "AB"]
    alone = aspect(shown(cluster(3), replace(WAIT, problems=(*unseen,))), "Degraded")
    assert alone.message == "A is not seen. The Secret is gone. B is not seen."
    obstacle = m.Problem("SecretUnusable", "The Secret is gone.")
    explained = aspect(
        shown(cluster(3), replace(WAIT, problems=(*unseen,)), obstacles=(obstacle,)), "Degraded"
    )
    assert explained.message == "The Secret is gone. A is not seen. B is not seen."


def test_ready_names_the_cause_of_a_wait_and_not_its_symptom() -> None:
    problems = (m.Problem("MemberDown", "A is down."), m.Problem("ImageUnavailable", "No image."))
    found = shown(cluster(3), replace(WAIT, problems=problems))
    assert (found.reason, found.message) == ("WaitingForMembers", "Waiting. No image.")


def test_an_obstacle_explains_what_the_plan_waits_for() -> None:
    obstacle = m.Problem("SecretUnusable", "The Secret is gone.")
    found = shown(cluster(3), WAIT, obstacles=(obstacle,))
    assert (found.ready, found.reason, found.message) == (False, "SecretUnusable", "The Secret is gone.")
    assert aspect(found, "Degraded").reason == "SecretUnusable"


def test_a_mistake_is_shown_first_and_the_cluster_is_healed_all_the_same() -> None:
    verdict = replace(VERDICT, mistakes=(Mistake("spec.size", "9", "use 1 to 7"),))
    found = shown(change(cluster(3), 0, pod=GONE), verdict=verdict)
    assert (found.ready, found.reason) == (False, "InvalidSpec")
    assert found.message.endswith("The last valid spec stays in force.")
    assert aspect(found, "Progressing").reason == "RecreatingPods"


# ----------------------------------------------------------------------- unknown is not False, nor True


def test_a_quorum_that_cannot_be_seen_is_unknown() -> None:
    found = shown(replace(observe(cluster(3, blind=True)), blind="Auth is enabled."))
    available = aspect(found, "Available")
    assert (available.status, available.reason) == (None, "Unknown")
    assert "Auth is enabled." in available.message


@pytest.mark.parametrize(
    ("pods", "status"),
    [
        ((GONE,), True),
        ((AWAY,), True),
        ((GONE, GONE), False),
        ((GONE, ENDING), None),
        ((CRASH, IMAGE), False),
        ((GONE, GONE, GONE), False),
    ],
)
def test_the_cluster_is_available_while_a_quorum_serves(pods: tuple[int, ...], status: bool | None) -> None:
    world = cluster(3)
    for index, pod in enumerate(pods):
        world = change(world, index, pod=pod)
    observation = observe(world)
    if status is None:
        # The third member does not answer that it has no quorum, yet.
        endpoints = tuple(m.EndpointState(name=each.name) for each in observation.endpoints)
        observation = replace(observation, endpoints=endpoints, members=None)
    assert aspect(shown(observation), "Available").status is status


def test_before_the_founding_nothing_is_available_or_ready() -> None:
    found = shown(unfounded(3))
    assert (aspect(found, "Available").reason, found.ready, found.status.phase) == (
        "NotFounded",
        False,
        "Creating",
    )
    assert (found.status.size, found.status.members.ready) == (0, ())


def test_a_version_and_a_size_that_cannot_be_seen_now_are_those_of_before() -> None:
    before = EtcdClusterStatus(current_version="3.6.14", db_size="24Mi")
    observation = observe(cluster(3, blind=True))
    silent = replace(observation, volumes=tuple(replace(each, version="") for each in observation.volumes))
    found = shown(silent, status=before).status
    assert (found.current_version, found.db_size) == ("3.6.14", "24Mi")


# ------------------------------------------------------------------------------------------- the steady


def test_the_status_of_a_settled_cluster_does_not_change_with_what_clients_write() -> None:
    observation = observe(settle(cluster(3)))
    busy = tuple(
        replace(each, raft_index=10**6, revision=10**6, term=9, db_size=each.db_size + 1000)
        for each in observation.endpoints
    )
    first, later = shown(observation), shown(replace(observation, endpoints=busy))
    assert (first.ready, first.reason) == (True, "Settled")
    changed = replace(later.status, db_size=first.status.db_size)
    assert (changed, later.conditions) == (first.status, first.conditions)


def test_the_shown_size_of_the_database_grows_in_steps_of_an_eighth() -> None:
    sizes = [rounded(size << 20) for size in range(1, 4096)]
    assert sizes[0] == "4Mi"
    assert len({*sizes}) <= 64
    assert all(int(size[:-2]) >= number for number, size in enumerate(sizes, 1))
    assert all(int(size[:-2]) <= number * 1.25 + 4 for number, size in enumerate(sizes, 1))


def test_a_condition_that_was_never_true_is_absent_and_one_that_was_is_false() -> None:
    found = shown(cluster(3))
    assert {each.type for each in found.conditions} == {"Available", "Progressing", "Degraded"}
    before = EtcdClusterStatus(conditions=(Condition(type="Scaling", status="True"),))
    reached = aspect(shown(cluster(3), status=before), "Scaling")
    assert reached == Aspect("Scaling", False, "SizeReached", "The cluster has 3 members.")
    one = aspect(shown(cluster(1), status=before), "Scaling")
    assert one.message == "The cluster has 1 member."
    founding = aspect(shown(unfounded(3), status=before), "Scaling")
    assert founding == Aspect("Scaling", False, "NotFounded", "The cluster is not founded yet.")


# ------------------------------------------------------------------------------- the coreos conditions


@pytest.mark.parametrize(("size", "reason"), [(5, "ScalingUp"), (1, "ScalingDown")])
def test_scaling_shows_the_current_and_the_desired_size(size: int, reason: str) -> None:
    found = aspect(shown(cluster(3, size=size)), "Scaling")
    message = f"The cluster has 3 members, and spec.size is {size}."
    assert found == Aspect("Scaling", True, reason, message)


def test_a_paused_or_blocked_cluster_does_not_scale() -> None:
    message = "The cluster has 3 members, and spec.size is 5."
    before = EtcdClusterStatus(conditions=(Condition(type="Scaling", status="True"),))
    found = shown(paused(observe(cluster(3, size=5))), status=before)
    assert aspect(found, "Scaling") == Aspect("Scaling", False, "Paused", message)
    blocked = aspect(shown(lost(cluster(3, size=5), 0, 1), status=before), "Scaling")
    assert blocked == Aspect("Scaling", False, "QuorumLost", message)


def test_an_upgrade_is_shown_until_all_members_run_the_version() -> None:
    found = shown(cluster(3, target=1))
    message = "Upgrading the members to etcd 3.6.14."
    assert aspect(found, "Upgrading") == Aspect("Upgrading", True, "ClusterUpgrading", message)
    assert (found.status.current_version, found.status.target_version) == ("3.5.33", "3.6.14")
    done = change_all(cluster(3, target=1), lambda each: True, version=1, binary=1, ran=1)
    assert aspect(shown(done), "Upgrading").status is False
    assert shown(done).status.target_version == ""


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (lost(cluster(3, target=1), 0, 1), "QuorumLost"),
        (
            change(cluster(3, target=MISLABELLED), 0, version=MISLABELLED, binary=1, ran=1),
            "UnexpectedVersion",
        ),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_an_upgrade_that_has_stopped_has_the_reason(world: World, reason: str) -> None:
    before = EtcdClusterStatus(conditions=(Condition(type="Upgrading", status="True"),))
    found = aspect(shown(world, status=before), "Upgrading")
    assert (found.status, found.reason) == (False, reason)


@pytest.mark.parametrize(("done", "upgrading"), [(1, True), (2, False)])
def test_a_change_of_the_suffix_is_shown_until_all_members_have_it(done: int, upgrading: bool) -> None:
    observation = observe(settle(cluster(2)))
    desired = replace(observation.desired, version="3.5.33")
    old = [f"3.5.33{'' if index < done else '-0'}" for index in range(2)]
    pods = tuple(replace(each, version=v) for each, v in zip(observation.pods, old, strict=True))
    volumes = tuple(replace(each, version=v) for each, v in zip(observation.volumes, old, strict=True))
    before = EtcdClusterStatus(conditions=(Condition(type="Upgrading", status="True"),))
    found = shown(replace(observation, desired=desired, pods=pods, volumes=volumes), status=before)
    assert aspect(found, "Upgrading").status is upgrading
    assert found.status.current_version == ("3.5.33-0" if upgrading else "3.5.33")
    assert found.status.target_version == ("3.5.33" if upgrading else "")


def test_a_failing_image_does_not_end_the_upgrade() -> None:
    world = change(cluster(3, target=BAD), 0, version=BAD, pod=IMAGE)
    assert aspect(shown(world), "Upgrading").status is True


def test_recovering_shows_that_members_are_repaired() -> None:
    assert aspect(shown(change(cluster(3), 0, pod=GONE)), "Recovering").reason == "RecreatingPods"
    assert aspect(shown(lost(cluster(3), 0)), "Recovering").reason == "ReplacingMember"


def test_an_interruption_is_shown_while_it_is_claimed() -> None:
    world = change(cluster(1, target=1, announced=True), 0, claim=m.Action.RESTART)
    found = aspect(shown(world), "Interruption")
    assert (found.status, found.reason) == (True, "PlannedInterruption")
    assert "a cluster of size 1 has no spare member" in found.message


@pytest.mark.parametrize("reason", ["KubernetesRefused", "AuthoritiesReplaced"])
def test_a_restart_that_waits_for_a_user_is_no_upgrade_and_no_interruption(reason: str) -> None:
    world = change(cluster(1, target=1, announced=True), 0, claim=m.Action.RESTART)
    shows = (Condition(type="Upgrading", status="True"), Condition(type="Interruption", status="True"))
    found = shown(world, m.Decision(m.Wait(), reason, "Refused."), EtcdClusterStatus(conditions=shows))
    upgrading = Aspect("Upgrading", False, reason, "The upgrade to 3.6.14 has stopped.")
    assert aspect(found, "Upgrading") == upgrading
    assert aspect(found, "Interruption") == Aspect("Interruption", False, reason, "Refused.")


def test_a_paused_operator_interrupts_nothing() -> None:
    world = change(cluster(1, target=1, announced=True), 0, claim=m.Action.RESTART)
    shows = (Condition(type="Interruption", status="True"),)
    found = shown(paused(observe(settle(world))), status=EtcdClusterStatus(conditions=shows))
    assert (aspect(found, "Interruption").status, aspect(found, "Interruption").reason) == (False, "Paused")


def test_a_warning_does_not_change_ready() -> None:
    verdict = replace(VERDICT, warnings=(m.Problem("EvenSize", "Use an odd size."),))
    found = shown(cluster(2), verdict=verdict, warnings=(m.Problem("AuthoritiesChanged", "Restart."),))
    assert (found.ready, aspect(found, "Warning").message) == (True, "Use an odd size. Restart.")


def test_a_paused_cluster_is_unknown() -> None:
    observation = observe(change(cluster(3), 0, pod=GONE))
    found = shown(replace(observation, desired=replace(observation.desired, paused=True)))
    assert (found.ready, found.reason, found.status.control_paused) == (None, "Paused", True)
    assert aspect(found, "Progressing").status is False


# --------------------------------------------------------------------------------------------- the fields


def test_the_members_are_ready_if_etcd_and_the_kubelet_say_so() -> None:
    observation = observe(settle(cluster(3)))
    first, *others = observation.pods
    found = shown(replace(observation, pods=(replace(first, ready=False), *others)))
    assert found.status.members == MembersStatus(
        ready=tuple(each.name for each in others), unready=(first.name,)
    )
    assert (found.ready, found.reason) == (False, "WaitingForMembers")


def test_hidden_members_are_ready_if_the_kubelet_says_so() -> None:
    observation = replace(observe(cluster(3, blind=True)), blind="Auth is enabled.")
    first, second, third = observation.pods
    pods = (replace(first, ready=False), replace(second, deleting=True), replace(third, ready=True))
    found = shown(replace(observation, pods=pods))
    assert found.status.members == MembersStatus(ready=(third.name,), unready=(first.name, second.name))
    silent = shown(replace(observation, pods=pods, blind=""))
    assert silent.status.members.ready == ()


def test_the_leader_and_the_retained_volumes_are_named() -> None:
    observation = observe(settle(cluster(3)))
    old = replace(observation.volumes[0], name="c-old", uid="x", removed=True)
    status = shown(replace(observation, volumes=(*observation.volumes, old))).status
    leader = next(each for each in observation.endpoints if each.member_id == each.leader_id)
    assert (status.leader, status.retained_volumes) == (leader.name, ("c-old",))
    assert len(observation.volumes) == sum(each.role == VOTER for each in cluster(3).members)


def test_the_status_of_a_coreos_cluster_keeps_what_it_is_recognized_by() -> None:
    before = EtcdClusterStatus(
        current_version="3.2.13",
        service_name="c-client",
        client_port=2379,
        members=MembersStatus(ready=("c-0",)),
    )
    observation = observe(unfounded(3))
    foreign = replace(observation, record=replace(observation.record, foreign_status=True))
    after = shown(foreign, status=before).status
    assert after.phase == "Failed"
    assert replace(after, phase="", reason="", last_valid_spec={}, alarms=()) == before


def test_a_failure_before_the_observation_fails_only_a_cluster_that_does_not_run() -> None:
    failure = TaskFailed("InvalidSpec", "The size is 0.", permanent=True)
    failed = failed_status(EtcdClusterStatus(), failure)
    assert (failed.phase, failed.reason) == ("Failed", "The size is 0.")
    running = failed_status(EtcdClusterStatus(phase="Running"), failure)
    assert (running.phase, running.reason) == ("Running", "")


# ---------------------------------------------------------------------------------------------- alarms


def paused(observation: m.Observation) -> m.Observation:
    return replace(observation, desired=replace(observation.desired, paused=True))


def unseen(observation: m.Observation) -> m.Observation:
    """The same cluster while no member answers."""
    endpoints = tuple(m.EndpointState(name=each.name) for each in observation.endpoints)
    return replace(observation, endpoints=endpoints, members=None, rivals=(), alarms=())


@pytest.mark.parametrize("reason", sorted(ALARMS))
def test_an_alarm_begins_and_ends_once(reason: str) -> None:
    found = shown(cluster(3), m.Decision(m.Blocked(), reason, "What is wrong."))
    assert found.status.alarms == (reason,)
    [notice] = notices(EtcdClusterStatus(), found)
    assert (notice.begins, notice.reason, notice.message) == (True, reason, "What is wrong.")
    before = EtcdClusterStatus(alarms=(reason,))
    assert [*notices(before, found)] == []
    [notice] = notices(before, shown(cluster(3), status=before))
    assert (notice.begins, notice.reason) == (False, "AlarmEnded")
    assert notice.message.startswith(f"{reason} is no longer reported.")


def test_one_alarm_may_follow_another() -> None:
    found = shown(cluster(3), m.Decision(m.Blocked(), "OtherCluster", "What is wrong."))
    before = EtcdClusterStatus(alarms=("QuorumLost",))
    assert [each.reason for each in notices(before, found)] == ["AlarmEnded", "OtherCluster"]


def test_an_alarm_goes_on_beside_another_one() -> None:
    one, other = (m.Problem(reason, f"{reason} begins.") for reason in ("Alarm", "LabelMissing"))
    before = shown(cluster(3), replace(SETTLED, problems=(other,))).status
    both = shown(cluster(3), replace(SETTLED, problems=(one, other)), status=before)
    assert [(each.begins, each.message) for each in notices(before, both)] == [(True, "Alarm begins.")]
    again = shown(cluster(3), replace(SETTLED, problems=(other,)), status=both.status)
    assert [(each.begins, each.reason) for each in notices(both.status, again)] == [(False, "AlarmEnded")]


def test_a_lost_quorum_is_one_alarm_until_a_quorum_answers() -> None:
    world = lost(cluster(3), 0, 1)
    begun = shown(world)
    assert [each.reason for each in notices(EtcdClusterStatus(), begun)] == ["QuorumLost"]
    moments = (
        paused(observe(settle(world))),
        unseen(observe(settle(world))),
        observe(settle(change(world, 2, pod=GONE))),
        replace(observe(settle(world)), blind="A Secret is gone."),
        unseen(observe(settle(cluster(3)))),
    )
    for moment in moments:
        found = shown(moment, status=begun.status)
        assert found.status.alarms == ("QuorumLost",), decide(moment)
        assert [*notices(begun.status, found)] == []
    ended = shown(cluster(3), status=begun.status)
    assert [each.reason for each in notices(begun.status, ended)] == ["AlarmEnded"]


def test_a_step_that_comes_first_does_not_hide_that_the_quorum_is_lost() -> None:
    moment = observe(settle(change(lost(cluster(3), 0, 1), 2, pod=GONE)))
    assert decide(moment).reason == "RecreatingPods"
    assert aspect(shown(moment), "Degraded").reason == "QuorumLost"


def test_pausing_ends_no_alarm() -> None:
    foreign = observe(unfounded(3))
    foreign = replace(foreign, record=replace(foreign.record, foreign_status=True))
    labels = observe(cluster(3))
    labels = replace(labels, pods=tuple(replace(each, unlabelled=True) for each in labels.pods))
    refused = (m.Problem("PermissionDenied", "Auth is enabled."),)
    for moment, problems in ((foreign, ()), (labels, ()), (observe(cluster(3)), refused)):
        before = shown(moment, obstacles=problems).status
        assert before.alarms
        assert shown(paused(moment), status=before).status.alarms == before.alarms


def test_an_alarm_of_etcd_ends_only_if_a_quorum_answers() -> None:
    full = replace(observe(cluster(3)), alarms=(Alarm(1, AlarmType.NOSPACE),))
    before = shown(full).status
    assert before.alarms == ("Alarm",)
    assert shown(unseen(full), status=before).status.alarms == before.alarms
    assert shown(replace(full, alarms=()), status=before).status.alarms == ()


def test_an_alarm_of_etcd_goes_on_while_etcd_does_not_answer_which() -> None:
    full = replace(observe(cluster(3)), alarms=(Alarm(1, AlarmType.NOSPACE),))
    before = shown(full).status
    found = shown(replace(full, alarms=None), status=before)
    assert [*notices(before, found)] == []
    assert aspect(found, "Degraded").message.startswith("etcd has alarms, but it did not answer which.")


@pytest.mark.parametrize("reason", ["OtherCluster", "SecondQuorum", "UnexpectedVersion"])
def test_an_alarm_that_one_member_shows_ends_only_if_all_pods_answer(reason: str) -> None:
    before = EtcdClusterStatus(alarms=(reason,))
    for pod in (AWAY, CRASH, ENDING):
        found = shown(change(cluster(3), 0, pod=pod), status=before)
        assert [*notices(before, found)] == []
    for world in (cluster(3), change(cluster(3), 0, pod=GONE)):
        assert shown(world, status=before).status.alarms == ()


def test_a_mistake_in_the_spec_is_an_alarm() -> None:
    verdict = replace(VERDICT, mistakes=(Mistake("spec.size", "9", "use 1 to 7"),))
    found = shown(cluster(3), verdict=verdict)
    [notice] = notices(EtcdClusterStatus(), found)
    assert (notice.begins, notice.reason, notice.message) == (True, "InvalidSpec", found.message)
    assert [*notices(found.status, shown(cluster(3), verdict=verdict, status=found.status))] == []
    [ended] = notices(found.status, shown(cluster(3), status=found.status))
    assert not ended.begins


def test_a_refused_pod_is_an_alarm_until_no_pod_differs_from_the_spec() -> None:
    refused = m.Decision(m.Wait(), "KubernetesRefused", "The pod is refused.")
    problem = m.Problem("KubernetesRefused", "The pod is refused.")
    before = shown(cluster(3, target=1), refused, obstacles=(problem,)).status
    assert before.alarms == ("KubernetesRefused",)
    assert shown(cluster(3, target=1), WAIT, status=before).status.alarms == before.alarms
    assert shown(cluster(3), status=before).status.alarms == ()


def test_a_write_that_the_api_server_refuses_now_is_no_alarm() -> None:
    problem = m.Problem("KubernetesRefused", "Service example: the API server is overloaded.")
    assert shown(cluster(3), obstacles=(problem,)).status.alarms == ()


def test_a_member_that_is_down_is_no_alarm() -> None:
    found = shown(change(cluster(3), 0, pod=CRASH))
    assert aspect(found, "Degraded").status is True
    assert [*notices(EtcdClusterStatus(), found)] == []
