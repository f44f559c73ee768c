"""Keeps the recorded members running on their own volumes, and removes members whose data is lost."""

from datetime import timedelta

from msgspec.structs import replace

from etcd_operator import pages
from etcd_operator.lost_quorum import lost_quorum
from etcd_operator.model import (
    Action,
    Blocked,
    Configuration,
    CreatePods,
    Decision,
    DeletePods,
    DeleteVolumes,
    Failure,
    Flip,
    Mark,
    MarkService,
    MarkVolumes,
    MoveLeader,
    PatchImage,
    PodPlan,
    RecordSeats,
    RemoveMember,
    Seat,
    Serve,
    Signal,
    Trace,
    Unserve,
    VolumeState,
    Wait,
)
from etcd_operator.seats import Cluster, Place, configured, listed, parsed, quorum, same_release
from etcd_operator.types import LABEL

CRASH_PATIENCE = timedelta(minutes=5)
"""How long a member crashes before it is replaced: four or five restarts with the kubelet's back-off."""

HANGING = timedelta(minutes=1)
"""How long a restarted member must be unready before a changed spec reaches it."""

# A changed spec may correct these.
_CORRECTABLE = (Failure.PENDING, Failure.IMAGE, Failure.CONTAINER, Failure.CRASH)


def flip(cluster: Cluster) -> Decision | None:
    """A voter's pod still has a configuration that starts on an empty volume: poison it (law 5, step 6).

    A container that restarts in the pod reads the annotations again, so this needs no restart.
    """
    names = tuple(
        each.name
        for each in cluster.voters
        if configured(each, Configuration.FOUNDING, Configuration.JOINING)
        and not (each.pod and each.pod.unlabelled)
    )
    if not names:
        return None
    message = f"Configuring {listed(names)} to refuse an empty volume."
    return Decision(Flip(names), "ProtectingMembers", message)


def unserve(cluster: Cluster) -> Decision | None:
    """A pod behind the client Service is not a voter of this cluster: take it out (law 1)."""
    voters = {each.name for each in cluster.voters}
    names = tuple(
        each.name
        for each in cluster.places.values()
        if each.pod
        and each.pod.serving
        and not each.pod.deleting
        and (each.name not in voters or _other_cluster(cluster, each))
    )
    if not names:
        return None
    message = f"Taking pods that are not voters of this cluster out of the client Service: {listed(names)}."
    return Decision(Unserve(names), "RemovingFromService", message)


def blocked_by_second_quorum(cluster: Cluster) -> Decision | None:
    """Two groups of members answer with a quorum of their own: which one clients use is unknown (law 12).

    Volumes of replaced voters were restored and started, for example by a user. Their term can be the latest.
    """
    rivals = cluster.observation.rivals
    if not rivals:
        return None
    listed_members = [each.name or f"{each.id:x}" for each in cluster.observation.members or ()]
    message = (
        f"Two groups of members of the cluster {cluster.record.cluster_id:x} have a leader of their own: one "
        f"with {listed(listed_members)}, and one with {listed(rivals)}. The operator changes nothing. Find "
        "out with etcdctl which one has your latest data. Then remove the label "
        f"{LABEL} from the PVCs of the other one, keep these PVCs, and delete its pods."
    )
    return Decision(Blocked(), "SecondQuorum", message)


def blocked_by_other_cluster(cluster: Cluster) -> Decision | None:
    """A member answers with another cluster ID: two clusters use one name, so change nothing (law 4)."""
    names = [each.name for each in cluster.places.values() if _other_cluster(cluster, each)]
    other_list = cluster.observation.members_cluster_id not in (0, cluster.record.cluster_id)
    if not names and not other_list:
        return None
    who = listed(names) or "A member"
    verb = "do" if len(names) > 1 else "does"
    ids = {cluster.places[name].endpoint.cluster_id for name in names}
    others = listed([f"{each:x}" for each in sorted(ids or {cluster.observation.members_cluster_id})])
    message = (
        f"{who} {verb} not belong to the cluster {cluster.record.cluster_id:x}, which the status records, "
        f"but to {others}. "
    )
    if any(each.cluster_id == cluster.record.cluster_id for each in cluster.observation.endpoints):
        of = "the pods and PVCs of those members" if len(names) > 1 else "that member's pod and PVC"
        message += f"The operator changes nothing until {of} are deleted. Follow {pages.OTHER_CLUSTER}."
    elif _agreed_cluster(cluster):
        message += (
            "All members that answer and all volumes agree on it, so a user has probably edited or restored "
            f"status.record.clusterID. The operator changes nothing. {pages.OTHER_CLUSTER} has the command "
            "that corrects the status."
        )
    else:
        message += (
            "No member of the recorded cluster answers, so the operator changes nothing. If you have "
            f"restored a snapshot onto these volumes, do not delete them. {pages.ALL_LOST} explains how to "
            "resume a cluster from its volumes."
        )
    return Decision(Blocked(), "OtherCluster", message)


def _agreed_cluster(cluster: Cluster) -> bool:
    """Whether everything but the status has one cluster ID: the members, their volumes and the Service."""
    observation = cluster.observation
    volumes = [each for each in observation.volumes if each.owner and each.started and not each.removed]
    ids = {each.cluster_id for each in volumes} | {each.cluster_id for each in observation.endpoints} - {0}
    ids |= {observation.trace.cluster_id} if observation.trace else set()
    return bool(volumes) and len(ids) == 1


def _other_cluster(cluster: Cluster, place: Place) -> bool:
    running = place.pod is not None and not place.pod.deleting
    return running and place.endpoint.cluster_id not in (0, cluster.record.cluster_id)


def record_seats(cluster: Cluster) -> Decision | None:
    """The member list differs from the status: record the voters, for a time without a member list."""
    if not cluster.known or not cluster.voters:
        return None
    seats = tuple(
        Seat(each.name, each.member.id, _uid(each)) for each in cluster.voters if each.member is not None
    )
    if seats == tuple(sorted(cluster.record.seats, key=lambda each: each.name)):
        return None
    record = replace(cluster.record, seats=seats)
    names = [each.name for each in seats]
    return Decision(RecordSeats(record), "RecordingMembers", f"The voters are {listed(names)}.")


def _uid(place: Place) -> str:
    recorded = place.seat.volume_uid if place.seat else ""
    return recorded or (place.volume.uid if place.volume else "lost")


def mark_volumes(cluster: Cluster) -> Decision | None:
    """Annotate the voters' volumes with their member and all voters, to resume from them later (law 4)."""
    if not cluster.known:
        return None
    names = tuple(each.name for each in cluster.voters)
    volumes = [each.volume for each in cluster.voters if each.volume and each.intact]
    epoch = max((each.epoch for each in volumes), default=0)
    if any(each.voters != names for each in volumes if each.epoch == epoch):
        epoch += 1
    # Peer URLs of different domains are a change that a user has begun.
    domains = {each.member.domain for each in cluster.voters if each.member}
    domain = domains.pop() if len(domains) == 1 else None
    record, service = cluster.record, cluster.observation.service
    expected = (cluster.uid, record.incarnation, record.cluster_id, service, cluster.desired.scheme)
    marks = tuple(
        mark
        for each in cluster.voters
        if each.member and each.volume and each.intact and not each.volume.unlabelled
        if (
            mark := Mark(
                each.name,
                True,
                each.member.id,
                each.started_version,
                names,
                epoch,
                domain=each.volume.domain if domain is None else domain,
            )
        )
        != _mark(each)
        or _identity(each.volume) != expected
        or each.volume.unreadable
    )
    if not marks:
        return None
    message = f"Recording the voters on the volumes of {listed([each.name for each in marks])}."
    return Decision(MarkVolumes(marks), "RecordingMembers", message)


def _identity(volume: VolumeState) -> tuple[str, int, int, str | None, str]:
    """Returns the annotations that are equal on all volumes of a cluster."""
    return volume.owner, volume.incarnation, volume.cluster_id, volume.service, volume.scheme


def _mark(place: Place) -> Mark | None:
    """Returns what the annotations of the volume are."""
    volume = place.volume
    if volume is None:
        return None
    return Mark(
        volume.name,
        volume.started,
        volume.member_id,
        volume.version,
        volume.voters,
        volume.epoch,
        volume.removed,
        volume.domain,
    )


def mark_service(cluster: Cluster) -> Decision | None:
    """Annotate the headless Service before clients can write: it outlives the status and all volumes (law 4).

    The volumes come first. While none is marked, a lost status loses no write, and the founding is repeated.
    """
    record, trace = cluster.record, cluster.observation.trace
    wanted = Trace(record.incarnation, record.cluster_id)
    marked = any(each.volume and each.volume.started for each in cluster.voters)
    if trace is None or trace == wanted or not marked:
        return None
    message = f"Recording the cluster {record.cluster_id:x} on its headless Service."
    return Decision(MarkService(wanted), "RecordingMembers", message)


def clean_up(cluster: Cluster) -> Decision | None:
    """Etcd has confirmed that a member is removed: delete its pod, then keep or delete its data (law 6).

    The data of a learner that never voted is a copy, so it is always deleted. Data that an earlier scale-in
    retained is marked and is never deleted here, whatever the spec is now. A seat that is prepared for an
    addition is kept while a more urgent change interrupts it. Nothing is deleted whose member ID etcd lists,
    or whose annotations cannot be read.
    """
    if not cluster.known:
        return None
    kept = (cluster.adding, cluster.prepared)
    ids = {each.id for each in cluster.observation.members or ()}
    gone = [
        each
        for each in cluster.places.values()
        if each.member is None
        and each.name not in kept
        and not (each.volume and (each.volume.member_id in ids or each.volume.unreadable))
    ]
    if pods := tuple(each.name for each in gone if each.pod and not each.pod.deleting):
        message = f"Deleting the pods of {listed(pods)}, which etcd does not list as members."
        return Decision(DeletePods(pods), "RemovedMember", message)
    for place in gone:
        volume = place.volume
        if place.pod is None and volume and not (volume.removed or volume.deleting or volume.unlabelled):
            return _keep_or_delete(cluster, place)
    return None


def _keep_or_delete(cluster: Cluster, place: Place) -> Decision:
    volume = place.volume
    assert volume is not None, "clean_up found it"  # noqa: S101
    if volume.started and not cluster.desired.delete_scaled:
        mark = Mark(
            volume.name, True, volume.member_id, volume.version, volume.voters, volume.epoch, removed=True
        )
        message = f"Keeping the volume of the removed member {place.name}. No member uses it again."
        return Decision(MarkVolumes((mark,)), "RemovedMember", message)
    message = f"Deleting the volume of {place.name}, which etcd does not list as a member."
    return Decision(DeleteVolumes((place.name,)), "RemovedMember", message)


def recreate_ended(cluster: Cluster) -> Decision | None:
    """Pods have ended, which the kubelet never starts again: delete all, to create them on their volumes.

    The kubelet evicts or rejects pods, or its node is shut down, so this is no reason to remove a member.
    With emptyDir the data is lost with the pod.
    """
    ended = [
        each
        for each in cluster.places.values()
        if each.pod
        and each.pod.failure is Failure.ENDED
        and each.intact
        and each.volume
        and not each.volume.deleting
        and not cluster.rests(each)
    ]
    if not ended:
        return None
    causes = "; ".join(f"{each.name}: {each.pod.detail}" for each in ended if each.pod)
    message = f"Creating ended pods again on their volumes: {causes}."
    return Decision(DeletePods(tuple(each.name for each in ended)), "RecreatingPods", message)


def create_pods(cluster: Cluster) -> Decision | None:
    """Pods of members are missing: create all at the same time, with poison, on their own volumes (law 5).

    This needs no member list and no quorum: it also starts a cluster whose majority lost its pods.
    """
    missing = [
        each
        for each in (*cluster.voters, *cluster.learners)
        if each.pod is None and each.intact and each.volume and not each.volume.deleting
    ]
    if not missing:
        return None
    pods = tuple(_pod(cluster, each) for each in missing)
    names = [each.name for each in missing]
    message = f"Creating missing pods again on their volumes: {listed(names)}."
    return Decision(CreatePods(pods), "RecreatingPods", message)


def _pod(cluster: Cluster, place: Place) -> PodPlan:
    version = cluster.version_to_create(place)
    if place in cluster.voters:
        serving = place.seat is not None and not _leaving(cluster, place)
        return PodPlan(place.name, version, Configuration.POISONED, serving=serving)
    if place.volume and place.volume.started:
        return PodPlan(place.name, version, Configuration.POISONED)
    return PodPlan(place.name, version, Configuration.JOINING, peers=cluster.peers)


def serve(cluster: Cluster) -> Decision | None:
    """A started voter with poison and marks is not behind the client Service: add it (step 7)."""
    names = tuple(
        each.name
        for each in cluster.voters
        if cluster.known
        and configured(each, Configuration.POISONED)
        and each.pod
        and not each.pod.serving
        and not each.pod.unlabelled
        and cluster.healthy(each)
        and each.volume
        and each.volume.started
        and not _leaving(cluster, each)
    )
    if not names:
        return None
    return Decision(Serve(names), "AddingToService", f"Adding {listed(names)} to the client Service.")


def _leaving(cluster: Cluster, place: Place) -> bool:
    claim = cluster.record.claim
    return claim is not None and (claim.action, claim.name) == (Action.REMOVE, place.name)


def correct_failing_pods(cluster: Cluster) -> Decision | None:
    """A pod that does not run differs from the spec: give it the spec's version and shape, without gates.

    So a corrected or reverted spec reaches the member that a mistake has stopped. The member is down, so this
    interrupts nothing. A minor upgrade does not begin with a member that is down for another reason (law 8).
    If the image of its release does not exist, it first gets the one back that last ran.
    The same applies to the member that was restarted last, if it runs and does not serve.
    A member whose data is damaged gets no edited spec: `remove_crashing` replaces it.
    A pod on a Terminating volume is not deleted, because it has the only copy of the member's data (law 6).
    """
    for place in cluster.claimed_first((*cluster.voters, *cluster.learners), Action.RESTART):
        pod = place.pod
        if pod is None or pod.deleting or not place.intact or not cluster.outdated(place):
            continue
        fails = place.down and pod.failure in _CORRECTABLE
        if not (fails or _hangs(cluster, place)):
            continue
        recreated = recreates(cluster, place)
        if (recreated and place.holding) or (pod.unlabelled and not recreated):
            continue
        if _begins_minor(cluster, place):
            if pod.failure is Failure.IMAGE and pod.version != place.started_version:
                why = f"{place.name} does not run"
                return restart(cluster, place, "CorrectingMember", why, version=place.started_version)
            continue
        if _replaceable(cluster, place) and (pod.damaged or not _claims_restart(cluster, place)):
            continue
        why = "does not run" if fails else "is not ready"
        return restart(cluster, place, "CorrectingMember", f"{place.name} {why}")
    return None


def _hangs(cluster: Cluster, place: Place) -> bool:
    """Whether the member that was restarted last runs, but is not ready for a minute.

    A mistake in the spec can do that without a crash: etcd has no leader if the others refuse its
    certificate. The kubelet reports it, so the operator need not see the member. The others have a quorum,
    or the interruption was announced.
    """
    return _claims_restart(cluster, place) and is_unready(cluster, place) and cluster.can_restart(place)


def _claims_restart(cluster: Cluster, place: Place) -> bool:
    """Whether the member was restarted last."""
    claim = cluster.record.claim
    return claim is not None and (claim.action, claim.name) == (Action.RESTART, place.name)


def is_unready(cluster: Cluster, place: Place) -> bool:
    """Whether the kubelet runs the pod without a failure, and it is not ready for a minute."""
    pod = place.pod
    if pod is None or pod.failure is not None or pod.unready_since is None:
        return False
    return pod.node is Signal.HEALTHY and cluster.observation.now - pod.unready_since >= HANGING


def _begins_minor(cluster: Cluster, place: Place) -> bool:
    """Whether the pod still has the release that last ran, and the next version is of another minor."""
    last, wanted = parsed(place.started_version), parsed(cluster.wanted_version(place))
    if place.pod is None or last is None or wanted is None:
        return False
    return same_release(place.pod.version, place.started_version) and wanted.minor != last.minor


def recreates(cluster: Cluster, place: Place) -> bool:
    """Whether a restart deletes the pod. If only the image differs, the pod is patched in place."""
    reshaped = place.pod is not None and place.pod.shape != cluster.desired.shape
    return reshaped and not cluster.desired.ephemeral


def restart(cluster: Cluster, place: Place, reason: str, why: str, *, version: str = "") -> Decision:
    """Returns the step that gives a pod the spec's version and shape.

    If only the image differs, the pod is patched in place, so it keeps its address. Otherwise it is deleted
    and created again on the same volume.

    Args:
        cluster: The cluster.
        place: The seat of the pod.
        reason: The reason of the decision.
        why: The beginning of its message.
        version: The version for the pod. "": the one that the seat should have next.
    """
    pod, version = place.pod, version or cluster.wanted_version(place)
    assert pod is not None, "the caller found it outdated"  # noqa: S101
    if not recreates(cluster, place):
        change = f"its etcd from {pod.version} to {version}" if pod.version != version else "its image"
        message = f"{why}: changing {change}."
        step = PatchImage(place.name, version)
        return cluster.guarded(Action.RESTART, place.name, step, reason, message, version=version)
    message = f"{why}: creating its pod again with etcd {version} and the current spec."
    return cluster.guarded(
        Action.RESTART,
        place.name,
        DeletePods((place.name,)),
        reason,
        message,
        version=version,
        creates=PodPlan(place.name, version, Configuration.POISONED, serving=True),
    )


def delete_useless_pods(cluster: Cluster) -> Decision | None:
    """The quorum is lost, and pods without a vote crash, which only a quorum could change: delete them."""
    if not quorum_lost(cluster) or not (useless := _crashing_without_a_vote(cluster)):
        return None
    message = f"Deleting the crashing pods of {listed(useless)}, which cannot join without a quorum."
    return Decision(DeletePods(useless), "NoQuorum", message)


def blocked_by_lost_quorum(cluster: Cluster) -> Decision | None:
    """The data of a majority is lost: found nothing over the rest (laws 1 and 11)."""
    if not quorum_lost(cluster):
        return None
    return Decision(Blocked(), "QuorumLost", lost_quorum(cluster, *_lost_and_left(cluster)))


def quorum_lost(cluster: Cluster) -> bool:
    """Whether the data of a majority is certainly lost, and the operator can see the members."""
    if cluster.known or cluster.observation.blind:
        return False
    lost, left = _lost_and_left(cluster)
    return len(left) < quorum(cluster.count) and not _may_have_quorum(cluster, lost, left)


def _lost_and_left(cluster: Cluster) -> tuple[list[Place], list[Place]]:
    return [each for each in cluster.voters if each.lost], [each for each in cluster.voters if not each.lost]


def without_members(cluster: Cluster) -> Decision | None:
    """No member returns a linearizable list: there is no quorum, or the operator cannot see it (law 12)."""
    if cluster.known:
        return None
    _, left = _lost_and_left(cluster)
    needed, blind = quorum(cluster.count), cluster.observation.blind
    advice = f"{_damage(left, needed)}{_held(left)}"
    if not blind:
        return Decision(Wait(1.0), "NoQuorum", f"{_awaited_quorum(cluster)}{advice}")
    if sum(not each.down for each in left) < needed:
        return Decision(Wait(5.0), "NoQuorum", f"{_awaited_quorum(cluster)} {blind}{advice}")
    message = f"Waiting until the operator can see the members. {blind}{advice}"
    return Decision(Wait(5.0), "MembersHidden", message)


def _awaited_quorum(cluster: Cluster) -> str:
    """Returns how many members must serve. A voter that a user has added counts, whether it runs or not."""
    added = cluster.recalled_strangers
    count = cluster.count + len(added)
    message = f"Waiting for a quorum: {quorum(count)} of {count} members must serve."
    if added:
        message += f" A user has added these voters: {listed([f'{each.id:x}' for each in added])}."
    return message


def _damage(left: list[Place], needed: int) -> str:
    """Returns where to read on if too many members crash for a quorum. Only a user can know why they do."""
    crashing = [each.name for each in left if each.pod and each.pod.failure is Failure.CRASH]
    if not crashing or len(left) - len(crashing) >= needed:
        return ""
    return f" etcd crashes in {listed(crashing)}. If the data is damaged, follow {pages.DATA_DAMAGED}."


def _held(left: list[Place]) -> str:
    """Returns what not to do if a pod that does not run is all that keeps a Terminating volume."""
    names = [each.name for each in left if each.holding and each.down]
    if not names:
        return ""
    return (
        f" The PVCs of {listed(names)} are being deleted, and only their pods keep the data. The operator "
        "does not delete these pods, so a corrected spec does not reach them. "
        f"{pages.VOLUME_DELETED} has the commands."
    )


def _crashing_without_a_vote(cluster: Cluster) -> tuple[str, ...]:
    """Returns the pods of learners and of removed members that crash, which only a quorum could change.

    Only their pods are deleted. If etcd still lists one after the recovery, its pod is created again.
    """
    return tuple(
        each.name
        for each in cluster.places.values()
        if each not in cluster.voters
        and each.pod
        and not each.pod.deleting
        and each.pod.failure is Failure.CRASH
        and each.down
    )


def _may_have_quorum(cluster: Cluster, lost: list[Place], left: list[Place]) -> bool:
    """Whether the lost member that the claim names may not vote: its removal or promotion is not recorded.

    Then the others may have a quorum. They would have served within the minute, or answered that they have
    none.
    """
    claim = cluster.record.claim
    doubtful = claim is not None and cluster.changing and any(each.name == claim.name for each in lost)
    unseen = any(each.health is Signal.UNKNOWN for each in left)
    return doubtful and unseen and len(left) >= quorum(cluster.count - 1)


def remove_lost(cluster: Cluster) -> Decision | None:
    """A member's volume is lost or wiped: remove the member. After that, add a new one (law 5, facts E.1).

    The same applies to a member that fails or is not ready for a minute while its volume is Terminating: it
    cannot be replaced first, because etcd accepts additions only if almost all voters serve.
    """
    for place in cluster.claimed_first((*cluster.learners, *cluster.voters), Action.REMOVE):
        if place.lost:
            return remove(cluster, place, "ReplacingMember", f"The data of {place.name} is lost")
        fails = place.pod is not None and place.pod.failure is not None and cluster.doomed(place)
        if place.down and (fails or (place.holding and is_unready(cluster, place))):
            why = f"{place.name} does not run, and its volume is being deleted"
            return remove(cluster, place, "ReplacingMember", why)
    return None


def remove_crashing(cluster: Cluster) -> Decision | None:
    """A member crashes for minutes because its data is damaged: replace it.

    That is so if another member runs the same version and shape, or if etcd names the data as the reason, for
    example after the restart that an edit of the spec began. Otherwise the spec can be the reason, and a new
    member would crash as well.
    """
    for place in cluster.claimed_first(cluster.voters, Action.REMOVE):
        since = place.pod.failing_since if place.pod else None
        if since is None or cluster.observation.now - since < CRASH_PATIENCE:
            continue
        if _replaceable(cluster, place):
            why = f"{place.name} has been crashing since {since:%H:%M:%S} UTC"
            return remove(cluster, place, "ReplacingMember", why)
    return None


def _replaceable(cluster: Cluster, place: Place) -> bool:
    """Whether a voter crashes because of its data: etcd says so, or everything else is as with the others.

    Several members can crash for one reason outside of their data. So without the word of etcd, all others
    must be healthy.
    """
    pod = place.pod
    if pod is None or pod.failure is not Failure.CRASH or not place.down or not cluster.known:
        return False
    if place.moved or place not in cluster.voters:  # The reason can be its peer URL.
        return False
    if pod.damaged:
        return True
    alike = any(
        each.pod and cluster.healthy(each) and (each.pod.version, each.pod.shape) == (pod.version, pod.shape)
        for each in cluster.voters
    )
    return alike and cluster.healthy_without(place.name) >= len(cluster.voters) - 1


def remove(cluster: Cluster, place: Place, reason: str, why: str) -> Decision:
    """Returns the next step of a removal: claim, leave the client Service, move the leader, remove."""
    member = place.member
    assert member is not None, "the caller found it in the list"  # noqa: S101
    if not cluster.can_remove(place):
        message = f"{why}. The operator removes the member once enough of the others serve."
        return Decision(Wait(cluster.pace), "WaitingForQuorum", message)
    step = _removal(cluster, place)
    if step is None:
        return Decision(Wait(1.0), "WaitingForLeader", f"{why}. Waiting until the leader is known.")
    message = f"{why}: removing it from etcd."
    return cluster.guarded(Action.REMOVE, place.name, step, reason, message, member_id=member.id)


def _removal(cluster: Cluster, place: Place) -> Unserve | MoveLeader | RemoveMember | None:
    member = place.member
    assert member is not None, "remove found it"  # noqa: S101
    if place.pod and place.pod.serving and not place.pod.deleting:
        return Unserve((place.name,))
    if member.learner or place.down:
        return RemoveMember(place.name, member.id)
    if not cluster.leader_id:
        return None
    if not cluster.leads(place):
        return RemoveMember(place.name, member.id)
    others = [each for each in cluster.voters if each.name != place.name and cluster.healthy(each)]
    others.sort(key=lambda each: (cluster.doomed(each), each.health is not Signal.HEALTHY, not each.linked))
    successor = next((each for each in others if each.member), None)
    if successor is None or successor.member is None:
        return None
    return MoveLeader(successor.name, successor.member.id)
