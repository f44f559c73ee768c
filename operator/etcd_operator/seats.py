"""Joins what is observed about each seat, and answers the questions that the rules of the plan ask."""

from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property, lru_cache
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from etcd_operator import identities, versions
from etcd_operator.model import (
    Action,
    Announce,
    Claim,
    Configuration,
    Decision,
    EndpointState,
    Failure,
    Founding,
    MemberState,
    Observation,
    PodPlan,
    PodState,
    Seat,
    Signal,
    Step,
    VolumeState,
)

RECENT = timedelta(minutes=1)
"""How long after its claim a change is expected to be in progress."""

END_PAUSE = timedelta(seconds=30)
"""How old a pod that has ended must be before it is replaced: the kubelet may reject the next one, too."""

NUDGED = timedelta(minutes=10)
"""How long entries are written to etcd's log for a member that runs and does not serve."""

NUDGED_LATER = timedelta(seconds=30)
"""How long they are written in each hour after that, because a snapshot can take longer."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class Place(msgspec.Struct, frozen=True):
    """One seat: everything that has its name.

    Attributes:
        name: The name.
        seat: What the status records. None: it is not a recorded voter.
        volume: Its PVC.
        pod: Its pod.
        member: Its member in the linearizable list.
        endpoint: What the member in the pod answers.
    """

    name: str
    seat: Seat | None
    volume: VolumeState | None
    pod: PodState | None
    member: MemberState | None
    endpoint: EndpointState

    @property
    def health(self) -> Signal:
        """Whether etcd runs in the pod. Without a pod it does not. A Terminating pod may still serve."""
        if self.pod is None:
            return Signal.UNHEALTHY
        if self.pod.deleting:
            return Signal.UNKNOWN
        return self.endpoint.health

    @property
    def moved(self) -> bool:
        """Whether a user or another spec has given the member another peer URL than the operator expects."""
        return self.member is not None and bool(self.member.urls)

    @property
    def down(self) -> bool:
        """Whether etcd certainly does not run."""
        return self.health is Signal.UNHEALTHY

    @property
    def running(self) -> bool:
        """Whether the container of etcd may run, as far as Kubernetes reports.

        That includes a node whose state the operator cannot read: its right to do so is optional.
        """
        pod = self.pod
        return (
            pod is not None
            and pod.ran
            and not pod.deleting
            and not pod.failure
            and pod.node is not Signal.UNHEALTHY
        )

    @property
    def starting(self) -> bool:
        """Whether the pod is on its way: it is not Ready, and neither it nor its node has a failure."""
        pod = self.pod
        return pod is not None and not pod.ready and pod.failure is None and pod.node is Signal.HEALTHY

    @property
    def linked(self) -> bool:
        """Whether etcd runs, has caught up with the leader, and is not known to have damaged data."""
        at_rest = self.health is Signal.HEALTHY and self.endpoint.linked is Signal.HEALTHY
        return at_rest and not self.endpoint.corrupt

    @property
    def intact(self) -> bool:
        """Whether the seat still has its own volume, with its data as far as Kubernetes and etcd report."""
        volume, pod = self.volume, self.pod
        if volume is None or volume.lost or volume.removed:
            return False
        if self._swapped:
            return False
        if volume.deleting and pod is None:
            return False
        return pod is None or pod.failure is not Failure.REFUSED_EMPTY

    @property
    def replaced(self) -> bool:
        """Whether a volume of its name says that it has data, and is not the one that the status records."""
        volume = self.volume
        if volume is None or not volume.started or volume.removed or volume.deleting:
            return False
        return self._swapped

    @property
    def _swapped(self) -> bool:
        if self.volume is None or self.seat is None:
            return False
        return self.seat.volume_uid not in ("", self.volume.uid)

    @property
    def lost(self) -> bool:
        """Whether the data is gone: the volume is not intact, and etcd certainly does not run."""
        return not self.intact and self.down

    @property
    def holding(self) -> bool:
        """Whether only the pod keeps the data: its PVC is Terminating until the pod is gone."""
        return self.pod is not None and self.volume is not None and self.volume.deleting

    @property
    def restarting(self) -> bool:
        """Whether the kubelet is about to restart etcd with the image that was patched."""
        return self.pod is not None and self.pod.patched

    @property
    def mislabelled(self) -> bool:
        """Whether the pod's image has another release of etcd than the version that it is used for."""
        if self.pod is None or self.pod.deleting or self.restarting:
            return False
        both = self.endpoint.version, self.pod.version
        return all(map(parsed, both)) and not same_release(*both)

    @property
    def started_version(self) -> str:
        """The version that last ran on the volume, with the suffix of its image's tag. "": unknown.

        etcd reports the release alone. The suffix is that of the running image, or the annotated one while
        the patched image has not started.
        """
        annotated = self.volume.version if self.volume else ""
        if self.pod is None or self.health is not Signal.HEALTHY or not parsed(self.endpoint.version):
            return annotated
        tag = annotated if self.restarting else self.pod.version
        return tag if same_release(tag, self.endpoint.version) else self.endpoint.version


class Cluster:
    """An observation, joined by seats. Seats are in the order of their names.

    Attributes:
        observation: The observation.
        record: Its record.
        desired: Its spec.
        known: Whether there is a linearizable member list of this very cluster.
        copies: The volumes that are copies of other members' volumes; see `identities.copies`.
        places: All seats that belong to this object, by name. A copy is not the volume of a seat.
        strangers: The members that a user has added.
        voters: The seats that vote. Without a member list: the recorded ones, those whose volumes are marked
            as started and not superseded, and the one that a claim promotes.
        learners: The seats in the member list that do not vote.
        count: The number of all voters, including those that a user has added.
        adding: The name of the seat that a claim adds. "": none.
        waiting: The name of the seat whose addition a more urgent claim interrupts. "": none.
    """

    def __init__(self, observation: Observation) -> None:
        self.observation = observation
        self.record = observation.record
        self.desired = observation.desired
        claim = self.record.claim
        self.adding = claim.name if claim and claim.action is Action.ADD else ""
        self.waiting = claim.prepared if claim else ""
        self.known = (
            observation.members is not None
            and observation.members_cluster_id == self.record.cluster_id
            and self.record.founded
        )
        in_list = observation.members if self.known and observation.members else ()
        self.copies = identities.copies(observation.volumes, self.record, in_list)
        self.places = self._join()
        places = self.places.values()
        own = {each.member.id for each in places if each.member}
        self.strangers = tuple(each for each in in_list if each.id not in own)
        self.learners = tuple(each for each in places if each.member and each.member.learner)
        if self.known:
            self.voters = tuple(each for each in places if each.member and not each.member.learner)
            self.count = sum(not each.learner for each in in_list)
        else:
            self.voters = tuple(each for each in places if each.seat or self._may_vote(each))
            self.count = len(self.voters)

    def _join(self) -> dict[str, Place]:
        observation, record = self.observation, self.record
        seats = {each.name: each for each in record.seats}
        in_list = observation.members if self.known and observation.members else ()
        names = {each.id: each.name for each in in_list}
        names |= {each.member_id: each.name for each in record.seats if each.member_id in names}
        listed_names = {*names.values()}
        volumes = {
            each.name: each
            for each in observation.volumes
            if each.name in seats
            or (each.name not in self.copies and self._own(each, listed=each.name in listed_names))
        }
        pods = {each.name: each for each in observation.pods if each.owner == observation.uid}
        claimed = {self.adding, self.waiting} - {""}
        ours = {*seats, *(name for name, each in volumes.items() if not each.removed), *claimed}
        current = [each for each in volumes.values() if not each.removed and each.name not in self.copies]
        members = self._members(in_list, ours, current)
        endpoints = {each.name: each for each in observation.endpoints}
        return {
            name: Place(
                name,
                seats.get(name),
                volumes.get(name),
                pods.get(name),
                members.get(name),
                endpoints.get(name) or EndpointState(name=name),
            )
            for name in sorted({*seats, *volumes, *pods, *members, *claimed})
        }

    def _members(
        self, in_list: tuple[MemberState, ...], ours: set[str], volumes: list[VolumeState]
    ) -> dict[str, MemberState]:
        """Returns the members of the seats: by their IDs, and those without a known ID by their peer URLs.

        A user can change a peer URL, and it depends on the spec. The ID of a member never changes.
        """
        cluster_id, seats = self.record.cluster_id, self.record.seats
        ids = {each.member_id: each.name for each in volumes if each.cluster_id == cluster_id}
        ids |= {each.member_id: each.name for each in seats if each.member_id}
        members = {ids[each.id]: each for each in in_list if each.id in ids}
        for each in in_list:
            if each.id not in ids and (each.name in ours or self._named(each.name)):
                members.setdefault(each.name, each)
        return members

    def _may_vote(self, place: Place) -> bool:
        claim = self.record.claim
        promoting = claim is not None and claim.member_id != 0 and place.name == self.adding
        started = place.volume is not None and place.volume.started and not place.volume.removed
        return promoting or (started and place.name not in self._superseded)

    @cached_property
    def _superseded(self) -> frozenset[str]:
        return identities.superseded(each.volume for each in self.places.values() if each.volume)

    def _own(self, volume: VolumeState, *, listed: bool) -> bool:
        """Whether this incarnation created the volume, maybe for a deleted EtcdCluster of this name.

        Args:
            volume: The volume.
            listed: Whether etcd lists a member with its name. A learner's volume is not marked yet.
        """
        if volume.unreadable:  # Nothing that it says about its member is certain.
            return listed and volume.owner == self.uid
        resumed = self.record.cluster_id != 0 and volume.cluster_id == self.record.cluster_id
        resumed = resumed or (listed and bool(volume.owner))
        return volume.incarnation == self.record.incarnation and (volume.owner == self.uid or resumed)

    @cached_property
    def recalled_strangers(self) -> tuple[MemberState, ...]:
        """The voters that a user has added, as members without a quorum list them. Only for messages."""
        ids = {each.member_id for each in self.record.seats}
        ids |= {each.volume.member_id for each in self.places.values() if each.volume}
        return tuple(
            each
            for each in self.observation.recalled
            if not each.learner and each.id not in ids and each.name not in self.places
        )

    def _named(self, name: str) -> bool:
        """Whether this incarnation has given the name to a seat, of which nothing but the member is left."""
        observation, record = self.observation, self.record
        return any(
            name == member_name(observation.name, observation.uid, record.incarnation, counter)
            for counter in range(record.next_member)
        )

    @property
    def uid(self) -> str:
        """The UID of the EtcdCluster."""
        return self.observation.uid

    def healthy(self, place: Place) -> bool:
        """Whether the seat is a voter of this cluster that serves, and will in the next moment."""
        if place.health is not Signal.HEALTHY or place.endpoint.cluster_id != self.record.cluster_id:
            return False
        if place.restarting:
            return False
        return place.member is None or place.endpoint.member_id == place.member.id

    def healthy_without(self, *names: str) -> int:
        """Returns the number of healthy voters that do not have these names."""
        return sum(self.healthy(each) for each in self.voters if each.name not in names)

    def can_restart(self, place: Place) -> bool:
        """Whether a quorum of voters serves while this voter restarts. One and two voters never have it."""
        return self.count <= 2 or self.healthy_without(place.name) >= quorum(self.count)

    def can_remove(self, place: Place) -> bool:
        """Whether a quorum of the voters that stay serves. A learner has no part in it."""
        if place.member is None or place.member.learner:
            return True
        return self.count > 1 and self.healthy_without(place.name) >= quorum(self.count - 1)

    @cached_property
    def can_add(self) -> bool:
        """Whether etcd accepts one more member (strict-reconfig-check, facts E.1)."""
        healthy = self.healthy_without()
        return healthy == self.count == 1 or healthy >= quorum(self.count + 1)

    def rests(self, place: Place) -> bool:
        """Whether the pod has ended soon after its creation, so the next one is not created yet."""
        pod = place.pod
        if pod is None or pod.failure is not Failure.ENDED or pod.created is None:
            return False
        return self.observation.now - pod.created < END_PAUSE

    @property
    def other_domain(self) -> str | None:
        """The `ClusterDomain` in the peer URLs of members, if the spec has another one. None: it has not."""
        domains = {each.member.domain for each in self.places.values() if each.member}
        others = (each for each in domains if each is not None and each != self.desired.domain)
        return min(others, default=None)

    @property
    def changing(self) -> bool:
        """Whether a change was claimed within the last minute, so it can be in progress."""
        return self._is_recent(self.record.claim)

    def _is_recent(self, recorded: Claim | Founding | None) -> bool:
        since = recorded.since if recorded else None
        return since is not None and self.observation.now - since < RECENT

    @property
    def soon(self) -> float:
        """The seconds between two checks of a pod that starts: short at first, as each delays the change."""
        return 0.5 if self.changing or self._is_recent(self.record.founding) else 5.0

    @property
    def pace(self) -> float:
        """The seconds between two observations while the plan waits for members: short during a change."""
        return 1.0 if self.changing else 5.0

    def nudges(self, place: Place) -> bool:
        """Whether an entry in etcd's log may help a member to serve; see `Wait.nudge`.

        The node of a pod that seems to run may be lost, so the entries become rare after the first minutes.
        """
        pod = place.pod
        since = (pod.unready_since or pod.created) if pod else None
        if since is None or not place.running:
            return False
        age = self.observation.now - since
        return age < NUDGED or age % timedelta(hours=1) < NUDGED_LATER

    @cached_property
    def leader_id(self) -> int:
        """The member ID of the leader, as the healthy voter with the highest term knows it. 0: unknown."""
        answers = [each.endpoint for each in self.voters if self.healthy(each) and each.endpoint.leader_id]
        return max(answers, key=lambda each: each.term).leader_id if answers else 0

    def leads(self, place: Place) -> bool:
        """Whether the seat is the leader."""
        return place.member is not None and place.member.id == self.leader_id

    def doomed(self, place: Place) -> bool:
        """Whether the voter loses its data when its pod is next deleted, or has lost it.

        Its PVC is Terminating or gone, or its data is in an emptyDir and the pod must be created again.
        """
        volume, pod = place.volume, place.pod
        outdated = self.desired.ephemeral and pod is not None and pod.shape != self.desired.shape
        return not place.intact or (volume is not None and volume.deleting) or outdated

    def claimed_first(self, places: Iterable[Place], action: Action) -> tuple[Place, ...]:
        """Returns seats, with the one that the claim names first: a change that has begun goes on."""
        claim = self.record.claim
        name = claim.name if claim and claim.action is action else ""
        return tuple(sorted(places, key=lambda each: each.name != name))

    @cached_property
    def keepers(self) -> tuple[Place, ...]:
        """The voters that are not doomed."""
        return tuple(each for each in self.voters if not self.doomed(each))

    @property
    def grows(self) -> bool:
        """Whether there are fewer voters than the spec asks for, without those that are doomed."""
        return len(self.keepers) < self.desired.size

    @cached_property
    def prepared(self) -> str:
        """The name of a seat that is prepared for an addition, and that etcd does not list yet. "": none.

        Its volume has no member's data: it is not used for a second member.
        """
        name = self.adding or self.waiting
        place = self.places.get(name)
        if place is None or place.member is not None or not self.grows:
            return ""
        volume = place.volume
        used = volume is not None and (volume.started or volume.removed or volume.deleting or volume.lost)
        return "" if used else name

    @cached_property
    def peers(self) -> tuple[str, ...]:
        """The names in the members' peer URLs. "" stands for peer URLs not under the headless Service."""
        members = (*self.strangers, *(each.member for each in self.places.values() if each.member))
        outside = {"" for each in members if each.outside}
        return tuple(sorted(outside | {each.name for each in members}))

    @cached_property
    def lowest(self) -> versions.Version | None:
        """The version that last ran on the volume of the voter that is furthest behind. None: unknown.

        Of one release, that is a version that is not the desired one.
        """
        known = [version for each in self.voters if (version := parsed(each.started_version))]
        target = self.desired.version
        return min(known, key=lambda each: (each.age, str(each) == target, each.suffix), default=None)

    @cached_property
    def refusal(self) -> str:
        """Why the operator does not go to the version of the spec. "": it does."""
        lowest, target = self.lowest, parsed(self.desired.version)
        if lowest is None or target is None:
            return ""
        if versions.is_downgrade(lowest, target):
            return "downgrade"
        if not self.desired.automatic and versions.minors_between(lowest, target) > 1:
            return "jump"
        return ""

    @cached_property
    def hop(self) -> str:
        """The version that all voters should run next. "": the version of the spec is refused."""
        lowest, target = self.lowest, parsed(self.desired.version)
        if lowest is None or target is None:
            return self.desired.version
        if self.refusal:
            return ""
        steps = versions.path(lowest, target)
        if not steps or steps[0].release == target.release:
            return self.desired.version
        return self._tag(steps[0])

    def wanted_version(self, place: Place) -> str:
        """Returns the version that the seat's pod should have next. A new member gets the lowest one."""
        if place.member is not None and place.member.learner:
            return self.version_to_join
        return self.hop or (place.pod.version if place.pod else self.version_to_join)

    def outdated(self, place: Place) -> bool:
        """Whether the pod differs from what the spec asks for next."""
        pod = place.pod
        if pod is None:
            return False
        reshaped = pod.shape != self.desired.shape and not self.desired.ephemeral
        wrong = place.mislabelled or pod.failure in (Failure.IMAGE, Failure.CONTAINER, Failure.CRASH)
        return reshaped or pod.version != self.wanted_version(place) or (wrong and pod.other_image)

    def version_to_create(self, place: Place) -> str:
        """Returns the version of a new pod on the seat's volume: the last one that ran, or the claimed."""
        claim, wanted = self.record.claim, self.wanted_version(place)
        if claim and (claim.action, claim.name, claim.version) == (Action.RESTART, place.name, wanted):
            return wanted
        last = parsed(place.started_version)
        if last is None:
            return self.version_to_join
        return str(last) if last.suffix else self._tag(last)

    @cached_property
    def version_to_join(self) -> str:
        """The version of a new member: the lowest one that runs, or the one that its image is used for."""
        if self.lowest is None:
            return self.desired.version
        lowest = str(self.lowest)
        wrong = (each for each in self.voters if each.mislabelled)
        used = (each.pod.version for each in wrong if each.pod and same_release(each.started_version, lowest))
        return self._tag(self.lowest, used_for=next(used, ""))

    def _tag(self, version: versions.Version, *, used_for: str = "") -> str:
        """Returns a version with the suffix with which its release runs, for a new pod.

        A registry may have only tags with a suffix, which etcd does not report. A tag that has run for a
        voter of the same shape exists in the repository of the spec. Without such a voter, it is the version
        of the spec, unless a restart is still to show that its image exists.

        Args:
            version: The version.
            used_for: The other version that an image with this release is used for. "": none.
        """
        release, target, claim = str(version), self.desired.version, self.record.claim
        pods = [each.pod for each in self.voters if each.pod and each.started_version == each.pod.version]
        ran = [each.version for each in pods if each.shape == self.desired.shape]
        tags = [each for each in ran if same_release(each, release)]
        if tags:
            return target if target in tags else tags[0]
        tried = claim is not None and (claim.action, claim.version) == (Action.RESTART, target)
        return used_for or (target if same_release(target, release) and not tried else release)

    def guarded(
        self,
        action: Action,
        name: str,
        step: Step,
        reason: str,
        message: str,
        *,
        member_id: int = 0,
        version: str = "",
        creates: PodPlan | None = None,
    ) -> Decision:
        """Returns the step if its claim is recorded, otherwise the step that records the claim (law 9)."""
        interrupts = self.count <= 2 and action is not Action.ADD
        prepared = self.prepared if self.prepared != name else ""
        wanted = Claim(action, name, member_id, version, interrupts, prepared=prepared)
        current = self.record.claim
        if current and replace(current, since=None) == wanted:
            return Decision(step, reason, message, creates=creates)
        claim = replace(wanted, since=self.observation.now)
        if interrupts:
            message = (
                f"{message} Clients may notice an interruption: a cluster of size {self.count} has no spare."
            )
        announce = Announce(replace(self.record, claim=claim))
        return Decision(announce, reason, message, creates=creates)


def quorum(voters: int) -> int:
    """Returns how many of the given number of voters must agree."""
    return voters // 2 + 1


@lru_cache(maxsize=256)
def parsed(version: str) -> versions.Version | None:
    """Returns a version, or None if the text is not a version."""
    try:
        return versions.Version.parse(version)
    except ValueError:
        return None


def same_release(one: str, other: str) -> bool:
    """Whether two texts are versions of one release of etcd, whatever their suffixes are."""
    first, second = parsed(one), parsed(other)
    return first is not None and second is not None and first.release == second.release


@lru_cache(maxsize=1024)
def member_name(cluster: str, uid: str, incarnation: int, counter: int) -> str:
    """Returns the name of a new member. The counter is recorded, so a repeated step finds the same name."""
    number = int.from_bytes(sha256(f"{uid}/{incarnation}/{counter}".encode()).digest()[:8])
    suffix = ""
    for _ in range(5):
        number, digit = divmod(number, len(_ALPHABET))
        suffix += _ALPHABET[digit]
    return f"{cluster}-{suffix}"


def new_names(observation: Observation, incarnation: int, count: int) -> tuple[tuple[str, ...], int]:
    """Returns the given number of member names that were never used, and the next counter."""
    used = {each.name for each in observation.volumes} | {each.name for each in observation.pods}
    used |= {each.name for each in observation.record.seats}
    used |= {each.name for each in observation.members or ()}
    names: list[str] = []
    counter = observation.record.next_member
    while len(names) < count:
        name = member_name(observation.name, observation.uid, incarnation, counter)
        counter += 1
        if name not in used and name not in names:
            names.append(name)
    return tuple(names), counter


def configured(place: Place, *configurations: Configuration) -> bool:
    """Whether the seat has a pod, not Terminating, with one of these configurations."""
    return place.pod is not None and not place.pod.deleting and place.pod.configuration in configurations


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Returns names for a sentence."""
    return ", ".join(names)


def unreadable_annotations(volumes: Iterable[VolumeState]) -> str:
    """Returns which annotations of volumes cannot be read, and what to do. "": all can be read."""
    found = [f"{each.unreadable} of PVC {each.name}" for each in volumes if each.unreadable]
    if not found:
        return ""
    return (
        f"These annotations cannot be read: {listed(found)}. Correct them. Keep the PVCs, because they may "
        "hold the only copy of the data."
    )
