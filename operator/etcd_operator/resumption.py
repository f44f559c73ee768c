"""What was here before: resumes a cluster from its retained volumes, or founds nothing beside its remains.

These rules precede those of a founding (laws 4 and 5).
"""

from msgspec.structs import replace

from etcd_operator import pages
from etcd_operator.identities import described, superseded
from etcd_operator.model import Blocked, Decision, RecordResumed, Seat, VolumeState, Wait
from etcd_operator.seats import Cluster, listed, parsed, quorum, unreadable_annotations
from etcd_operator.types import LABEL
from etcd_operator.versions import is_downgrade

NAMES_PER_EPOCH = 100
"""How many names a lost status may have used per change of the voters, so that no name is used twice."""


def blocked_by_foreign_objects(cluster: Cluster) -> Decision | None:
    """Objects of another operator have the cluster's label: found nothing (step 0).

    Pods of a deleted EtcdCluster of this name are being collected: wait for that.
    """
    observation = cluster.observation
    volumes = (*observation.volumes, *observation.claims)
    if unreadable := unreadable_annotations(volumes):
        return Decision(Blocked(), "UnreadableAnnotation", unreadable)
    if foreign := _foreign_objects(cluster):
        message = f"{foreign} Nothing is founded until then. You can also use another name for the cluster."
        return Decision(Blocked(), "ForeignObjects", message)
    earlier = [each.name for each in observation.pods if each.owner != observation.uid]
    if earlier:
        message = f"Waiting until the pods of the deleted cluster of this name are gone: {listed(earlier)}."
        return Decision(Wait(), "EarlierPods", message)
    return None


def _foreign_objects(cluster: Cluster) -> str:
    """Returns what this operator did not create, and what to do. It is never to delete the last copy of data.

    A pod without the annotation `shape` is of another operator, also if the EtcdCluster owns it: the kind is
    that of the coreos operator.
    """
    observation = cluster.observation
    claims = observation.claims if cluster.desired.ephemeral else observation.volumes
    kept = {each.name for each in claims if each.owner}
    foreign = [each.name for each in claims if not each.owner]
    pods = [each for each in observation.pods if not each.owner or not each.shape]
    orphaned = [each.name for each in pods if each.shape and each.name in kept]
    holding = [each.name for each in pods if each.name not in orphaned]
    parts = []
    if foreign:
        parts.append(
            f"The PVCs {listed(foreign)} do not have this operator's annotations, and may hold the only copy "
            "of the data. If they are restored volumes of this cluster, restore their annotations "
            f"({pages.UNMARKED} has the commands). Otherwise remove their label {LABEL}."
        )
    if holding:
        parts.append(
            f"This EtcdCluster did not create the pods {listed(holding)}, and they may hold the only copy of "
            "their data. Save a snapshot of it before you delete them."
        )
    if orphaned:
        parts.append(
            f"This EtcdCluster does not own the pods {listed(orphaned)}. Delete them: their PVCs keep the "
            "data."
        )
    if cluster.record.foreign_status:
        parts.append(
            f"The status is that of the coreos operator. {pages.MIGRATION} explains how to move the data."
        )
    return " ".join(parts)


def blocked_by_copies(cluster: Cluster) -> Decision | None:
    """Nothing but copies of volumes is left, or two volumes have one member ID: start neither (law 5)."""
    retained = {each.name for each in _retained(cluster)}
    doubtful = any(not original and name in retained for name, original in cluster.copies.items())
    if not retained or not (doubtful or retained <= cluster.copies.keys()):
        return None
    return Decision(Blocked(), "VolumeCopied", described(cluster.copies))


def _retained(cluster: Cluster) -> list[VolumeState]:
    return [each for each in cluster.observation.volumes if each.started and not each.removed]


def resume(cluster: Cluster) -> Decision | None:
    """Retained volumes hold a started cluster: resume its last voters, and never found another (law 4).

    This also covers a status that was lost or restored while the cluster lives. The started volumes of the
    last incarnation are started with poison, without copies and without those of voters that were replaced
    since. Each member knows from its log who votes, so it does no harm if the last change of the voters is
    not recorded.
    """
    retained = [each for each in _retained(cluster) if each.name not in cluster.copies]
    if not retained:
        return None
    incarnation = max(each.incarnation for each in retained)
    retained = [each for each in retained if each.incarnation == incarnation]
    outdated = superseded(retained)
    volumes = sorted((each for each in retained if each.name not in outdated), key=lambda each: each.name)
    epoch = max(each.epoch for each in volumes)
    newest = next(each for each in volumes if each.epoch == epoch)
    voters = newest.voters or tuple(each.name for each in volumes)
    if obstacle := _obstacle(cluster, volumes, voters):
        return obstacle
    known = [last for each in volumes if (last := parsed(each.version))]
    newest_version = max(known, key=lambda each: each.age, default="")
    version = cluster.desired.version if cluster.desired.pinned else str(newest_version)
    missing = sorted({*voters} - {each.name for each in volumes})
    ids = {each.cluster_id for each in volumes if each.cluster_id}
    record = replace(
        cluster.record,
        incarnation=incarnation,
        next_member=max(cluster.record.next_member, NAMES_PER_EPOCH * (1 + epoch)),
        version=version,
        cluster_id=max(ids, default=0),
        founded=True,
        founding=None,
        seats=(
            *(Seat(each.name, each.member_id, each.uid) for each in volumes),
            *(Seat(name, 0, "lost") for name in missing),
        ),
        claim=None,
    )
    message = f"Resuming the cluster from the volumes {listed([each.name for each in volumes])}."
    if outdated:
        message += (
            f" The members on the volumes {listed(sorted(outdated))} were replaced, so they stay stopped."
        )
    return Decision(RecordResumed(record), "Resuming", message)


def _obstacle(cluster: Cluster, volumes: list[VolumeState], voters: tuple[str, ...]) -> Decision | None:
    """Returns why the retained volumes cannot be resumed. None: they can."""
    service = cluster.observation.service
    others = sorted({each.service for each in volumes if each.service is not None} - {service})
    if others:
        message = (
            f"The retained volumes hold members of the cluster {listed(others)}, and this one is {service}. "
            "The operator does not start them, because they would connect to the members of that cluster. "
            "Use the name and namespace of that cluster, or restore a snapshot. "
            f"{pages.ALL_LOST} has the commands."
        )
        return Decision(Blocked(), "OtherService", message)
    running = {each.name for each in cluster.observation.pods}
    gone = [each.name for each in volumes if each.lost or (each.deleting and each.name not in running)]
    usable = [each.name for each in volumes if each.name in voters and each.name not in gone]
    missing = [name for name in voters if name not in usable]
    if len(usable) < quorum(len(voters)):
        message = (
            f"The retained volumes hold a cluster of size {len(voters)}, but the volumes of "
            f"{listed(missing)} are missing, are being deleted or lack the label "
            f"{LABEL}={cluster.observation.name}, so there is no quorum. Restore these PVCs or their labels, "
            f"or recover from one that is left: {pages.NOT_RESUMED} has the commands. To found an empty "
            f"cluster instead, delete the PVCs {listed([each.name for each in volumes])}."
        )
        return Decision(Blocked(), "VolumesMissing", message)
    if len({each.cluster_id for each in volumes if each.cluster_id}) > 1:
        message = "The retained volumes belong to different clusters. Delete the PVCs that you do not need."
        return Decision(Blocked(), "VolumesOfDifferentClusters", message)
    schemes = sorted({each.scheme for each in volumes} - {cluster.desired.scheme})
    if schemes:
        message = (
            f"The retained volumes hold a cluster with {listed(schemes)} for peers and clients, but spec.TLS "
            f"sets {cluster.desired.scheme}. Set spec.TLS as it was."
        )
        return Decision(Blocked(), "OtherScheme", message)
    domains = sorted({each.domain for each in volumes if each.domain is not None})
    if domains and cluster.desired.domain not in domains:
        message = (
            f"spec.pod.ClusterDomain is {cluster.desired.domain!r}, but the peer URLs of the cluster on the "
            f"retained volumes are under {domains[0]!r}. Set spec.pod.ClusterDomain to {domains[0]!r}."
        )
        return Decision(Blocked(), "OtherDomain", message)
    versions = [version for each in volumes if (version := parsed(each.version))]
    newest = max(versions, key=lambda each: each.age, default=None)
    target = parsed(cluster.desired.version)
    if cluster.desired.pinned and newest and target and is_downgrade(newest, target):
        message = (
            f"The retained volumes hold data of etcd {newest}, and spec.version is {target}. etcd "
            f"cannot be downgraded: set spec.version to {newest}."
        )
        return Decision(Blocked(), "OtherVersion", message)
    return None


def blocked_by_other_storage(cluster: Cluster) -> Decision | None:
    """The data is to be in emptyDir, but PVCs hold a started cluster: found nothing beside it (law 4)."""
    left = [each.name for each in cluster.observation.claims if each.started and not each.removed]
    if not left:
        return None
    message = (
        f"The retained volumes {listed(sorted(left))} hold a cluster, and spec.storage.ephemeral is true. To "
        "resume the cluster, remove spec.storage.ephemeral. To found an empty cluster instead, delete these "
        "PVCs."
    )
    return Decision(Blocked(), "OtherStorage", message)


def blocked_by_trace(cluster: Cluster) -> Decision | None:
    """This EtcdCluster had a cluster, of which no volume is left: found no other one in its place (law 4).

    The status was lost, too, or an old one was restored. Otherwise the cluster would count as founded.
    """
    trace = cluster.observation.trace
    if trace is None or not trace.incarnation:
        return None
    message = (
        f"The status and all volumes of the cluster {trace.cluster_id:x} are lost. The operator founds no "
        "other cluster in its place. Restore the PVCs with their annotations and labels. Or delete the "
        "EtcdCluster, and create it again, empty or from a snapshot. "
        f"{pages.ALL_LOST} has the commands."
    )
    return Decision(Blocked(), "DataLost", message)


RULES = (
    blocked_by_foreign_objects,
    blocked_by_copies,
    resume,
    blocked_by_other_storage,
    blocked_by_trace,
)
"""The rules that precede a founding. The first one that applies decides."""
