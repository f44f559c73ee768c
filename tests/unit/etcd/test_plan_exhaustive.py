"""Explores what can happen to small clusters: no step breaks a law, and all that can heal does heal.

One broken rule per law is planted, to show that the exploration finds it. Larger bounds are in tests/soak.
"""

import sys
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import (
    founding,
    healing,
    identities,
    model,
    plan,
    resizing,
    resumption,
    seats,
    upgrading,
    versions,
)
from tests.unit.etcd.abstract import (
    DATA,
    EMPTY,
    MISTYPED,
    NEW,
    OWN,
    SUFFIXED,
    UP,
    VOTER,
    Count,
    Member,
    Violation,
    World,
    change_all,
    cluster,
    explore,
    unfounded,
)
from tests.unit.etcd.laws import ending, judge

pytestmark = pytest.mark.timeout(600)  # The largest exploration has about 60,000 states.


def run(
    starts: Iterable[World],
    sizes: Iterable[int] = (),
    targets: Iterable[int] = (),
    *,
    shape: bool = False,
    link: bool = False,
) -> Count:
    found = explore(starts, plan.decide, judge, ending, sizes=sizes, targets=targets, shape=shape, link=link)
    sys.stdout.write(
        f"{found.states} states, {found.transitions} transitions, {found.member_states} states of a "
        f"member, endings: {', '.join(sorted(found.endings))}"
    )
    return found


@pytest.fixture(autouse=True)
def counts(capsys, request):
    """Prints what the exploration has seen."""
    yield
    if text := capsys.readouterr().out:
        with capsys.disabled():
            sys.stdout.write(f"\n{request.node.name}: {text}")


@pytest.mark.parametrize(("size", "strikes"), [(1, 2), (2, 2), (3, 2), (4, 1), (5, 1)], ids=str)
def test_a_cluster_heals_after_every_strike(size, strikes):
    found = run([cluster(size, strikes=strikes)])
    assert found.states > 10 * size
    assert "Healthy" in found.endings


def test_a_cluster_is_resized_between_any_sizes():
    found = run([cluster(size, edits=2, delete=True) for size in range(1, 6)], sizes=range(1, 6))
    assert found.endings == {"Healthy"}


def test_a_cluster_is_resized_despite_a_strike():
    found = run([cluster(n, edits=1, strikes=1, delete=True) for n in (1, 2, 3)], sizes=(1, 2, 3))
    assert "Healthy" in found.endings


def test_a_cluster_is_upgraded_from_any_size():
    starts = [cluster(n, edits=1, lags=True) for n in range(1, 6)]
    assert run(starts, targets=(0, 1, 2), shape=True).endings == {"Healthy"}


def test_every_pair_of_edits_of_version_and_shape_arrives():
    found = run([cluster(n, edits=2) for n in (1, 2, 3)], targets=range(5), shape=True)
    assert found.endings >= {"Healthy", "DowngradeRefused", "UnexpectedVersion"}


def test_a_suffix_of_the_version_arrives_and_begins_no_minor_despite_a_strike():
    starts = [cluster(n, edits=1, strikes=1) for n in (1, 2, 3)]
    runs = [change_all(each, lambda _: True, version=1, binary=1, ran=1) for each in starts]
    suffixed = [change_all(each, lambda _: True, version=5, binary=5, ran=5) for each in starts]
    run([each._replace(target=1) for each in runs], targets=(SUFFIXED,))
    run([each._replace(target=SUFFIXED) for each in suffixed], targets=(1, 2))
    found = run(starts, targets=(SUFFIXED, MISTYPED))
    assert "Healthy" in found.endings


def test_a_cluster_with_a_suffix_is_resized_on_its_tag():
    values = {"version": SUFFIXED, "binary": SUFFIXED, "ran": SUFFIXED}
    starts = [cluster(n, edits=1, strikes=1, delete=True, target=SUFFIXED) for n in (1, 2, 3)]
    found = run([change_all(each, lambda _: True, **values) for each in starts], sizes=(1, 2, 3))
    assert "Healthy" in found.endings


def test_a_cluster_is_resized_and_heals_despite_changed_peer_urls():
    starts = [cluster(n, edits=1, strikes=1, movable=True, delete=True) for n in (1, 2, 3)]
    starts += [cluster(n, strikes=2, movable=True) for n in (1, 2)]
    assert "Healthy" in run(starts, sizes=(1, 2, 3)).endings


def test_a_cluster_heals_although_volumes_were_copied():
    starts = [copied(cluster(1, strikes=2)), copied(cluster(3, strikes=1))]
    starts += [copied(cluster(2, edits=1, strikes=1, delete=True))]
    assert run(starts, sizes=[1]).endings >= {"Healthy", "VolumeCopied"}


def copied(world: World) -> World:
    """A cluster with a copy of each volume, with all labels and annotations."""
    return change_all(world, lambda each: True, copied=True)


def test_a_cluster_is_upgraded_despite_a_strike():
    found = run([cluster(n, edits=1, strikes=1) for n in (1, 2, 3)], targets=(0, 1, 3))
    assert "Healthy" in found.endings


def test_an_edit_does_not_cost_the_data_on_a_volume_that_is_being_deleted():
    starts = [cluster(n, edits=2, strikes=1) for n in (1, 2, 3)]
    assert "Healthy" in run(starts, targets=(0, 3), shape=True).endings


def test_a_corrected_shape_reaches_a_member_that_runs_but_does_not_serve():
    found = run([cluster(n, edits=2) for n in range(1, 6)], targets=(0, 1), link=True)
    assert found.endings == {"DowngradeRefused", "Healthy", "NoQuorum", "WaitingForMembers"}


def test_every_size_is_founded():
    assert run([unfounded(n) for n in range(1, 6)]).endings == {"Healthy"}


def test_one_cluster_is_founded_despite_a_strike_and_an_edit():
    starts = [unfounded(n, edits=1, strikes=1) for n in (1, 3)]
    found = run(starts, sizes=(1, 3), targets=(3,), shape=True)
    assert "Healthy" in found.endings


def written() -> World:
    """A founding in which two of three members run, clients have written, and the spec was edited."""
    configuration = model.Configuration.FOUNDING
    new = Member(volume=EMPTY, pod=NEW, configuration=configuration, seat=OWN)
    runs = new._replace(volume=DATA, pod=UP, role=VOTER)
    values = {"phase": model.Phase.STARTING, "started": True, "edited": True, "written": True, "strikes": 2}
    return unfounded(3, **values)._replace(members=(runs, runs, new))


def test_a_founding_with_written_data_is_kept_although_its_pods_are_deleted():
    assert "Healthy" in run([written()]).endings


def test_a_cluster_on_empty_dirs_is_founded_and_replaced_member_by_member():
    starts = [unfounded(n, strikes=1, ephemeral=True) for n in (1, 2, 3)]
    starts += [cluster(1, strikes=1, edits=1, ephemeral=True), cluster(3, edits=1, ephemeral=True)]
    assert "Healthy" in run(starts, shape=True).endings


# ------------------------------------------------------------------------- one planted mistake per law


def plant(monkeypatch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Replaces a rule of the plan, or takes it out if `new` is None."""
    for name in ("FOUNDED", "FOUNDING"):
        rules = tuple(new if rule is old else rule for rule in getattr(plan, name))
        monkeypatch.setattr(plan, name, tuple(rule for rule in rules if rule))


def caught(law: str, starts: Iterable[World], **edits: Any) -> None:
    with pytest.raises(Violation, match=law):
        explore(starts, plan.decide, judge, ending, **edits)


def without_flip(cluster):
    """Promotes a learner that a wiped volume would not stop."""
    place = cluster.places.get(cluster.adding)
    if place and place.pod and place.member and place.member.learner and place.linked:
        poisoned = replace(place, pod=replace(place.pod, configuration=model.Configuration.POISONED))
        cluster.places[place.name] = poisoned
    return resizing.finish_addition(cluster)


def test_law_1_catches_a_voter_that_forgets_its_log(monkeypatch):
    plant(monkeypatch, healing.flip, None)
    plant(monkeypatch, resizing.finish_addition, without_flip)
    monkeypatch.setattr("tests.unit.etcd.laws.law_5", lambda *_: ())
    caught("law 1", [cluster(1, edits=1, strikes=1)], sizes=[3])


def test_law_1_catches_pods_that_never_ran_on_volumes_with_written_data(monkeypatch):
    def forget(cluster):
        forgotten = replace(cluster.record.founding, ran=False)
        cluster.record = replace(cluster.record, founding=forgotten)
        return abandon(cluster)

    abandon = founding.abandon
    plant(monkeypatch, founding.abandon, forget)
    caught("law 1: a founding", [written()])


def test_law_1_catches_a_founding_that_is_deleted_after_a_client_has_written(monkeypatch):
    def hasty(cluster):
        names = tuple(each.name for each in cluster.observation.pods if not each.deleting)
        if names and cluster.record.founding.phase is model.Phase.ABANDONING:
            return model.Decision(model.DeletePods(names), "", "")
        return finish(cluster)

    finish = founding.finish_abandoning

    plant(monkeypatch, founding.finish_abandoning, hasty)
    caught("law 1: the written", [unfounded(3, edits=1, strikes=1)], sizes=[1])


def test_laws_1_and_4_catch_a_restored_status_that_gives_up_a_founded_cluster(monkeypatch):
    def believe(cluster):
        return None if cluster.record.founding else resume(cluster)

    resume = resumption.resume
    plant(monkeypatch, resumption.resume, believe)
    plant(monkeypatch, resumption.blocked_by_trace, None)
    caught("law [14]", [cluster(1, strikes=2)])


def test_law_2_catches_a_restart_that_costs_the_quorum(monkeypatch):
    monkeypatch.setattr(upgrading, "_obstacles", lambda cluster: "")
    monkeypatch.setattr(seats.Cluster, "can_restart", lambda self, place: True)
    monkeypatch.setattr("tests.unit.etcd.laws.law_8", lambda *_: ())
    caught("law 2", [cluster(3, edits=1)], targets=[1])


def test_law_2_catches_an_interruption_without_an_announcement(monkeypatch):
    guarded = seats.Cluster.guarded

    def silent(self, *args, **kwargs):
        self.count += 2
        return guarded(self, *args, **kwargs)

    monkeypatch.setattr(seats.Cluster, "guarded", silent)
    caught("law 2: the interruption", [cluster(1, edits=1)], targets=[1])


def test_law_3_catches_a_vote_for_a_member_that_has_not_started(monkeypatch):
    def hasty(cluster):
        for place in cluster.learners:
            step = model.Promote(place.name, place.member.id)
            return cluster.guarded(model.Action.ADD, place.name, step, "", "", member_id=place.member.id)
        return None

    plant(monkeypatch, resizing.finish_addition, hasty)
    caught("law 3", [cluster(1, edits=1)], sizes=[2])


def test_law_4_catches_a_second_founding_beside_running_pods(monkeypatch):
    plant(monkeypatch, founding.finish_abandoning, _refound)
    caught("law 4", [unfounded(3, edits=1)], sizes=[1])


def _refound(cluster):
    abandoned = cluster.record.founding.phase is model.Phase.ABANDONING
    return founding._found(cluster) if abandoned else None


def test_law_4_catches_a_second_founding_after_the_status_and_all_volumes_are_lost(monkeypatch):
    plant(monkeypatch, resumption.blocked_by_trace, None)
    caught("law 4", [cluster(1, strikes=2)])


def test_law_4_catches_a_founding_beside_the_pods_of_an_unknown_one(monkeypatch):
    plant(monkeypatch, founding.delete_unknown_pods, None)
    caught("law 4: a second cluster is founded beside", [unfounded(1, strikes=1)])


def test_law_4_catches_clients_that_are_served_before_the_service_is_marked(monkeypatch):
    plant(monkeypatch, healing.mark_service, None)
    caught("law 4", [unfounded(1)])


def test_law_4_catches_the_state_new_after_the_founding(monkeypatch):
    def fresh(cluster):
        decision = healing.create_pods(cluster)
        if decision is None:
            return None
        assert isinstance(decision.step, model.CreatePods)
        pods = [
            replace(pod, configuration=model.Configuration.FOUNDING, peers=(pod.name,))
            for pod in decision.step.pods
        ]
        return replace(decision, step=model.CreatePods(tuple(pods)))

    plant(monkeypatch, healing.create_pods, fresh)
    caught("law 4", [cluster(1, strikes=1)])


def test_law_5_catches_an_identity_on_another_volume(monkeypatch):
    monkeypatch.setattr(seats.Place, "intact", property(lambda self: self.volume is not None))
    caught("law 5", [cluster(3, strikes=1)])


def test_law_5_catches_a_copy_that_is_resumed(monkeypatch):
    monkeypatch.setattr(identities, "copies", lambda *_: {})
    caught("law 5: a copy", [copied(cluster(1, strikes=1))])


def test_law_6_catches_data_that_is_deleted_before_etcd_confirms(monkeypatch):
    def early(cluster):
        claim = cluster.record.claim
        if claim and claim.action is model.Action.REMOVE and cluster.places[claim.name].volume:
            return model.Decision(model.DeleteVolumes((claim.name,)), "", "")
        return None

    plant(monkeypatch, resizing.remove_learner, early)
    caught("law 6", [cluster(3, edits=1)], sizes=[1])


def test_law_6_catches_data_that_the_spec_retains(monkeypatch):
    def eager(cluster):
        cluster.desired = replace(cluster.desired, delete_scaled=True)
        return healing.clean_up(cluster)

    plant(monkeypatch, healing.clean_up, eager)
    caught("law 6", [cluster(3, edits=1)], sizes=[1])


def test_law_6_catches_a_pod_that_is_deleted_although_it_keeps_a_terminating_volume(monkeypatch):
    monkeypatch.setattr(seats.Place, "holding", False)
    caught("law 6: the pod", [cluster(1, edits=2, strikes=1)], targets=[3], shape=True)


def test_law_7_catches_a_leader_that_restarts_before_its_followers(monkeypatch):
    leads = seats.Cluster.leads
    monkeypatch.setattr(seats.Cluster, "leads", lambda self, place: not leads(self, place))
    caught("law 7", [cluster(3, edits=1)], targets=[1])


def test_law_8_catches_an_upgrade_that_skips_a_minor(monkeypatch):
    monkeypatch.setattr(versions, "path", lambda current, target: (target,))
    caught("law 8", [cluster(3, edits=1)], targets=[2])


def test_law_8_catches_a_minor_upgrade_that_begins_with_a_crashed_member(monkeypatch):
    monkeypatch.setattr(healing, "_begins_minor", lambda *_: False)
    caught("law 8: a minor upgrade begins", [cluster(3, edits=1, strikes=1)], targets=[1])


def test_law_8_catches_a_second_restart_before_the_first_member_serves(monkeypatch):
    monkeypatch.setattr(upgrading, "_obstacles", lambda cluster: "")
    caught("law 8", [cluster(5, edits=1)], targets=[1])


def test_law_8_catches_a_second_restart_before_the_kubelet_has_begun_the_first(monkeypatch):
    monkeypatch.setattr(seats.Place, "restarting", False)
    monkeypatch.setattr(seats.Place, "mislabelled", False)
    caught("law 8", [cluster(3, edits=1)], targets=[1])


def test_law_8_catches_a_second_restart_before_the_first_member_has_caught_up(monkeypatch):
    serves = property(lambda self: self.health is model.Signal.HEALTHY)
    monkeypatch.setattr(seats.Place, "linked", serves)
    caught("law 8: .* caught up", [cluster(3, edits=1, lags=True)], targets=[1])


def test_law_9_catches_a_change_without_its_claim(monkeypatch):
    def unguarded(self, action, name, step, reason, message, **_):
        return model.Decision(step, reason, message)

    monkeypatch.setattr(seats.Cluster, "guarded", unguarded)
    caught("law 9", [cluster(3, strikes=1)])


def test_law_12_catches_a_member_that_is_removed_because_it_is_out_of_sight(monkeypatch):
    def impatient(cluster):
        for place in cluster.voters:
            if place.pod and not place.pod.deleting and place.health is model.Signal.UNKNOWN:
                return healing.remove(cluster, place, "", "")
        return None

    plant(monkeypatch, healing.remove_lost, impatient)
    caught("law 12", [cluster(3, strikes=1)])


def test_law_13_catches_a_member_of_a_user_that_is_removed(monkeypatch):
    def greedy(cluster):
        for member in cluster.strangers:
            step = model.RemoveMember("stranger", member.id)
            return model.Decision(step, "", "")
        return None

    monkeypatch.setattr("tests.unit.etcd.laws.law_9", lambda *_: ())
    plant(monkeypatch, healing.clean_up, greedy)
    caught("law 13", [cluster(3, strikes=1)])


def test_the_exploration_catches_a_plan_that_does_not_heal(monkeypatch):
    plant(monkeypatch, healing.remove_lost, None)
    caught("does not heal", [cluster(3, strikes=1)])


def test_the_exploration_catches_a_member_that_hangs_for_ever(monkeypatch):
    monkeypatch.setattr(healing, "_hangs", lambda *_: False)
    caught("does not heal", [cluster(3, edits=2)], link=True)


def test_the_exploration_catches_a_plan_that_goes_in_circles(monkeypatch):
    def restless(cluster):
        serving = any(each.pod and each.pod.serving for each in cluster.voters)
        names = tuple(each.name for each in cluster.voters)
        step = model.Unserve(names) if serving else model.Serve(names)
        return model.Decision(step, "", "")

    plant(monkeypatch, plan.settle, restless)
    caught("circles", [cluster(3)])
