"""Adds and removes voters, one at a time, until the cluster has the size of the spec."""

from datetime import timedelta

from msgspec.structs import replace

from etcd_operator import pages
from etcd_operator.healing import CRASH_PATIENCE, remove
from etcd_operator.model import (
    Action,
    AddLearner,
    Announce,
    Claim,
    Configuration,
    CreatePods,
    CreateVolumes,
    Decision,
    DeletePods,
    DeleteVolumes,
    Failure,
    Flip,
    Mark,
    MarkVolumes,
    PodPlan,
    Promote,
    Rejoin,
    Signal,
    Wait,
)
from etcd_operator.seats import Cluster, Place, configured, listed, new_names, quorum

RETRY_PATIENCE = timedelta(minutes=2)
"""How long the pod of a learner may crash before it is created again: the kubelet starts it about five times
in that time."""

STUCK = timedelta(minutes=10)
"""How long a new member may take to come up. After that, another one is added.

The new member has no vote, and its data is a copy. Kubernetes takes 5 min to evict the pods of a lost node.
"""


def remove_learner(cluster: Cluster) -> Decision | None:
    """A learner is not wanted any more, or does not come up: remove it. It has no vote (facts E.1).

    Etcd allows one learner by default, so a stale one would block every later addition.
    """
    for place in cluster.learners:
        if not cluster.grows:
            return remove(cluster, place, "GivingUpMember", f"{place.name} is no longer needed")
        if _crashes(cluster, place, CRASH_PATIENCE) and place.member and place.member.started:
            return remove(cluster, place, "GivingUpMember", f"{place.name} keeps crashing as a learner")
        if _stuck(cluster, place, Failure.PENDING, Failure.CRASH):
            return remove(cluster, place, "GivingUpMember", f"{place.name} has not come up as a learner")
    return None


def restart_learner(cluster: Cluster) -> Decision | None:
    """A learner has not started and its pod crashes: create the pod again.

    Its pod exits until etcd lists it. From the second exit on, the kubelet starts it 10 s to 5 min later, and
    a new pod takes 3 s. If the pod exits for another reason, the kubelet's next start is better: with TLS,
    the members refuse an address until DNS has its name, and a new pod has a new address. With emptyDir the
    pod is the volume, so it stays.
    """
    if cluster.desired.ephemeral:
        return None
    for place in cluster.learners:
        delayed = place.pod is not None and place.pod.unlisted
        patience = timedelta() if delayed else RETRY_PATIENCE
        if _crashes(cluster, place, patience) and place.member and not place.member.started:
            message = f"Creating the pod of {place.name} again, because the kubelet delays its next start."
            return Decision(DeletePods((place.name,)), "AddingMember", message)
    return None


def _crashes(cluster: Cluster, place: Place, patience: timedelta) -> bool:
    pod = place.pod
    if pod is None or pod.failure is not Failure.CRASH or pod.failing_since is None or not place.down:
        return False
    return cluster.observation.now - pod.failing_since >= patience


def _stuck(cluster: Cluster, place: Place, *failures: Failure) -> bool:
    """Whether the claimed addition does not go on, because its pod does not run where it was scheduled.

    The node or the volume of the pod may never work again. A pod that waits for a node before it has a volume
    is not stuck: another one would wait, too.
    """
    claim, pod, volume = cluster.record.claim, place.pod, place.volume
    if pod is None or place.name != cluster.adding or claim is None or claim.since is None:
        return False
    if cluster.observation.now - claim.since < STUCK or place.health is Signal.HEALTHY:
        return False
    failed = pod.failure in failures and volume is not None and volume.bound
    return failed or pod.deleting or pod.node is not Signal.HEALTHY


def give_up_addition(cluster: Cluster) -> Decision | None:
    """A claimed addition that etcd does not list is not wanted any more, or is stuck: drop the claim.

    The pod and the volume are deleted after that, like those of every seat that etcd does not list.
    """
    if not cluster.adding or not cluster.known or cluster.places[cluster.adding].member:
        return None
    if not cluster.grows:
        message = f"No longer adding {cluster.adding}, because the spec was changed."
    elif _stuck(cluster, cluster.places[cluster.adding], Failure.PENDING):
        message = f"{cluster.adding} does not come up. Another member is added instead."
    else:
        return None
    record = replace(cluster.record, claim=None)
    return Decision(Announce(record), "GivingUpMember", message)


def remove_excess(cluster: Cluster) -> Decision | None:
    """There are more voters than the spec asks for: remove one, and not the leader (law 7)."""
    if not cluster.known or len(cluster.voters) <= cluster.desired.size:
        return None
    claim = cluster.record.claim
    claimed = claim.name if claim and claim.action is Action.REMOVE else ""
    health = {Signal.UNHEALTHY: 0, Signal.HEALTHY: 1, Signal.UNKNOWN: 2}

    def preference(place: Place) -> tuple[bool, bool, int, bool, bool, str]:
        return (
            not cluster.doomed(place),
            place.moved,
            health[place.health],
            cluster.leads(place),
            place.name != claimed,
            place.name,
        )

    victim = min(cluster.voters, key=preference)
    if victim.moved and not cluster.doomed(victim):
        message = "No member is removed until all members have the peer URLs that the operator expects."
        return Decision(Wait(30.0), "PeerUrlChanged", message)
    unseen = [each for each in cluster.voters if each.health is Signal.UNKNOWN]
    if victim in unseen or (unseen and cluster.healthy_without(victim.name) <= quorum(cluster.count - 1)):
        message = (
            f"Waiting until the operator can see {listed([each.name for each in unseen])}. If it removed a "
            "healthy member now, the cluster could not tolerate another failure. If the node will not "
            f"return, follow {pages.NODE_LOST}."
        )
        return Decision(Wait(cluster.pace), "WaitingForMembers", message)
    return remove(cluster, victim, "RemovingMember", _why_removed(cluster, victim))


def _why_removed(cluster: Cluster, place: Place) -> str:
    """Returns why a voter leaves: others replace one that loses its data."""
    if not cluster.doomed(place):
        return f"{place.name} leaves, to scale from {len(cluster.voters)} to {cluster.desired.size} voters"
    if not place.intact:
        cause = "its volume is lost"
    elif place.holding:
        cause = "its PVC is being deleted"
    else:
        cause = "its data is in its pod, which differs from the spec"
    return f"{place.name} is replaced, because {cause}"


def claim_addition(cluster: Cluster) -> Decision | None:
    """There are too few voters: claim a new name, the seat that is prepared for it, or a learner.

    A learner without a claim is that of an operator that was killed.
    """
    if not cluster.known or not cluster.grows:
        return None
    if cluster.learners:
        learner = cluster.learners[0]
        if learner.name == cluster.adding:
            return None
        record = replace(cluster.record, claim=Claim(Action.ADD, learner.name, since=cluster.observation.now))
        message = f"Continuing the interrupted addition of {learner.name}."
        return Decision(Announce(record), "AddingMember", message)
    if cluster.adding and cluster.places[cluster.adding].member is None:
        return None
    if refused := _refused(cluster):
        return refused
    name, counter = cluster.prepared, cluster.record.next_member
    if not name:
        (name,), counter = new_names(cluster.observation, cluster.record.incarnation, 1)
    claim = Claim(Action.ADD, name, since=cluster.observation.now)
    message = _addition(cluster, name)
    return Decision(
        Announce(replace(cluster.record, claim=claim, next_member=counter)), "AddingMember", message
    )


def _addition(cluster: Cluster, name: str) -> str:
    """Returns why a member is added. Members that lose their data still vote while they are replaced."""
    voters, size = cluster.voters, cluster.desired.size
    if len(voters) >= size:
        return f"Adding {name} to replace {listed([each.name for each in voters if cluster.doomed(each)])}."
    return f"Adding {name}, because the cluster has {len(voters)} of {size} voters."


def _refused(cluster: Cluster) -> Decision | None:
    """Returns why etcd would refuse an addition now. None: it accepts it."""
    if any(each.learner for each in cluster.strangers):
        message = "A user has added a learner, and etcd allows only one. Promote or remove it with etcdctl."
        return Decision(Wait(30.0), "WaitingForLearner", message)
    if cluster.other_domain is not None:
        message = "No member is added until spec.pod.ClusterDomain matches the members' peer URLs."
        return Decision(Wait(30.0), "PeerUrlChanged", message)
    if not cluster.can_add:
        message = "A member is missing, but etcd refuses to add one until more of the members serve."
        return Decision(Wait(cluster.pace), "WaitingForQuorum", message)
    return None


def prepare_addition(cluster: Cluster) -> Decision | None:
    """The claimed seat is not in etcd yet: create its volume and its pod first.

    The pod's address must be in the EndpointSlice before etcd dials it, or DNS caches its absence.
    Until it is added, etcd exits in the pod and is restarted by the kubelet. Nothing can delay its start: the
    address is known only when the container starts, and the images have no program that waits.
    """
    name = cluster.adding
    if not name or not cluster.known or not cluster.grows:
        return None
    place = cluster.places[name]
    if place.member is not None:
        return None
    reason, version = "AddingMember", cluster.version_to_join
    if place.volume is None and not cluster.desired.ephemeral:
        return Decision(CreateVolumes((name,)), reason, f"Creating the volume of {name}.")
    if place.volume and (place.volume.deleting or place.volume.lost):
        return _start_over(cluster, place)
    peers = (*cluster.peers, name)
    if place.pod is None:
        pod = PodPlan(name, version, Configuration.JOINING, peers=peers)
        return Decision(CreatePods((pod,)), reason, f"Creating the pod of {name}.")
    if place.pod.deleting:
        return Decision(Wait(cluster.soon), reason, f"Waiting until the pod of {name} is gone.")
    if (place.pod.version, place.pod.shape) != (version, cluster.desired.shape) or place.pod.unlabelled:
        return Decision(
            DeletePods((name,)), reason, f"Creating the pod of {name} again with the current spec."
        )
    if place.pod.peers != {*peers}:
        return Decision(Rejoin(name, peers), reason, f"Configuring {name} with the current members.")
    if not place.pod.addressed:
        return Decision(Wait(cluster.soon), reason, f"Waiting until the pod of {name} has an address.")
    if refused := _refused(cluster):
        return refused
    message = f"Adding {name} to etcd as a learner."
    return cluster.guarded(Action.ADD, name, AddLearner(name), reason, message)


def _start_over(cluster: Cluster, place: Place) -> Decision:
    """The volume of a seat that etcd has never listed is lost: delete the seat, and claim another name."""
    name = place.name
    if cluster.rests(place):
        return Decision(Wait(cluster.soon), "AddingMember", f"Waiting before {name} is started again.")
    if place.pod and not place.pod.deleting:
        return Decision(
            DeletePods((name,)), "AddingMember", f"The volume of {name} is lost: deleting its pod."
        )
    if place.volume and not place.volume.deleting:
        return Decision(DeleteVolumes((name,)), "AddingMember", f"The volume of {name} is lost: deleting it.")
    return Decision(Wait(cluster.soon), "AddingMember", f"Waiting until the volume of {name} is gone.")


def finish_addition(cluster: Cluster) -> Decision | None:
    """The claimed seat is a learner: once it has caught up, poison it, mark its volume and promote it."""
    place = cluster.places.get(cluster.adding)
    if place is None or place.member is None or not place.member.learner:
        return None
    pod, volume, member = place.pod, place.volume, place.member
    if pod is None or pod.deleting or volume is None:
        return Decision(Wait(cluster.soon), "AddingMember", f"Waiting until the pod of {place.name} runs.")
    if pod.unlabelled or volume.unlabelled:
        message = f"The pod or the PVC of {place.name} has lost its label, so it gets no vote yet."
        return Decision(Wait(30.0), "AddingMember", message)
    joining = configured(place, Configuration.JOINING)
    if joining and not member.started and pod.peers != {*cluster.peers}:
        message = f"Configuring {place.name} with the current members."
        return Decision(Rejoin(place.name, cluster.peers), "AddingMember", message)
    if not member.started or not place.linked:
        wait = Wait(cluster.soon, nudge=cluster.nudges(place))
        return Decision(wait, "AddingMember", f"Waiting until {place.name} has caught up.")
    if configured(place, Configuration.JOINING, Configuration.FOUNDING):
        message = f"Configuring {place.name} to refuse an empty volume."
        return Decision(Flip((place.name,)), "AddingMember", message)
    if not volume.started or volume.member_id != member.id:
        mark = Mark(place.name, True, member.id, place.started_version, volume.voters, volume.epoch)
        message = f"Recording the member on the volume of {place.name}."
        return Decision(MarkVolumes((mark,)), "AddingMember", message)
    if not cluster.can_add:
        return Decision(
            Wait(cluster.pace),
            "WaitingForQuorum",
            "Waiting to promote the learner until enough voters serve.",
        )
    message = f"Giving {place.name} a vote."
    step = Promote(place.name, member.id)
    return cluster.guarded(Action.ADD, place.name, step, "AddingMember", message, member_id=member.id)
