"""What the operator knows about one etcd cluster, and the steps that it can take. There is no I/O here.

`observe` builds an `Observation`, `plan.decide` turns it into a `Decision`, and `members` carries the step
out. Member IDs and cluster IDs are numbers here. The status and the annotations hold them in hexadecimal.

A *seat* is a place in the cluster: one member name with its PVC, its pod and its member in etcd. The name is
never used twice. PVC, pod and member have the seat's name.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from etcd_operator.etcd import Alarm


class Signal(StrEnum):
    """What the operator knows about the health of something.

    UNKNOWN means that the operator cannot see it: a deadline, a refused permission, a failed handshake or a
    node that does not report. UNKNOWN justifies no destructive step.
    """

    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    UNKNOWN = "Unknown"


class Configuration(StrEnum):
    """How a pod's annotations configure a member that starts on an empty volume.

    Etcd ignores the configuration if the volume has a write-ahead log.
    """

    FOUNDING = "Founding"
    """State `new` with all members of the founding. Exists only until `Record.founded`."""
    JOINING = "Joining"
    """State `existing` with all members and itself: a learner that has not started yet."""
    POISONED = "Poisoned"
    """State `existing` without itself: etcd refuses to start on an empty volume."""


class Failure(StrEnum):
    """Why a pod does not run etcd, as the kubelet or the scheduler reports it."""

    PENDING = "Pending"
    """The pod is not scheduled, or its volume is not bound or mounted."""
    IMAGE = "Image"
    """The image cannot be pulled."""
    CONTAINER = "Container"
    """The container cannot be created or started, for example because a Secret of a variable is missing."""
    CRASH = "Crash"
    """Etcd exits again and again."""
    REFUSED_EMPTY = "RefusedEmpty"
    """The poison message of etcd: the volume is empty although the member has started before."""
    ENDED = "Ended"
    """The phase is Failed or Succeeded. The kubelet never starts a container in the pod again."""


class Phase(StrEnum):
    """How far a founding is."""

    PREPARING = "Preparing"
    """The volumes are created. There is no pod, so nothing can have started."""
    STARTING = "Starting"
    """The UIDs of all volumes are recorded. Pods may exist."""
    ABANDONING = "Abandoning"
    """The founding is given up: its pods are deleted, and volumes that a pod may have used are kept."""


class Action(StrEnum):
    """What a claim announces."""

    ADD = "Add"
    """Add a member: volume, pod, learner, voter, client Service."""
    REMOVE = "Remove"
    """Remove a member from etcd."""
    RESTART = "Restart"
    """Patch the image of a member's pod, or delete the pod so that it is created again."""


class Desired(msgspec.Struct, frozen=True, kw_only=True):
    """A valid spec. `validation` makes it from the spec, or from the last valid spec in the status.

    Attributes:
        size: The number of voters, 1 to 7.
        version: The version to run, without a leading "v", such as `3.6.14`.
        pinned: Whether `spec.version` is set. If not, `version` is `Record.version`, or the newest supported
            one if that is not recorded yet.
        image: The image of `version`, for messages. The steps carry versions.
        shape: The hash of the spec's inputs that shape a pod, with the image's repository and without its
            version. A change recreates pods.
        storage: The hash of what cannot change for an existing volume: the storage class and `ephemeral`.
        ephemeral: Whether the data is in an emptyDir. Then the pod is the volume, with the pod's UID.
        delete_scaled: Whether `storage.whenScaled` is Delete: the data of a removed member is deleted.
        scheme: The peer and client scheme, such as `http/http`. It is a part of the peer URLs.
        domain: `spec.pod.ClusterDomain`. It is a part of the peer URLs.
        automatic: Whether one edit of `spec.version` may walk through several minors.
        paused: Whether `spec.paused` is set.
    """

    size: int
    version: str
    shape: str
    pinned: bool = True
    image: str = ""
    storage: str = ""
    ephemeral: bool = False
    delete_scaled: bool = False
    scheme: str = "http/http"
    domain: str = ""
    automatic: bool = True
    paused: bool = False


class Seat(msgspec.Struct, frozen=True):
    """A recorded voter: `status` holds a list of them.

    Attributes:
        name: The name of the member, its pod and its PVC.
        member_id: The member's ID. 0 during the founding.
        volume_uid: The UID of its PVC. "" until it is recorded.
    """

    name: str
    member_id: int = 0
    volume_uid: str = ""


class Claim(msgspec.Struct, frozen=True):
    """The durable announcement of a change, `status.step`. It precedes the change.

    Attributes:
        action: What is going to change.
        name: The seat's name.
        member_id: The member's ID for REMOVE, and for ADD before the learner is promoted; 0 otherwise.
        version: The version to restart with for RESTART; "" otherwise.
        interrupts: Whether clients can notice it. At one and two voters the claim is the announcement of the
            interruption: `status` shows it as a condition, and `members` records an Event.
        since: When the claim was recorded.
        prepared: The seat that was prepared for an ADD which this more urgent change interrupts. "": none.
    """

    action: Action
    name: str
    member_id: int = 0
    version: str = ""
    interrupts: bool = False
    since: datetime | None = None
    prepared: str = ""


class Founding(msgspec.Struct, frozen=True):
    """A founding that is not complete. Its members are `Record.seats`, with `Record.incarnation`.

    Attributes:
        phase: How far it is.
        version: The version of the spec that it founds.
        shape: The shape of the spec that it founds.
        storage: The storage hash of the spec that it founds.
        scheme: The scheme of the spec that it founds.
        since: When it was recorded.
        ran: Whether etcd may have run in one of its pods, so that a client may have written. Also true if a
            pod that was created once is missing.
    """

    phase: Phase
    version: str
    shape: str
    storage: str
    scheme: str
    since: datetime | None = None
    ran: bool = False


class Record(msgspec.Struct, frozen=True):
    """What the operator has recorded about the cluster in the EtcdCluster's status.

    It is written with the resourceVersion that it was decided on. `types` declares the fields.

    Attributes:
        incarnation: The number of the founding, from 1. 0: nothing was ever founded.
        next_member: The counter of the next member name. It only grows.
        version: The version that was chosen for a spec without one. "": none yet.
        cluster_id: etcd's cluster ID. 0 until `founded`.
        founded: Whether the founding is complete. The state `new` never exists after that.
        founding: The incomplete founding. None after it is complete.
        seats: The founding's members, or after it the last known voters.
        claim: The change in progress. None: there is none.
        foreign_status: Whether the status has the fields of the coreos operator and no incarnation.
    """

    incarnation: int = 0
    next_member: int = 0
    version: str = ""
    cluster_id: int = 0
    founded: bool = False
    founding: Founding | None = None
    seats: tuple[Seat, ...] = ()
    claim: Claim | None = None
    foreign_status: bool = False


class VolumeState(msgspec.Struct, frozen=True, kw_only=True):
    """A PVC with the label `etcd_cluster=NAME`, or of a member, or the emptyDir of a pod.

    Attributes:
        name: The seat's name.
        uid: The PVC's UID, or the pod's UID if the data is in an emptyDir.
        owner: The annotation `cluster-uid`. "": the PVC is foreign, because this operator did not create it.
        incarnation: The annotation `incarnation`.
        started: The annotation `started`: the member is or was a voter, so its data may be the only copy of
            an acknowledged write.
        member_id: The annotation `member-id`. 0: not known yet.
        cluster_id: The annotation `cluster-id`. 0: not known yet.
        version: The annotation `version`: the version that last ran on it. "": none yet.
        scheme: The annotation `scheme`.
        domain: The annotation `domain`: the `ClusterDomain` of the member's peer URL. None: not recorded.
        service: The annotation `service`: the DNS name of the headless Service. None: not recorded.
        voters: The annotation `voters`: the names of all voters when it was written.
        epoch: The number of the change of the voters, a part of the annotation `voters`. The greatest wins.
        removed: The annotation `removed`: etcd has confirmed that the member is removed. Never used again.
        deleting: Whether the PVC is Terminating. Kubernetes deletes it when no pod uses it.
        held: The finalizers that keep it also after that, while it is Terminating. (): none do.
        bound: Whether the PVC has or had a PersistentVolume. Without one, no pod can have used it.
        lost: Whether the PVC's phase is Lost: its PersistentVolume is gone. With emptyDir, whether the pod
            has ended.
        unreadable: The key of an annotation that cannot be read. "": all can be read.
        labelled: The label `etcd_node` of the PVC: the name that it was created with. "": it is missing.
        unlabelled: Whether it has lost the label. It was found by its name, and cannot be patched.
    """

    name: str
    uid: str
    owner: str = ""
    incarnation: int = 0
    started: bool = False
    member_id: int = 0
    cluster_id: int = 0
    version: str = ""
    scheme: str = "http/http"
    domain: str | None = None
    service: str | None = None
    voters: tuple[str, ...] = ()
    epoch: int = 0
    removed: bool = False
    bound: bool = False
    deleting: bool = False
    held: tuple[str, ...] = ()
    lost: bool = False
    unreadable: str = ""
    labelled: str = ""
    unlabelled: bool = False


class PodState(msgspec.Struct, frozen=True, kw_only=True):
    """A pod with the label `etcd_cluster=NAME`, or of a member.

    Attributes:
        name: The seat's name.
        uid: The pod's UID.
        owner: The UID of its controlling EtcdCluster. "": it has none, so it is foreign.
        image: Its image in the spec of the pod, for messages.
        version: The version of its image in the spec of the pod.
        other_image: Whether the operator now has another image for this version.
        patched: Whether its image was patched, and the container of the earlier image was not replaced yet.
        shape: The annotation `shape`.
        configuration: What its annotations configure.
        peers: The seats in its annotation `initial-cluster`, by the host names of the peer URLs. "" stands
            for a peer URL that is not under the headless Service.
        serving: Whether it has the labels that the client Service selects.
        addressed: Whether its address is in the EndpointSlice of the headless Service.
        ran: Whether etcd may have run in it. False only if the kubelet or the scheduler reports that no
            container has started yet.
        ready: The condition Ready.
        deleting: Whether it is Terminating.
        held: The finalizers that keep it although it is Terminating and no container runs. (): none do.
        unlisted: Whether the kubelet delays the next start of etcd, which exited because the members did not
            list it yet, or have other peer URLs than the pod is configured with.
        failure: Why it does not run etcd. None: it runs, or it is starting.
        damaged: Whether etcd exits because its data is damaged, by its last words. False: it does not say so.
        failing_since: When the failure began, from the pod's conditions and container states.
        created: When the pod was created. None: unknown.
        first_start: When its container started, if that was the first time in this pod. The members that
            knew an earlier pod then learn its address. None: it has not started, or has restarted since.
        unready_since: Since when it is not Ready. None: it is Ready.
        detail: The kubelet's message about the failure, for users.
        node: The Ready condition of its node, which is read while the pod is not ready. UNKNOWN also if the
            operator may not read nodes.
        node_name: The name of its node. "": it is not scheduled.
        unlabelled: Whether it has lost the label. It was found by its name, and cannot be patched.
    """

    name: str
    uid: str
    owner: str
    version: str
    shape: str
    configuration: Configuration
    peers: frozenset[str] = frozenset()
    serving: bool = False
    addressed: bool = False
    ran: bool = True
    image: str = ""
    other_image: bool = False
    patched: bool = False
    ready: bool = False
    deleting: bool = False
    held: tuple[str, ...] = ()
    unlisted: bool = False
    failure: Failure | None = None
    damaged: bool = False
    failing_since: datetime | None = None
    created: datetime | None = None
    first_start: datetime | None = None
    unready_since: datetime | None = None
    detail: str = ""
    node: Signal = Signal.HEALTHY
    node_name: str = ""
    unlabelled: bool = False


class MemberState(msgspec.Struct, frozen=True):
    """A member in etcd's linearizable member list.

    Attributes:
        id: Its ID.
        name: The seat's name, from its peer URL `http://<name>.<cluster>.<namespace>.svc:2380`. "": another
            peer URL, so a user has added it, or has changed its peer URL. Only the ID shows which.
        learner: Whether it has no vote.
        started: Whether it has published its name.
        urls: All of its peer URLs, if they are not just the one that the operator expects. (): they are.
        outside: Whether one of them is not under the headless Service.
        domain: The `ClusterDomain` of its peer URL. None: it is not under the headless Service.
    """

    id: int
    name: str
    learner: bool = False
    started: bool = True
    urls: tuple[str, ...] = ()
    outside: bool = False
    domain: str | None = None


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """What the member in a pod answers. It answers Status without a quorum.

    Attributes:
        name: The seat's name.
        health: HEALTHY: it answers Status, and a linearizable read if it is a voter. UNHEALTHY: it certainly
            does not serve, because the kubelet reports that its container does not run, or the connection is
            refused, or it answers that it has no leader. UNKNOWN: everything else.
        linked: HEALTHY: the leader replicates to it and it has caught up, so the next member may restart.
        member_id: Its member ID. 0: no answer.
        cluster_id: Its cluster ID. 0: no answer.
        leader_id: The member ID of its leader. 0: none, or no answer.
        term: Its Raft term.
        raft_index: The index of its last committed log entry.
        revision: The revision of its store. 0: no answer.
        hash: Its HashKV at `revision`. Read only before `Record.founded`. 0: not read.
        version: The version of its binary.
        db_size: The size of its database in bytes.
        corrupt: Whether etcd has the alarm CORRUPT for it, or without the name of a member, or for a member
            that is not known because the alarms are not.
    """

    name: str
    health: Signal = Signal.UNKNOWN
    linked: Signal = Signal.UNKNOWN
    member_id: int = 0
    cluster_id: int = 0
    leader_id: int = 0
    term: int = 0
    raft_index: int = 0
    revision: int = 0
    hash: int = 0
    version: str = ""
    db_size: int = 0
    corrupt: bool = False


class Trace(msgspec.Struct, frozen=True):
    """What the annotations of the headless Service hold: that this EtcdCluster has a cluster.

    Kubernetes deletes the Service together with the EtcdCluster. So they outlive the status and all volumes,
    and another EtcdCluster of the same name does not have them.

    Attributes:
        incarnation: The annotation `incarnation`. 0: there is none.
        cluster_id: The annotation `cluster-id`. 0: there is none.
    """

    incarnation: int = 0
    cluster_id: int = 0


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision depends on, at one instant.

    Before `Record.founded`, volumes and pods come from a live list. After it they may come from the Store,
    and `members` checks the target of a destructive step live, right before it carries the step out.

    Attributes:
        name: The name of the EtcdCluster.
        uid: Its UID.
        namespace: Its namespace, for messages.
        now: The time of the observation.
        desired: The valid spec.
        record: What the status holds.
        volumes: All labelled volumes, and those of members that have lost the label.
        claims: The labelled PVCs if the data of the members is in emptyDir. They are observed until the
            cluster is founded: one of them may hold the data of an earlier cluster.
        pods: All labelled pods, and those of members that have lost the label.
        members: A linearizable member list of this reconcile. None: no member returned one.
        members_cluster_id: The cluster ID of that list. 0: no list.
        rivals: The pods of members that have a quorum of their own in the same cluster, beside the members of
            that list. (): only one quorum answers.
        recalled: Without that list, the members that a voter without a leader has in its list. No quorum
            confirms them, so they are only for messages. (): no voter returned them.
        endpoints: The answers of the pods. A pod without an entry counts as UNKNOWN.
        alarms: The alarms of the cluster. Etcd keeps those of members that were removed. None: there are
            some, and no member has answered which.
        blind: Why the operator cannot see the members, for users, such as a refused permission. "": it can.
        trace: What the annotations of the headless Service hold. None: this EtcdCluster has no such Service.
        peer_secret: The Secret with the certificates for peers. "": there is none.
        distrusting: The pods that trust none of the authorities for peers in that Secret, so that they would
            refuse a member that restarts.
        peer_url: The peer URL that the operator expects of a member, with {} in the place of its name.
        service: The DNS name of the headless Service, without the `ClusterDomain`.
    """

    name: str
    uid: str
    now: datetime
    desired: Desired
    record: Record = Record()
    volumes: tuple[VolumeState, ...] = ()
    claims: tuple[VolumeState, ...] = ()
    pods: tuple[PodState, ...] = ()
    members: tuple[MemberState, ...] | None = None
    members_cluster_id: int = 0
    rivals: tuple[str, ...] = ()
    recalled: tuple[MemberState, ...] = ()
    endpoints: tuple[EndpointState, ...] = ()
    alarms: tuple[Alarm, ...] | None = ()
    blind: str = ""
    trace: Trace | None = None
    peer_secret: str = ""
    distrusting: frozenset[str] = frozenset()
    peer_url: str = "http://{}:2380"
    service: str = ""
    namespace: str = "default"


# The steps. Each is idempotent: it can be carried out again after a crash. A `Record...` step and `Announce`
# only write the status; `members` may decide again right after them, on the same observation with the new
# record.


class RecordFounding(msgspec.Struct, frozen=True):
    """Record a new founding in the status, in phase PREPARING: names, incarnation, counter.

    The token is made of the object's UID and the incarnation. The peer URLs follow from the names.
    """

    record: Record


class CreateVolumes(msgspec.Struct, frozen=True):
    """Create the PVCs of seats, with the annotations `cluster-uid`, `incarnation`, `scheme` and `domain`."""

    names: tuple[str, ...]


class PodPlan(msgspec.Struct, frozen=True):
    """A pod to create.

    Attributes:
        name: The seat's name.
        version: The version of its image.
        configuration: What its annotations configure.
        peers: The seats in `initial-cluster` for FOUNDING and JOINING. For JOINING, `members`
            takes the peer URLs from the member list and adds the own one of the pod. () for POISONED.
        serving: Whether it has the label that the client Service selects.
    """

    name: str
    version: str
    configuration: Configuration
    peers: tuple[str, ...] = ()
    serving: bool = False


class RecordVolumes(msgspec.Struct, frozen=True):
    """Record the UIDs of the founding's volumes, and phase STARTING.

    Attributes:
        record: The record.
        pods: The first pods on these volumes, to create as soon as the record is written. One step does both,
            so that a pod that is missing later is known to have existed.
    """

    record: Record
    pods: tuple[PodPlan, ...] = ()


class RecordAbandoning(msgspec.Struct, frozen=True):
    """Record that the founding is given up: phase ABANDONING."""

    record: Record


class RecordFounded(msgspec.Struct, frozen=True):
    """Record the cluster ID, the member IDs and that the founding is complete."""

    record: Record


class RecordResumed(msgspec.Struct, frozen=True):
    """Record the voters of retained volumes as the members of a founded cluster."""

    record: Record


class RecordSeats(msgspec.Struct, frozen=True):
    """Record the voters of the linearizable member list."""

    record: Record


class Announce(msgspec.Struct, frozen=True):
    """Record a claim (`Record.claim`), or that there is no claim any more. Record an Event for it."""

    record: Record


class CreatePods(msgspec.Struct, frozen=True):
    """Create pods on the existing volumes of their seats, without waiting until one of them is ready."""

    pods: tuple[PodPlan, ...]


class DeletePods(msgspec.Struct, frozen=True):
    """Delete pods with their grace period, with a precondition on the UID."""

    names: tuple[str, ...]


class DeleteVolumes(msgspec.Struct, frozen=True):
    """Delete PVCs, with a precondition on the UID. Their pods are gone."""

    names: tuple[str, ...]


class Flip(msgspec.Struct, frozen=True):
    """Patch the annotations of pods to POISONED. The containers do not restart."""

    names: tuple[str, ...]


class Rejoin(msgspec.Struct, frozen=True):
    """Patch the annotations of a pod to JOINING with these members, because the membership has changed."""

    name: str
    peers: tuple[str, ...]


class Mark(msgspec.Struct, frozen=True):
    """The annotations of one volume.

    Attributes:
        name: The seat's name.
        started: The annotation `started`.
        member_id: The annotation `member-id`.
        version: The annotation `version`.
        voters: The annotation `voters`.
        epoch: The epoch in the annotation `voters`.
        removed: The annotation `removed`.
        domain: The annotation `domain`. None: it stays as it is.
    """

    name: str
    started: bool
    member_id: int
    version: str
    voters: tuple[str, ...] = ()
    epoch: int = 0
    removed: bool = False
    domain: str | None = None


class MarkVolumes(msgspec.Struct, frozen=True):
    """Patch the annotations of volumes, with `cluster-uid` and `cluster-id` as recorded."""

    marks: tuple[Mark, ...]


class MarkService(msgspec.Struct, frozen=True):
    """Annotate the headless Service, for a time without status and volumes."""

    trace: Trace


class Serve(msgspec.Struct, frozen=True):
    """Set the label that the client Service selects."""

    names: tuple[str, ...]


class Unserve(msgspec.Struct, frozen=True):
    """Remove the label that the client Service selects."""

    names: tuple[str, ...]


class AddLearner(msgspec.Struct, frozen=True):
    """Add the seat to etcd as a learner, with its peer URL. It is not idempotent: list the members first."""

    name: str


class Promote(msgspec.Struct, frozen=True):
    """Give a learner a vote. Etcd decides whether it has caught up; a refusal means to wait."""

    name: str
    member_id: int


class RemoveMember(msgspec.Struct, frozen=True):
    """Remove a member from etcd. If the reason is a lost volume, check live that it is lost."""

    name: str
    member_id: int


class MoveLeader(msgspec.Struct, frozen=True):
    """Ask the leader to hand over to this voter."""

    name: str
    member_id: int


class PatchImage(msgspec.Struct, frozen=True):
    """Patch the image of a pod in place, with its version annotation, in one PATCH."""

    name: str
    version: str


class Wait(msgspec.Struct, frozen=True):
    """Do nothing now and observe again.

    Attributes:
        seconds: After how many seconds, if no event comes before that.
        nudge: Whether to write an entry to etcd's log first, because a member that runs does not serve yet.
            A member counts a snapshot from the leader as applied only at the next entry. If the snapshot is
            more than 5,000 entries ahead, it until then refuses its own request to publish its name ("too
            many requests"), and does not serve. An idle cluster writes no entry.
    """

    seconds: float = 5.0
    nudge: bool = False


class Blocked(msgspec.Struct, frozen=True):
    """Do nothing until a user acts. The decision says what the user can do."""


class Settled(msgspec.Struct, frozen=True):
    """Do nothing: the cluster matches the spec."""


Step = (
    RecordFounding
    | CreateVolumes
    | RecordVolumes
    | RecordAbandoning
    | RecordFounded
    | RecordResumed
    | RecordSeats
    | Announce
    | CreatePods
    | DeletePods
    | DeleteVolumes
    | Flip
    | Rejoin
    | MarkVolumes
    | MarkService
    | Serve
    | Unserve
    | AddLearner
    | Promote
    | RemoveMember
    | MoveLeader
    | PatchImage
    | Wait
    | Blocked
    | Settled
)


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong whatever the step is. `status` shows it in the condition Degraded.

    Attributes:
        reason: CamelCase, such as `MemberDown`.
        message: One or two sentences: what is wrong, and what the user can do, if anything.
        cause: A sentence that follows the message. Problems with the same cause show it once. "": there is
            none.
    """

    reason: str
    message: str
    cause: str = ""


class Decision(msgspec.Struct, frozen=True):
    """The next step and why.

    Attributes:
        step: What to do.
        reason: CamelCase, for the condition Progressing and for Events, such as `AddingMember`.
        message: A plain sentence for the same.
        problems: What is wrong with the cluster, most important first. Empty: the cluster is not degraded.
        creates: The pod for which the step deletes one, or announces that. The API server must accept it
            first. None: the step is not a planned restart with a new pod.
    """

    step: Step
    reason: str
    message: str
    problems: tuple[Problem, ...] = ()
    creates: PodPlan | None = None
