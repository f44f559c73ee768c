"""Brings pods to the version and the shape of the spec, one member at a time."""

from datetime import timedelta

from etcd_operator import pages
from etcd_operator.certificates import PEER
from etcd_operator.healing import recreates, restart
from etcd_operator.model import Action, Decision, Wait
from etcd_operator.seats import Cluster, Place, listed, parsed

CLUSTER_VERSION_DELAY = timedelta(seconds=15)
"""How long after the last restart the next minor begins. The leader raises etcd's cluster version to that of
the lowest member every 5 s, and a member of the next minor refuses to start before that."""

RELINKING = timedelta(seconds=7)
"""How long after the start of a new pod the next member restarts. The others dial the address of the earlier
pod for up to 6 s. Two followers may not reach each other in that time, and no call to etcd shows it."""


def upgrade(cluster: Cluster) -> Decision | None:
    """Pods differ from the spec: restart one, followers before the leader (law 8, facts E.2).

    All members must be Ready, be linked and have caught up before each restart, and there must be no learner.
    A pod that was created again has another address, which the other followers must have found, too.
    A member that is not Ready is not behind the client Service yet. If the image of the spec has another
    version of etcd than its tag, no further member gets it.
    The leader hands over by itself when it stops, which was measured to interrupt less than MoveLeader.
    """
    outdated = [each for each in cluster.voters if cluster.outdated(each)]
    if not outdated or not cluster.known:
        return None
    place = min(cluster.claimed_first(outdated, Action.RESTART), key=cluster.leads)
    names = listed([each.name for each in outdated])
    if refusing := _distrusting(cluster, place):
        message = (
            f"The Secret {cluster.observation.peer_secret} has none of the certificate authorities that "
            f"these members trust: {listed(refusing)}. They would refuse a restarted member. Add the earlier "
            f"ones to its key {PEER.ca}. {pages.AUTHORITIES} has the procedure. Outdated members: {names}."
        )
        return Decision(Wait(30.0), "AuthoritiesReplaced", message)
    if waiting := _obstacles(cluster):
        message = f"Waiting for {waiting} before the next member is updated. Outdated members: {names}."
        return Decision(Wait(cluster.pace), "WaitingForMembers", message)
    if not cluster.can_restart(place):
        message = f"Restarting {place.name} would leave no quorum, because a user's member counts as a voter."
        return Decision(Wait(30.0), "WaitingForQuorum", message)
    if place.holding and recreates(cluster, place):
        message = f"The PVC of {place.name} is being deleted, and only its pod keeps the data. Waiting."
        return Decision(Wait(30.0), "WaitingForMembers", message)
    number = len(cluster.voters) - len(outdated) + 1
    return restart(
        cluster, place, "UpdatingMember", f"{place.name}, member {number} of {len(cluster.voters)}"
    )


def _distrusting(cluster: Cluster, place: Place) -> list[str]:
    """Returns the other voters that would refuse a voter after its restart: it reads replaced authorities."""
    refusing = cluster.observation.distrusting
    return [each.name for each in cluster.voters if each.name in refusing and each.name != place.name]


def _obstacles(cluster: Cluster) -> str:
    """Returns what an upgrade waits for. "": nothing."""
    if cluster.learners or any(each.learner for each in cluster.strangers):
        return "the learner"
    waiting = [
        f"{each.name} (it still runs etcd {each.endpoint.version})"
        if each.restarting and each.endpoint.version
        else each.name
        for each in cluster.voters
        if not (cluster.healthy(each) and each.linked and each.pod and each.pod.ready)
        or (each.mislabelled and not cluster.outdated(each))
        or each.pod.unlabelled
    ]
    if waiting:
        return listed(waiting)
    if moved := [each.name for each in cluster.voters if _just_moved(cluster, each)]:
        return f"the members to find the new addresses of {listed(moved)}"
    return "etcd to raise the cluster version" if _too_early(cluster) else ""


def _just_moved(cluster: Cluster, place: Place) -> bool:
    """Whether the pod is so new that other followers may not have found it. Two voters have one link only."""
    if cluster.count <= 2 or place.pod is None or place.pod.first_start is None:
        return False
    return cluster.observation.now - place.pod.first_start < RELINKING


def _too_early(cluster: Cluster) -> bool:
    """Whether the next minor begins right after the last restart of the current one.

    The claim of an earlier member of the same step has the same minor, so only a new minor waits.
    """
    claim, lowest, hop = cluster.record.claim, cluster.lowest, parsed(cluster.hop)
    if claim is None or claim.action is not Action.RESTART or claim.since is None or not lowest or not hop:
        return False
    claimed = parsed(claim.version)
    begins = hop.minor > lowest.minor and (claimed is None or claimed.minor != hop.minor)
    return begins and cluster.observation.now - claim.since < CLUSTER_VERSION_DELAY
