"""A copy of a volume is no second member, and replaced voters do not come back from a backup."""

from typing import Any

import pytest
from msgspec.structs import replace

from etcd_operator import model as m
from etcd_operator import plan
from tests.unit.etcd.abstract import cluster, observe, settle

DELETED = "the UID of the deleted object"


def decide(observation: m.Observation) -> Any:
    """Decides. Any: a test knows which step it expects."""
    return plan.decide(observation)


def living(size: int = 3) -> m.Observation:
    """A healthy cluster. Its PVCs have the label `etcd_node`."""
    observation = observe(settle(cluster(size)))
    volumes = tuple(replace(each, labelled=each.name) for each in observation.volumes)
    return replace(observation, volumes=volumes)


def with_volumes(observation: m.Observation, *volumes: m.VolumeState) -> m.Observation:
    return replace(observation, volumes=(*observation.volumes, *volumes))


def unseen(observation: m.Observation) -> m.Observation:
    """The same cluster while no member returns a linearizable list, for example during an election."""
    return replace(observation, members=None, members_cluster_id=0)


def recreated(observation: m.Observation) -> m.Observation:
    """A new EtcdCluster over the same volumes."""
    volumes = tuple(replace(each, owner=DELETED) for each in observation.volumes)
    return replace(unseen(observation), uid="new", record=m.Record(), volumes=volumes, pods=(), endpoints=())


def copy_of(observation: m.Observation, **values: Any) -> m.VolumeState:
    return replace(observation.volumes[0], name="c-copy", uid="copy", **values)


RELABELLED = {"labelled": "c-copy"}
UNLABELLED = {"labelled": ""}
LABELS = pytest.mark.parametrize("label", [{}, RELABELLED, UNLABELLED], ids=["kept", "changed", "removed"])


# ----------------------------------------------------------------------------------------------- copies


@LABELS
@pytest.mark.parametrize("sight", [unseen, lambda each: each], ids=["unseen", "seen"])
def test_a_copy_of_a_living_member_s_volume_is_reported_and_not_started(sight, label):
    observation = living()
    decision = decide(sight(with_volumes(observation, copy_of(observation, **label))))
    assert isinstance(decision.step, m.Settled | m.Wait)
    [problem] = [each for each in decision.problems if each.reason == "VolumeCopied"]
    assert f"c-copy (of {observation.volumes[0].name})" in problem.message
    assert "elete a copy" in problem.message


def test_the_pod_of_a_copy_is_deleted_and_the_copy_is_kept():
    observation = living()
    pod = replace(observation.pods[0], name="c-copy", uid="pod", serving=False)
    observation = replace(with_volumes(observation, copy_of(observation)), pods=(*observation.pods, pod))
    assert decide(observation).step == m.DeletePods(("c-copy",))


@pytest.mark.parametrize("label", [{}, UNLABELLED], ids=["kept", "removed"])
def test_a_copy_of_a_removed_member_s_volume_is_neither_deleted_nor_marked(label):
    observation = living()
    removed = replace(observation.volumes[0], name="c-gone", uid="gone", member_id=90, removed=True)
    copied = replace(removed, name="c-copy", uid="copy", labelled="c-gone", removed=False)
    observation = with_volumes(observation, removed, replace(copied, **label))
    for delete in (False, True):
        desired = replace(observation.desired, delete_scaled=delete)
        assert isinstance(decide(replace(observation, desired=desired)).step, m.Settled)


def test_a_volume_is_its_member_s_own_although_its_label_was_changed():
    observation = living()
    first, *others = observation.volumes
    changed = replace(first, labelled="c-other")
    observation = replace(observation, volumes=(changed, *others))
    assert decide(observation).problems == ()
    without_pod = replace(observation, pods=observation.pods[1:], endpoints=observation.endpoints[1:])
    assert [each.name for each in decide(unseen(without_pod)).step.pods] == [first.name]


def test_a_recreated_object_resumes_the_originals_without_the_copies():
    observation = living()
    decision = decide(recreated(with_volumes(observation, copy_of(observation))))
    assert isinstance(decision.step, m.RecordResumed)
    assert [each.name for each in decision.step.record.seats] == [each.name for each in observation.volumes]
    resumed = replace(with_volumes(observation, copy_of(observation)), record=decision.step.record)
    assert "VolumeCopied" in {each.reason for each in decide(resumed).problems}


@pytest.mark.parametrize("label", [RELABELLED, UNLABELLED], ids=["changed", "removed"])
def test_two_volumes_with_one_member_id_are_not_resumed(label):
    observation = living()
    decision = decide(recreated(with_volumes(observation, copy_of(observation, **label))))
    assert (decision.step, decision.reason) == (m.Blocked(), "VolumeCopied")
    assert f"which is the original: {observation.volumes[0].name}, c-copy" in decision.message


def test_nothing_is_founded_beside_copies_that_are_left():
    observation = living()
    left = replace(observation, volumes=(copy_of(observation),), trace=None)
    decision = decide(recreated(left))
    assert (decision.step, decision.reason) == (m.Blocked(), "VolumeCopied")
    assert "restore it under its own name" in decision.message


def test_a_copy_under_the_name_of_a_lost_member_is_not_started():
    observation = living()
    lost, *others = observation.volumes
    foreign = replace(others[0], name=lost.name, uid="copy")
    observation = replace(observation, volumes=(foreign, *others), pods=observation.pods[1:])
    decision = decide(unseen(observation))
    assert not isinstance(decision.step, m.CreatePods)
    assert "VolumeCopied" in {each.reason for each in decision.problems}
    resumed = decide(recreated(observation)).step
    assert [each.volume_uid for each in resumed.record.seats if each.name == lost.name] == ["lost"]


# ------------------------------------------------------------------------------------- earlier generations


def restored(observation: m.Observation, *, epoch: int = 1) -> m.Observation:
    """Adds the volumes of three voters that were replaced one by one, from a backup of that time."""
    names = ("c-old0", "c-old1", "c-old2")
    current = tuple(replace(each, epoch=5) for each in observation.volumes)
    earlier = tuple(
        replace(
            current[0], name=name, uid=name, labelled=name, member_id=90 + index, epoch=epoch, voters=names
        )
        for index, name in enumerate(names)
    )
    return replace(observation, volumes=(*current, *earlier))


def test_replaced_voters_are_not_started_while_there_is_no_member_list():
    observation = restored(living())
    assert not isinstance(decide(unseen(observation)).step, m.CreatePods)


def test_replaced_voters_are_not_resumed():
    observation = restored(living())
    decision = decide(recreated(observation))
    assert [each.name for each in decision.step.record.seats] == [each.name for each in living().volumes]
    assert "c-old0, c-old1, c-old2 were replaced" in decision.message
    started = decide(replace(recreated(observation), record=decision.step.record)).step
    assert [each.name for each in started.pods] == [each.name for each in living().volumes]


def test_the_volumes_of_replaced_voters_are_kept_once_etcd_answers():
    step = decide(restored(living())).step
    assert [(each.name, each.removed) for each in step.marks] == [("c-old0", True)]


def test_a_voter_whose_volume_has_no_epoch_yet_is_started():
    observation = living()
    promoted = replace(copy_of(observation), name="c-new", labelled="c-new", member_id=9, voters=(), epoch=0)
    step = decide(unseen(with_volumes(observation, promoted))).step
    assert [each.name for each in step.pods] == ["c-new"]


def test_a_voter_of_the_newest_change_is_started_although_its_own_mark_is_older():
    observation = living()
    newest, *others = observation.volumes
    names = tuple(each.name for each in observation.volumes)
    volumes = (replace(newest, epoch=2, voters=names), *others)
    step = decide(recreated(replace(observation, volumes=volumes))).step
    assert [each.name for each in step.record.seats] == [*names]


def test_nothing_is_changed_while_replaced_voters_have_a_quorum_of_their_own():
    observation = restored(living())
    old = tuple(each for each in observation.volumes if each.name.startswith("c-old"))
    pods = tuple(replace(observation.pods[0], name=each.name, uid=f"p-{each.name}") for each in old)
    listed = tuple(m.MemberState(each.member_id, each.name) for each in old)
    observation = replace(observation, pods=(*observation.pods, *pods), members=listed)
    rivals = tuple(each.name for each in living().volumes)
    decision = decide(replace(observation, rivals=rivals))
    assert (decision.step, decision.reason) == (m.Blocked(), "SecondQuorum")
    assert f"one with c-old0, c-old1, c-old2, and one with {', '.join(rivals)}" in decision.message


# --------------------------------------------------------------------------------------- foreign objects


def unfounded_beside(**values: Any) -> m.Observation:
    """An EtcdCluster without a founding, beside objects of a healthy one."""
    observation = replace(unseen(living()), record=m.Record(), endpoints=(), volumes=(), trace=None)
    return replace(observation, **{"pods": (), **values})


def blocked(observation: m.Observation) -> str:
    decision = decide(observation)
    assert (decision.step, decision.reason) == (m.Blocked(), "ForeignObjects")
    return str(decision.message)


def test_a_restored_claim_without_annotations_is_not_to_be_deleted():
    message = blocked(unfounded_beside(volumes=(m.VolumeState(name="c-aaaaa", uid="restored"),)))
    assert "restore their annotations" in message
    assert "elete" not in message


def test_the_pods_of_a_coreos_cluster_are_not_deleted_although_the_object_owns_them():
    pods = tuple(replace(each, shape="") for each in living().pods)
    message = blocked(unfounded_beside(pods=pods))
    assert f"did not create the pods {', '.join(each.name for each in pods)}" in message
    assert "Save a snapshot of it before you delete them" in message


def test_a_status_of_the_coreos_operator_leads_to_the_page_that_moves_its_data():
    message = blocked(replace(unfounded_beside(), record=m.Record(foreign_status=True)))
    assert "migrate.md" in message
    assert "elete" not in message


@pytest.mark.parametrize("ephemeral", [True, False])
def test_orphaned_pods_are_to_be_deleted_only_if_their_claims_keep_the_data(ephemeral):
    before = living()
    pods = tuple(replace(each, owner="") for each in before.pods)
    desired = replace(before.desired, ephemeral=ephemeral)
    message = blocked(unfounded_beside(pods=pods, volumes=before.volumes, desired=desired))
    assert ("Delete them: their PVCs keep the data" in message) is not ephemeral
    assert ("Save a snapshot of it before you delete them" in message) is ephemeral


def test_pods_that_a_founded_cluster_does_not_own_are_not_just_to_be_deleted():
    observation = living()
    pod = replace(observation.pods[0], name="c-other", uid="other", owner="")
    found = decide(replace(observation, pods=(*observation.pods, pod))).problems
    assert "save their data and delete them" in next(
        each.message for each in found if each.reason == "ForeignPods"
    )
