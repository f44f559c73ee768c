"""The steps that `members` carries out: their Events, what follows, and what they check right before."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest

from etcd_operator import errors, model
from etcd_operator.certificates import Certificates
from etcd_operator.etcd import Member, MemberList
from etcd_operator.members import Members, Next
from etcd_operator.model import Action, Claim, Configuration, Decision, EndpointState, PodPlan, Record, Trace
from etcd_operator.observe import Sight
from etcd_operator.settings import EtcdSettings
from etcd_operator.types import EtcdClusterStatus
from etcd_operator.views import LivePod
from pilothouse import EventType, ObjectMeta
from tests.unit.etcd.abstract import NOW
from tests.unit.etcd.manifests import UID, blueprint

CLUSTER_ID, LEADER, OTHER = 7, 1, 2
NAMES = ("example-aaaaa", "example-bbbbb")
CLUSTER = blueprint({})


class Etcd:
    """A member that records the calls, and answers with errors on request."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[str] = []
        self.error: errors.EtcdError | None = None
        self.listed = member_list()

    async def member_list(self) -> MemberList:
        return self.listed

    async def member_add(self, urls: list[str]) -> None:
        self._called(f"add {urls[0]}")

    async def member_promote(self, number: int) -> None:
        self._called(f"promote {number}")

    async def member_remove(self, number: int) -> None:
        self._called(f"remove {number}")

    async def move_leader(self, number: int) -> None:
        self._called(f"move leader to {number}")

    async def delete(self, key: bytes) -> None:
        assert key.startswith(b"\0")
        self._called("entry")

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if self.error:
            raise self.error


class Play:
    """A play that records what a step does."""

    check = False
    log = logging.getLogger(__name__)
    status = EtcdClusterStatus()

    def __init__(self) -> None:
        self.done: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.after: list[float] = []
        self.live: dict[str, Any] = {name: LivePod(metadata(name)) for name in NAMES}

    def requeue_after(self, seconds: float) -> None:
        self.after.append(seconds)

    def changed(self, message: str) -> None: ...

    def event(self, kind: EventType, reason: str, note: str) -> None:
        self.events.append((str(kind), reason))
        self.notes.append(note)

    async def record(self, status: EtcdClusterStatus) -> None:
        self.done.append("record")

    async def create(self, resource: Any, body: dict[str, Any], *, owned: bool = True) -> None:
        self.done.append(f"create {resource.kind}")

    async def patch(self, resource: Any, name: str, patch: dict[str, Any], *, owned: bool = True) -> None:
        self.done.append(f"patch {resource.kind}")

    async def delete(self, resource: Any, name: str, *, owned: bool = True) -> None:
        self.done.append(f"delete {resource.kind}")

    async def read(self, resource: Any, name: str) -> Any:
        return self.live.get(name)

    async def call(self, what: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        return await effect()


def metadata(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, uid=f"uid of {name}")


def member_list(*, learner: bool = False) -> MemberList:
    members = tuple(
        Member(number, name, (CLUSTER.peer_url(name),), ("x",), is_learner=learner and number == OTHER)
        for number, name in zip((LEADER, OTHER), NAMES, strict=True)
    )
    return MemberList(CLUSTER_ID, LEADER, 2, members)


class Scene:
    """Two members, of which the first one leads."""

    def __init__(self) -> None:
        self.play = Play()
        self.clients = {name: Etcd(name) for name in NAMES}
        self.refusals: list[model.Problem] = []
        self.without_volume = ""

    @property
    def leader(self) -> Etcd:
        return self.clients[NAMES[0]]

    def sight(self) -> Sight:
        observation = model.Observation(
            name="example",
            uid=UID,
            now=NOW,
            desired=model.Desired(size=2, version="3.6.14", shape="new"),
            record=Record(incarnation=1, cluster_id=CLUSTER_ID, founded=True),
            volumes=tuple(
                model.VolumeState(name=name, uid=f"uid of {name}")
                for name in NAMES
                if name != self.without_volume
            ),
            pods=tuple(
                model.PodState(
                    name=name,
                    uid=f"uid of {name}",
                    owner=UID,
                    version="3.6.14",
                    shape="new",
                    configuration=Configuration.POISONED,
                )
                for name in NAMES
            ),
            members_cluster_id=CLUSTER_ID,
            endpoints=tuple(
                EndpointState(name=name, member_id=number, leader_id=LEADER, cluster_id=CLUSTER_ID)
                for number, name in zip((LEADER, OTHER), NAMES, strict=True)
            ),
        )
        clients: Any = self.clients
        return Sight(observation, clients, member_list(), Certificates(), (), ())

    async def carry_out(self, step: model.Step, reason: str = "SomeReason") -> Next:
        play: Any = self.play
        decision = Decision(step, reason, "Why.")
        members = Members(play, CLUSTER, self.sight(), decision, EtcdSettings())
        following = await members.carry_out()
        self.refusals = members.refusals
        return following


@pytest.fixture
def scene() -> Scene:
    return Scene()


NAME, RECORD = NAMES[1], Record(incarnation=1)
POD = PodPlan(NAME, "3.6.14", Configuration.POISONED)
REMOVED = model.Mark(NAME, True, OTHER, "3.6.14", removed=True)
DECIDED, NORMAL, WARNING = "SomeReason", "Normal", "Warning"

# What follows each kind of step, and its Event. Steps without an Event write only notes, which no container
# and no client reads: in the status, on the volumes and on the Service. A blocked cluster is an alarm
# (`status.notices`).
STEPS: list[tuple[model.Step, Next, tuple[str, str] | None]] = [
    (model.RecordFounding(RECORD), Next.LATER, (NORMAL, DECIDED)),
    (model.RecordAbandoning(RECORD), Next.LATER, (WARNING, DECIDED)),
    (model.RecordFounded(RECORD), Next.LATER, (NORMAL, DECIDED)),
    (model.RecordResumed(RECORD), Next.LATER, (NORMAL, DECIDED)),
    (model.RecordVolumes(RECORD), Next.DECIDE, None),
    (model.RecordVolumes(RECORD, (POD,)), Next.LATER, (NORMAL, DECIDED)),
    (model.RecordSeats(RECORD), Next.DECIDE, None),
    (model.Announce(RECORD), Next.DECIDE, (NORMAL, DECIDED)),
    (model.Announce(Record(claim=Claim(Action.ADD, NAME))), Next.DECIDE, None),
    (model.CreateVolumes((NAME,)), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.CreatePods((POD,)), Next.LATER, (NORMAL, DECIDED)),
    (model.DeletePods((NAME,)), Next.LATER, (NORMAL, DECIDED)),
    (model.DeleteVolumes((NAME,)), Next.LATER, (NORMAL, DECIDED)),
    (model.Flip((NAME,)), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.Rejoin(NAME, NAMES), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.MarkVolumes((model.Mark(NAME, True, OTHER, ""),)), Next.OBSERVE, None),
    (model.MarkService(Trace(1, CLUSTER_ID)), Next.OBSERVE, None),
    (model.Serve((NAME,)), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.Unserve((NAME,)), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.AddLearner(NAME), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.Promote(NAME, OTHER), Next.LATER, (NORMAL, "New Member Added")),
    (model.RemoveMember(NAME, OTHER), Next.LATER, (NORMAL, "Member Removed")),
    (model.MoveLeader(NAME, OTHER), Next.OBSERVE, (NORMAL, DECIDED)),
    (model.PatchImage(NAME, "3.7.3"), Next.LATER, (NORMAL, "Member Upgraded")),
    (model.Wait(3.0), Next.LATER, None),
    (model.Blocked(), Next.LATER, None),
    (model.Settled(), Next.LATER, None),
]


# What has happened, for the steps that end a change. The other Events have the message of the decision.
NOTES = {
    model.Promote: f"The member {NAME} has a vote.",
    model.RemoveMember: f"Removed the member {NAME} from etcd.",
    model.PatchImage: f"Set the image of {NAME} to quay.io/coreos/etcd:v3.7.3. Its etcd restarts.",
}


def test_the_table_has_every_kind_of_step() -> None:
    assert {type(step) for step, _, _ in STEPS} == {*get_args(model.Step)}


@pytest.mark.parametrize(("step", "following", "event"), STEPS, ids=lambda each: type(each).__name__)
async def test_a_step_has_its_event_and_is_followed_by_the_next_one(
    scene: Scene, step: model.Step, following: Next, event: tuple[str, str] | None
) -> None:
    assert await scene.carry_out(step) is following
    assert scene.play.events == ([event] if event else [])
    assert scene.play.notes == ([NOTES.get(type(step), "Why.")] if event else [])
    # A reconcile that ends is queued again.
    assert bool(scene.play.after) == (following is Next.LATER)


@pytest.mark.parametrize(
    ("step", "reason", "event"),
    [
        (
            model.Announce(Record(claim=Claim(Action.REMOVE, NAME))),
            "ReplacingMember",
            "Replacing Dead Member",
        ),
        (model.Announce(Record(claim=Claim(Action.RESTART, NAME, interrupts=True))), "UpdatingMember", ""),
        (model.MarkVolumes((REMOVED,)), "RemovedMember", ""),
    ],
)
async def test_a_note_that_users_wait_for_is_an_event(
    scene: Scene, step: model.Step, reason: str, event: str
) -> None:
    await scene.carry_out(step, reason)
    assert [each for _, each in scene.play.events] == [event or reason]


async def test_the_first_pods_of_a_founding_follow_the_record_of_their_volumes(scene: Scene) -> None:
    await scene.carry_out(model.RecordVolumes(RECORD, (POD, POD)))
    assert scene.play.done == ["record", "create Pod", "create Pod"]


CHANGES: list[tuple[model.Step, str]] = [
    (model.AddLearner(NAME), f"add {CLUSTER.peer_url(NAME)}"),
    (model.Promote(NAME, OTHER), f"promote {OTHER}"),
    (model.RemoveMember(NAME, OTHER), f"remove {OTHER}"),
    (model.MoveLeader(NAME, OTHER), f"move leader to {OTHER}"),
]
EACH_CHANGE = pytest.mark.parametrize(("step", "call"), CHANGES, ids=lambda each: type(each).__name__)


@EACH_CHANGE
async def test_only_the_leader_is_asked_for_a_change(scene: Scene, step: model.Step, call: str) -> None:
    await scene.carry_out(step)
    assert [each.calls for each in scene.clients.values()] == [[call], []]


@EACH_CHANGE
async def test_without_the_leader_nothing_is_changed(scene: Scene, step: model.Step, call: str) -> None:
    del scene.clients[NAMES[0]]
    assert await scene.carry_out(step) is Next.LATER
    assert [each.calls for each in scene.clients.values()] == [[]]


@EACH_CHANGE
async def test_a_membership_that_has_changed_since_the_decision_stops_the_step(
    scene: Scene, step: model.Step, call: str
) -> None:
    scene.leader.listed = member_list(learner=True)
    assert await scene.carry_out(step) is Next.LATER
    assert (scene.leader.calls, scene.play.events) == ([], [])


@pytest.mark.parametrize(
    "gone", [{}, {NAME: LivePod(ObjectMeta(name=NAME, uid="another"))}], ids=["pod", "uid"]
)
async def test_a_member_is_removed_only_if_its_objects_are_live_as_they_were_observed(
    scene: Scene, gone: dict[str, LivePod]
) -> None:
    scene.play.live = gone
    assert await scene.carry_out(model.RemoveMember(NAME, OTHER)) is Next.LATER
    assert scene.leader.calls == []


async def test_a_member_whose_volume_has_lost_its_label_is_not_removed_but_reported(scene: Scene) -> None:
    scene.without_volume = NAME
    assert await scene.carry_out(model.RemoveMember(NAME, OTHER)) is Next.LATER
    assert (scene.leader.calls, scene.play.after) == ([], [30.0])
    [problem] = scene.refusals
    assert problem.reason == "LabelMissing"
    labels = f"app=etcd etcd_cluster=example etcd_node={NAME}"
    assert problem.message.endswith(f"kubectl label --overwrite -n default pvc {NAME} {labels}")
    # The watch is about to show one that has the label.
    labelled = ObjectMeta(name=NAME, uid=f"uid of {NAME}", labels={"etcd_cluster": "example"})
    scene.play.live[NAME] = LivePod(labelled)
    assert await scene.carry_out(model.RemoveMember(NAME, OTHER)) is Next.LATER
    assert (scene.refusals, scene.play.after[1:]) == ([], [1.0])


async def test_a_volume_is_deleted_only_if_it_is_live_as_it_was_observed(scene: Scene) -> None:
    scene.play.live = {NAME: LivePod(ObjectMeta(name=NAME, uid="another"))}
    await scene.carry_out(model.DeleteVolumes((NAME,)))
    assert scene.play.done == []


@pytest.mark.parametrize("error", [errors.MemberExists, errors.MemberNotFound, errors.NotALearner])
@EACH_CHANGE
async def test_a_change_that_was_executed_before_is_observed_in_the_next_reconcile(
    scene: Scene, step: model.Step, call: str, error: type[errors.Refused]
) -> None:
    """A change of the voters always ends the reconcile, because the budget is applied at its beginning."""
    scene.leader.error = error("etcd refused", "x", "y")
    assert await scene.carry_out(step) is Next.LATER
    assert (scene.play.events, scene.refusals) == ([], [])


@pytest.mark.parametrize(
    "error",
    [
        errors.UnhealthyCluster("etcd refused", "x", "y"),
        errors.LearnerNotReady("etcd refused", "x", "y"),
        errors.TooManyLearners("etcd refused", "x", "y"),
        errors.NoLeader("etcd refused", "x", "y"),
        errors.DeadlineExceeded("no answer", maybe_executed=True),
        errors.Unreachable("no connection", maybe_executed=False, refused=True),
        errors.TlsFailed("no handshake"),
    ],
    ids=lambda error: type(error).__name__,
)
@EACH_CHANGE
async def test_a_refusal_that_passes_is_a_wait_and_not_a_failure(
    scene: Scene, step: model.Step, call: str, error: errors.EtcdError
) -> None:
    for member in scene.clients.values():
        member.error = error
    assert await scene.carry_out(step) is Next.LATER
    assert (scene.play.events, scene.refusals) == ([], [])
    assert max(scene.play.after) <= 1


async def test_a_follower_is_asked_if_the_leader_counts_a_peer_as_inactive(scene: Scene) -> None:
    """A leader may do so until its connection to that peer breaks."""
    scene.leader.error = errors.UnhealthyCluster("etcd refused", "x", "y")
    url = f"add {CLUSTER.peer_url('example-ccccc')}"
    assert await scene.carry_out(model.AddLearner("example-ccccc")) is Next.OBSERVE
    assert [each.calls for each in scene.clients.values()] == [[url], [url]]


@pytest.mark.parametrize("error", [errors.NoLeader("etcd refused", "x", "y"), errors.TlsFailed("no")])
async def test_only_the_leader_is_asked_if_its_answer_may_be_lost(
    scene: Scene, error: errors.EtcdError
) -> None:
    scene.leader.error = error
    assert await scene.carry_out(model.AddLearner("example-ccccc")) is Next.LATER
    assert len(scene.leader.calls) == 1
    assert scene.clients[NAMES[1]].calls == []


async def test_a_member_is_not_asked_to_remove_itself(scene: Scene) -> None:
    scene.leader.error = errors.UnhealthyCluster("etcd refused", "x", "y")
    assert await scene.carry_out(model.RemoveMember(NAME, OTHER)) is Next.LATER
    assert scene.clients[NAME].calls == []


@EACH_CHANGE
async def test_a_missing_permission_is_named(scene: Scene, step: model.Step, call: str) -> None:
    scene.leader.error = errors.PermissionDenied("etcd refused", "x", "y")
    assert await scene.carry_out(step) is Next.LATER
    [problem] = scene.refusals
    assert problem.reason == "PermissionDenied"
    assert "role root" in problem.message
    assert scene.play.after == [30.0]


async def test_a_member_is_not_patched_if_its_pod_is_gone(scene: Scene) -> None:
    scene.play.live = {}
    assert await scene.carry_out(model.PatchImage(NAME, "3.7.3")) is Next.OBSERVE
    assert (scene.play.done, scene.play.events) == ([], [])


@pytest.mark.parametrize(
    "error",
    [None, errors.NoLeader("etcd", "x", "y"), errors.PermissionDenied("etcd refused", "x", "y")],
    ids=str,
)
async def test_an_entry_is_written_for_a_member_that_does_not_serve_yet(
    scene: Scene, error: errors.EtcdError | None
) -> None:
    scene.leader.error = error
    assert await scene.carry_out(model.Wait(0.5, nudge=True)) is Next.LATER
    assert scene.leader.calls == ["entry"]
    assert scene.play.after == [0.5]
    assert scene.refusals == []


async def test_without_a_leader_no_entry_is_written(scene: Scene) -> None:
    scene.clients.clear()
    assert await scene.carry_out(model.Wait(0.5, nudge=True)) is Next.LATER
    assert scene.play.after == [0.5]
