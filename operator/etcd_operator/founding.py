"""Founds a cluster once: the rules until the founding is complete.

The steps and the proof of each are in the measured procedure for static founding: no second cluster may ever
be founded under one name, whatever is deleted, edited or restored meanwhile (law 4).
"""

from msgspec.structs import replace

from etcd_operator import resumption
from etcd_operator.healing import CRASH_PATIENCE, is_unready, recreate_ended
from etcd_operator.model import (
    Configuration,
    CreatePods,
    CreateVolumes,
    Decision,
    DeletePods,
    DeleteVolumes,
    Failure,
    Founding,
    Mark,
    MarkVolumes,
    Phase,
    PodPlan,
    PodState,
    RecordAbandoning,
    RecordFounded,
    RecordFounding,
    RecordVolumes,
    Seat,
    Signal,
    VolumeState,
    Wait,
)
from etcd_operator.seats import Cluster, Place, listed, new_names, quorum


def delete_unknown_pods(cluster: Cluster) -> Decision | None:
    """Pods belong to a founding that the status does not record: delete them before the next one (law 4).

    The status was lost, or that of an earlier founding was restored. No volume is marked as started, so the
    client Service never had these pods.
    """
    recorded = _names(cluster) if cluster.record.founding else set()
    unknown = [each for each in cluster.observation.pods if each.name not in recorded]
    if names := tuple(each.name for each in unknown if not each.deleting):
        message = f"Deleting the pods of a founding that the status does not record: {listed(names)}."
        return Decision(DeletePods(names), "FoundingUnknown", message)
    if unknown:
        return Decision(
            Wait(1.0), "FoundingUnknown", "Waiting until the pods of an unknown founding are gone."
        )
    return None


def record_founding(cluster: Cluster) -> Decision | None:
    """There is no founding: record one before anything of it exists (step 0)."""
    return _found(cluster) if cluster.record.founding is None else None


def _found(cluster: Cluster) -> Decision:
    observation, desired, record = cluster.observation, cluster.desired, cluster.record
    volumes = (*observation.volumes, *observation.claims)
    incarnation = 1 + max([record.incarnation, *(each.incarnation for each in volumes)])
    names, counter = new_names(observation, incarnation, desired.size)
    founding = Founding(
        Phase.PREPARING, desired.version, desired.shape, desired.storage, desired.scheme, observation.now
    )
    recorded = replace(
        record,
        incarnation=incarnation,
        next_member=counter,
        version=desired.version,
        cluster_id=0,
        founding=founding,
        seats=tuple(map(Seat, names)),
        claim=None,
    )
    message = f"Founding a cluster of size {desired.size} with etcd {desired.version}."
    return Decision(RecordFounding(recorded), "Founding", message)


def finish_abandoning(cluster: Cluster) -> Decision | None:
    """The founding is given up: delete its pods, leave its volumes, and found under new names (step 3).

    If members begin to run before their pods are deleted, a client can write. Then the founding goes on.
    """
    founding = _founding(cluster)
    if founding.phase is not Phase.ABANDONING:
        return None
    reason = "AbandoningFounding"
    pods = _pods(cluster)
    if any(not each.deleting for each in pods) and not _holds_no_write(cluster):
        recorded = replace(cluster.record, founding=replace(founding, phase=Phase.STARTING, ran=True))
        message = "Continuing the founding, because a client may have written to it."
        return Decision(RecordVolumes(recorded), "Founding", message)
    if resting := [each.name for each in cluster.places.values() if cluster.rests(each)]:
        return Decision(
            Wait(),
            reason,
            f"Waiting before the next founding, because these pods have ended: {listed(resting)}.",
        )
    if living := tuple(each.name for each in pods if not each.deleting):
        return Decision(DeletePods(living), reason, f"Deleting the pods of the founding: {listed(living)}.")
    if pods:
        return Decision(Wait(1.0), reason, "Waiting until the pods of the founding are gone.")
    return _leave_volumes(cluster) or _found(cluster)


def _leave_volumes(cluster: Cluster) -> Decision | None:
    """Deletes the volumes that no pod can have used, and keeps the others for the user.

    Members can run, accept a write and disappear between two observations. So a volume is only deleted if it
    was never bound, or if its UID is not recorded, which precedes every pod.
    """
    if cluster.desired.ephemeral:
        return None
    left = [each for each in _volumes(cluster) if not (each.deleting or each.removed)]
    used = {each.name for each in cluster.record.seats if each.volume_uid}
    unused = tuple(each.name for each in left if not each.bound or each.name not in used)
    reason = "AbandoningFounding"
    if unused:
        message = f"Deleting the volumes of the founding, which no pod has used: {listed(unused)}."
        return Decision(DeleteVolumes(unused), reason, message)
    if not left:
        return None
    message = (
        f"Keeping the volumes {listed([each.name for each in left])} of the founding that was given up, "
        "because etcd may have run on them. No member uses them again. Delete these PVCs when you are sure "
        "that you do not need them."
    )
    marks = (
        Mark(each.name, each.started, each.member_id, each.version, each.voters, each.epoch, removed=True)
        for each in left
    )
    return Decision(MarkVolumes(tuple(marks)), reason, message)


def record_founded(cluster: Cluster) -> Decision | None:
    """All members run and agree on everything: the founding is complete (steps 4 and 5).

    It is also complete with a majority, if waiting for the others cannot help. They are replaced after that.
    """
    observation, record = cluster.observation, cluster.record
    if _founding(cluster).phase is not Phase.STARTING or observation.members is None:
        return None
    ids = {each.name: each.id for each in observation.members if not each.learner}
    if {*ids} != _names(cluster) or len(ids) != len(observation.members):
        return None
    if not _agree(cluster, ids) and not _founded_by_majority(cluster, ids):
        return None
    cluster_id = observation.members_cluster_id
    seats = tuple(replace(each, member_id=ids[each.name]) for each in record.seats)
    recorded = replace(record, founded=True, founding=None, cluster_id=cluster_id, seats=seats)
    message = f"The cluster {cluster_id:x} is founded, with the members {listed(sorted(ids))}."
    return Decision(RecordFounded(recorded), "Founded", message)


def _agree(cluster: Cluster, ids: dict[str, int]) -> bool:
    """Whether all members serve one cluster with one leader, one term and equal data."""
    places = [cluster.places[name] for name in ids if name in cluster.places]
    endpoints = [each.endpoint for each in places]
    agreed = {(each.cluster_id, each.leader_id, each.term, each.revision, each.hash) for each in endpoints}
    return (
        len(places) == len(ids)
        and all(each.health is Signal.HEALTHY and each.intact for each in places)
        and all(each.endpoint.member_id == ids[each.name] for each in places)
        and len(agreed) == 1
        and endpoints[0].cluster_id == cluster.observation.members_cluster_id
        and endpoints[0].leader_id in ids.values()
    )


def _founded_by_majority(cluster: Cluster, ids: dict[str, int]) -> bool:
    """Whether a majority serves, and waiting for the others cannot help.

    A volume was lost (step 3), a member crashes for minutes, or the spec was edited and no other member is
    about to serve. A cluster that serves is never given up, because clients can write.
    """
    serving = [
        each
        for each in map(cluster.places.get, ids)
        if each is not None
        and each.intact
        and each.health is Signal.HEALTHY
        and each.endpoint.cluster_id == cluster.observation.members_cluster_id
    ]
    crashing = any(
        pod.failure in (Failure.CRASH, Failure.REFUSED_EMPTY)
        and pod.failing_since
        and cluster.observation.now - pod.failing_since >= CRASH_PATIENCE
        for pod in _pods(cluster)
    )
    awaited = any(
        each.pod is None or each.pod.deleting or each.starting
        for each in map(cluster.places.get, ids)
        if each is not None and each not in serving
    )
    hopeless = bool(_lost(cluster)) or crashing or (_differs(cluster) and not awaited)
    return hopeless and len(serving) >= quorum(len(ids))


def abandon(cluster: Cluster) -> Decision | None:
    """A volume was lost, or the founding cannot follow an edit: give it up if it certainly holds no write."""
    lost = _lost(cluster)
    if not (lost or _differs(cluster)) or not _holds_no_write(cluster):
        return None
    why = "the spec was edited before a majority of the members ran"
    if lost:
        why = f"the volumes of {listed(lost)} were replaced or lost"
    record = replace(cluster.record, founding=replace(_founding(cluster), phase=Phase.ABANDONING))
    message = f"Giving up the founding, because {why}."
    return Decision(RecordAbandoning(record), "AbandoningFounding", message)


def _differs(cluster: Cluster) -> bool:
    """Whether the spec asks for what this founding cannot become.

    Its pods can be created again with another version and shape, unless their data is in an emptyDir.
    """
    founding, desired = _founding(cluster), cluster.desired
    if len(cluster.record.seats) != desired.size or founding.storage != desired.storage:
        return True
    reshaped = (founding.version, founding.shape) != (desired.version, desired.shape)
    return _has_other_urls(cluster) or (desired.ephemeral and reshaped)


def _has_other_urls(cluster: Cluster) -> bool:
    """Whether the spec now gives the members other peer URLs, which would make another cluster of them."""
    domains = {each.domain for each in _volumes(cluster)} - {None, cluster.desired.domain}
    return bool(domains) or _founding(cluster).scheme != cluster.desired.scheme


def _holds_no_write(cluster: Cluster) -> bool:
    """Whether it is proven that giving up loses no write: a write needs a majority that runs.

    Before phase STARTING there are no pods. After it, a majority must have the first pods on their volumes,
    and no container may have started in them. If all volumes are gone, there is nothing left to keep.
    """
    founding, lost = _founding(cluster), _lost(cluster)
    gone = len(lost) == len(cluster.record.seats) and not any(cluster.places[each].intact for each in lost)
    if founding.phase is Phase.PREPARING or gone:
        return True
    never_ran = 0 if founding.ran else sum(not each.ran for each in _pods(cluster))
    return never_ran >= quorum(len(cluster.record.seats))


def create_volumes(cluster: Cluster) -> Decision | None:
    """Create the PVCs of the founding (step 1). With emptyDir, the pods are the volumes."""
    record = cluster.record
    present = {each.name for each in _volumes(cluster)}
    missing = tuple(each.name for each in record.seats if each.name not in present)
    if cluster.desired.ephemeral or _founding(cluster).phase is not Phase.PREPARING or not missing:
        return None
    return Decision(CreateVolumes(missing), "Founding", f"Creating the volumes of {listed(missing)}.")


def record_volumes(cluster: Cluster) -> Decision | None:
    """Record the UIDs of the PVCs before any pod exists, so that a swapped volume is noticed (step 1).

    The first pods follow in the same step. So if a pod is missing later, it may have run and disappeared,
    and it is recorded that one may have run before it is created again. With emptyDir, a pod's UID is
    recorded as soon as the pod exists.
    """
    founding, record = _founding(cluster), cluster.record
    if founding.phase is Phase.ABANDONING:
        return None
    uids = {each.name: each.uid for each in _volumes(cluster)}
    seats = tuple(
        replace(each, volume_uid=each.volume_uid or uids.get(each.name, "")) for each in record.seats
    )
    if founding.phase is Phase.PREPARING:
        recorded = replace(record, founding=replace(founding, phase=Phase.STARTING), seats=seats)
        pods = _missing_pods(cluster)
        message = f"Recording the volumes and creating the pods of {listed([each.name for each in pods])}."
        return Decision(RecordVolumes(recorded, pods), "Founding", message)
    ran = founding.ran or any(each.ran for each in _pods(cluster)) or bool(_missing_pods(cluster))
    if seats == record.seats and ran == founding.ran:
        return None
    recorded = replace(record, founding=replace(founding, ran=ran), seats=seats)
    return Decision(
        RecordVolumes(recorded), "Founding", "Recording the volumes, and that members may have run."
    )


def create_pods(cluster: Cluster) -> Decision | None:
    """Create the missing pods of the founding in one step, on the recorded volumes (steps 2 and 3)."""
    pods = _missing_pods(cluster)
    if not pods:
        return None
    names = listed([each.name for each in pods])
    return Decision(CreatePods(pods), "Founding", f"Creating the pods of {names}.")


def _missing_pods(cluster: Cluster) -> tuple[PodPlan, ...]:
    present, lost = {each.name for each in _pods(cluster)}, _lost(cluster)
    names = tuple(each.name for each in cluster.record.seats)
    return tuple(
        PodPlan(name, cluster.desired.version, Configuration.FOUNDING, peers=names)
        for name in names
        if name not in present and name not in lost
    )


def correct_failing_pods(cluster: Cluster) -> Decision | None:
    """A pod of the founding does not serve and differs from the edited spec: create it again on its volume.

    It fails, or it is not ready for a minute. With emptyDir the pod is the volume, so it stays. So does a pod
    on a Terminating volume.
    """
    desired, lost = cluster.desired, _lost(cluster)
    wrong = tuple(
        each.name
        for each in _pods(cluster)
        if not each.deleting
        and each.name not in lost
        and (each.version, each.shape) != (desired.version, desired.shape)
        and _fails(cluster, cluster.places[each.name])
    )
    if not wrong or desired.ephemeral:
        return None
    message = f"Creating the failing pods of {listed(wrong)} again with the edited spec."
    return Decision(DeletePods(wrong), "Founding", message)


def _fails(cluster: Cluster, place: Place) -> bool:
    if place.health is Signal.HEALTHY:
        return False
    return is_unready(cluster, place) or (place.down and place.pod is not None and bool(place.pod.failure))


def keep_urls(cluster: Cluster) -> Decision | None:
    """Members may have run, and the spec now gives them other peer URLs: create no pod with those (law 4)."""
    if not _has_other_urls(cluster):
        return None
    message = (
        "The first members may have run, so spec.TLS and spec.pod.ClusterDomain cannot be changed until the "
        "cluster is founded. Set them back, or delete the EtcdCluster and create it again."
    )
    return Decision(Wait(), "FoundingStarted", message)


def wait_for_proof(cluster: Cluster) -> Decision | None:
    """A volume was lost, and a client may have written: keep everything as it is (law 12)."""
    lost = _lost(cluster)
    if not lost:
        return None
    message = (
        f"The volumes of {listed(lost)} were replaced or lost during the founding, and a client may have "
        "written. Waiting until a majority of the members serves, to replace the others. If they cannot, "
        "delete the EtcdCluster and create it again."
    )
    return Decision(Wait(), "FoundingLostVolumes", message)


def wait_for_members(cluster: Cluster) -> Decision | None:
    """Nothing to do until the members run."""
    waiting = [each.name for each in cluster.record.seats if not _serves(cluster.places.get(each.name))]
    message = (
        f"Waiting until the members serve: {listed(waiting)}."
        if waiting
        else "Waiting until the members agree."
    )
    if _differs(cluster):
        message += " The edited spec is applied after that."
    return Decision(Wait(cluster.soon), "Founding", message)


RULES = (
    *resumption.RULES,
    delete_unknown_pods,
    record_founding,
    finish_abandoning,
    record_founded,
    abandon,
    create_volumes,
    record_volumes,
    keep_urls,
    recreate_ended,
    correct_failing_pods,
    create_pods,
    wait_for_proof,
    wait_for_members,
)
"""The rules until `Record.founded`. The first one that applies decides."""


def _founding(cluster: Cluster) -> Founding:
    founding = cluster.record.founding
    assert founding is not None, "record_founding comes first"  # noqa: S101
    return founding


def _names(cluster: Cluster) -> set[str]:
    return {each.name for each in cluster.record.seats}


def _volumes(cluster: Cluster) -> list[VolumeState]:
    return [each for each in cluster.observation.volumes if each.name in _names(cluster)]


def _pods(cluster: Cluster) -> list[PodState]:
    return [each for each in cluster.observation.pods if each.name in _names(cluster)]


def _lost(cluster: Cluster) -> list[str]:
    """Returns the seats whose volume was recorded and is not there any more, or is about to vanish."""
    volumes = {each.name: each for each in _volumes(cluster)}
    return [
        seat.name
        for seat in cluster.record.seats
        if seat.volume_uid
        and (
            (volume := volumes.get(seat.name)) is None
            or volume.uid != seat.volume_uid
            or volume.deleting
            or volume.lost
        )
    ]


def _serves(place: Place | None) -> bool:
    return place is not None and place.health is Signal.HEALTHY
