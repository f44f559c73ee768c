"""Names what is wrong with a cluster, whatever the next step is."""

from collections.abc import Iterator
from datetime import timedelta

from etcd_operator import pages
from etcd_operator.etcd import AlarmType
from etcd_operator.identities import described
from etcd_operator.labels import label_missing
from etcd_operator.model import Failure, PodState, Problem, Signal
from etcd_operator.seats import Cluster, Place, listed, quorum, unreadable_annotations
from etcd_operator.views import POD
from pilothouse import PERSISTENT_VOLUME_CLAIM

JOINING = timedelta(minutes=1)
"""How long the pod of a new member may crash before that is a problem."""

SYMPTOMS = ("MemberDown", "MemberUnknown")
"""The reasons of problems that only repeat what the operator waits for."""

_FAILURES = {
    Failure.PENDING: ("MemberPending", "cannot be scheduled, or its volume is not ready"),
    Failure.IMAGE: ("ImageUnavailable", "cannot start its container"),
    Failure.CONTAINER: ("ContainerNotStarted", "cannot start its container"),
    Failure.CRASH: ("MemberCrashing", "runs etcd, which exits again and again"),
    Failure.REFUSED_EMPTY: ("VolumeWiped", "refuses to start, because its volume is empty"),
    Failure.ENDED: ("PodEnded", "has ended"),
}

_ALARMS = {
    AlarmType.NOSPACE: f"It refuses writes. {pages.ALARMS} explains what to do.",
    AlarmType.CORRUPT: f"The data of the members differs, and none of them is Ready. Follow {pages.CORRUPT}.",
    AlarmType.UNKNOWN: "This operator does not know it. Run etcdctl alarm list.",
}


def problems(cluster: Cluster) -> tuple[Problem, ...]:
    """Returns the problems of a cluster, the most important first: causes before symptoms."""
    of_members = [problem for each in cluster.places.values() if (problem := _of_member(cluster, each))]
    found = (
        *_of_labels(cluster),
        *_of_held_pods(cluster),
        *_of_peer_urls(cluster),
        *_of_images(cluster),
        *of_members,
        *_of_unseen(cluster),
        *_of_volumes(cluster),
        *_of_cluster(cluster),
    )
    return tuple(sorted(found, key=lambda each: each.reason in SYMPTOMS))


def _of_labels(cluster: Cluster) -> Iterator[Problem]:
    """Yields the objects that have lost their label. With emptyDir, the pod is the volume."""
    observation = cluster.observation
    names = {"cluster": observation.name, "namespace": observation.namespace}
    for place in cluster.places.values():
        pod, volume = place.pod, None if cluster.desired.ephemeral else place.volume
        if pod and pod.unlabelled and not pod.deleting:
            yield label_missing(POD, place.name, **names)
        if volume and volume.unlabelled and not volume.deleting and place.intact:
            yield label_missing(PERSISTENT_VOLUME_CLAIM, place.name, **names)


def _of_held_pods(cluster: Cluster) -> Iterator[Problem]:
    """Yields the pods that finalizers keep. The name of a pod is free only when it is gone."""
    for pod in cluster.observation.pods:
        if pod.held:
            where = f"-n {cluster.observation.namespace} {pod.name}"
            patch = """'{"metadata":{"finalizers":null}}'"""
            message = (
                f"The pod {pod.name} is being deleted and its containers have ended, but these finalizers "
                f"keep it: {listed(pod.held)}. If no controller removes them, run kubectl patch pod {where} "
                f"--type=merge -p {patch}."
            )
            yield Problem("PodTerminating", message)


def _of_peer_urls(cluster: Cluster) -> Iterator[Problem]:
    for place in cluster.places.values():
        if place.member is None or not place.moved:
            continue
        member, expected = place.member, cluster.observation.peer_url.format(place.name)
        message = (
            f"The member {place.name} ({member.id:x}) has the peer URL {listed(member.urls)}, but the "
            f"operator expects {expected}. It keeps the member. "
        )
        if member.domain not in (None, cluster.desired.domain):
            message += f"If a changed spec is the reason, set spec.pod.ClusterDomain to {member.domain!r}. "
        message += (
            f"If a user has changed it, run etcdctl member update {member.id:x} --peer-urls={expected}."
        )
        yield Problem("PeerUrlChanged", message)


def _of_images(cluster: Cluster) -> Iterator[Problem]:
    for place in cluster.places.values():
        if place.pod and place.mislabelled:
            message = (
                f"The pod {place.name} should run etcd {place.pod.version}, but etcd reports "
                f"{place.endpoint.version}: its image {place.pod.image} has another version. Correct "
                "spec.version or spec.repository, or the operator's image for this version."
            )
            yield Problem("UnexpectedVersion", message)
            return


def _of_member(cluster: Cluster, place: Place) -> Problem | None:
    pod = place.pod
    if pod and pod.failure and not pod.deleting and not _joins(cluster, place):
        reason, what = _FAILURES[pod.failure]
        detail = f": {pod.detail}" if pod.detail else ""
        return Problem(reason, f"The pod {place.name} {what}{detail}.")
    if not cluster.record.founded or place.health is Signal.HEALTHY:
        return None
    if place in cluster.learners or place.name == cluster.adding:
        return _of_new_member(cluster, place)
    if place not in cluster.voters:
        return None
    if pod and pod.node is not Signal.HEALTHY:
        return _of_node(cluster, pod)
    if place.down or (pod and pod.held):
        return Problem("MemberDown", f"The member {place.name} does not serve.")
    return None


def _of_unseen(cluster: Cluster) -> Iterator[Problem]:
    """Yields which voters cannot be seen for another reason than their nodes. `_of_member` has the others."""
    unseen = [
        each.name
        for each in cluster.voters
        if cluster.record.founded and each.health is Signal.UNKNOWN and not _of_member(cluster, each)
    ]
    if unseen:
        message = f"The operator cannot see whether these members serve: {listed(unseen)}."
        yield Problem("MemberUnknown", message, cluster.observation.blind)


def _of_new_member(cluster: Cluster, place: Place) -> Problem | None:
    if place.pod is None or place.pod.node is Signal.HEALTHY or cluster.changing:
        return None
    node = place.pod.node_name
    message = f"The node {node} of the new member {place.name} is not ready, or does not report. "
    message += "The operator adds another member 10 minutes after the beginning of the addition."
    return Problem("NodeNotReady" if place.pod.node is Signal.UNHEALTHY else "NodeUnknown", message)


def _of_node(cluster: Cluster, pod: PodState) -> Problem:
    """Advises to give up a volume only while the others serve: else it may be one of a majority."""
    keeps = f"The operator does not replace the member {pod.name}, because etcd may still run there."
    if cluster.healthy_without(pod.name) < quorum(cluster.count):
        advice = "Do not delete its PVC: there is no quorum without it. Bring the node back."
    else:
        advice = f"If the node will not return, follow {pages.NODE_LOST}, for this member alone."
    if pod.node is Signal.UNHEALTHY:
        return Problem("NodeNotReady", f"The node {pod.node_name} is not ready. {keeps} {advice}")
    message = f"The node {pod.node_name} does not report, or the operator may not read nodes."
    return Problem("NodeUnknown", f"{message} {keeps} {advice}")


def _joins(cluster: Cluster, place: Place) -> bool:
    """Whether the pod crashes because etcd does not list it yet: that is a part of every addition."""
    pod, member = place.pod, place.member
    if pod is None or pod.failure is not Failure.CRASH or (member is not None and member.started):
        return False
    since = pod.failing_since
    return place.name == cluster.adding and since is not None and cluster.observation.now - since < JOINING


def _of_volumes(cluster: Cluster) -> list[Problem]:
    if not cluster.record.founded:
        return []
    lost = [each.name for each in cluster.voters if not each.intact]
    volumes = {each.name: each.volume for each in cluster.voters if each.intact and each.volume}
    terminating = [name for name, each in volumes.items() if each.deleting]
    found = []
    if unreadable := unreadable_annotations(cluster.observation.volumes):
        found.append(Problem("UnreadableAnnotation", unreadable))
    if cluster.copies:
        found.append(Problem("VolumeCopied", described(cluster.copies)))
    if lost:
        found.append(Problem("VolumeLost", f"The volumes of these members are lost: {listed(lost)}."))
    if terminating:
        message = (
            f"The PVCs of these members are Terminating: {listed(terminating)}. The operator replaces each "
            "one while the others have a quorum."
        )
        held = [f"{name} ({listed(each.held)})" for name, each in volumes.items() if each.held]
        if held:
            message += f" Finalizers of other clients keep these PVCs also after that: {listed(held)}."
        found.append(Problem("VolumeTerminating", message))
    return found


def _of_cluster(cluster: Cluster) -> list[Problem]:
    found = list(_of_strangers(cluster))
    foreign = [each.name for each in cluster.observation.pods if each.owner != cluster.uid]
    if foreign and cluster.record.founded:
        message = (
            f"Pods that this EtcdCluster does not own have its label: {listed(foreign)}. Remove the label, "
            "or save their data and delete them."
        )
        found.append(Problem("ForeignPods", message))
    found += _of_other_ids(cluster)
    found += _of_alarms(cluster)
    if cluster.record.founded and cluster.refusal == "downgrade":
        message = (
            f"etcd {cluster.lowest} cannot be downgraded to {cluster.desired.version}. Set spec.version to "
            f"{cluster.lowest} or newer."
        )
        found.append(Problem("DowngradeRefused", message))
    if cluster.record.founded and cluster.refusal == "jump":
        message = (
            f"The upgrade policy stops at each minor release, so etcd {cluster.lowest} does not go to "
            f"{cluster.desired.version} in one edit. Set spec.version to the next minor release."
        )
        found.append(Problem("UpgradeStepRequired", message))
    return found


def _of_other_ids(cluster: Cluster) -> Iterator[Problem]:
    """Yields that a member of a founding started on a volume that was not empty (an unwiped disk)."""
    seats = {each.name for each in cluster.record.seats}
    ids = {
        each.name: each.cluster_id
        for each in cluster.observation.endpoints
        if each.name in seats and each.cluster_id
    }
    if cluster.record.founded or len({*ids.values()}) < 2:
        return
    members = listed([f"{name} ({id_:x})" for name, id_ in ids.items()])
    yield Problem(
        "OtherCluster",
        f"The members of the founding have different cluster IDs: {members}. A PersistentVolume was not "
        "empty. Delete the EtcdCluster, and create it again with empty volumes.",
    )


def _of_alarms(cluster: Cluster) -> Iterator[Problem]:
    """Yields a problem for each type of alarm. Etcd keeps the alarm of a removed member (etcd#14379)."""
    names = {each.member.id: f"the member {each.name}" for each in cluster.places.values() if each.member}
    names |= {each.id: f"the member {each.id:x}" for each in cluster.strangers}
    alarms = cluster.observation.alarms
    if alarms is None:
        yield Problem("Alarm", "etcd has alarms, but it did not answer which. Run etcdctl alarm list.")
    for type_, effect in _ALARMS.items():
        found = [each.member_id for each in alarms or () if each.type is type_]
        if not found:
            continue
        raised = [names.get(each, f"the removed member {each:x}") for each in sorted(found) if each]
        of = f" of {listed(raised)}" if raised and cluster.known else ""
        yield Problem("Alarm", f"etcd has the alarm {type_.value}{of}. {effect}")


def _of_strangers(cluster: Cluster) -> Iterator[Problem]:
    """Yields the members that a user has added, with the commands. Etcd refuses these without a quorum."""
    added = cluster.strangers or cluster.recalled_strangers
    if not added:
        return
    members = listed([f"{each.id:x}" + (f" ({listed(each.urls)})" if each.urls else "") for each in added])
    commands = " and ".join(f"etcdctl member remove {each.id:x}" for each in added)
    message = (
        f"A user has added these members to etcd: {members}. The operator never removes them, and voters "
        "count for the quorum. "
    )
    if cluster.strangers:
        message += f"Remove them with {commands}."
    else:
        message += (
            f"Start them, or wait until enough members serve. Then remove them with {commands}. If "
            f"there will be no quorum, follow {pages.VOTER_DOWN}."
        )
    yield Problem("MembersAddedByUser", message)
