"""An abstract world for the plan: clusters as multisets of member states, explored breadth first.

A member is a small tuple, and a world is a sorted tuple of members with a few global values, so that worlds
that differ only in names are one state. The world knows the truth about volumes and members. `observe` shows
the plan what a real observation would show of it. The rules of etcd and of Kubernetes were measured: an empty
volume starts or refuses by its configuration, a Terminating PVC stays while its pod lives, and etcd lists its
members only with a quorum.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from etcd_operator import model as m
from etcd_operator import versions
from etcd_operator.seats import member_name, parsed, quorum

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LONG_AGO = NOW - timedelta(minutes=10)
CLAIMED = NOW - timedelta(minutes=2)
UID = "uid"
VERSIONS = ("3.5.33", "3.6.14", "3.7.1", "3.6.99", "3.6.15", "3.6.14-0", "3.5.33-typo")
BAD = 3  # the index of a version whose image does not exist
MISLABELLED = 4  # the index of a version whose image has another version
SUFFIXED = 5  # the index of a version with a suffix, which etcd does not report
MISTYPED = 6  # the index of a version whose suffix does not exist
UNAVAILABLE = (BAD, MISTYPED)
BINARIES = (0, 1, 2, BAD, 1, SUFFIXED, MISTYPED)

# Volumes.
NONE, EMPTY, DATA, CORRUPT = range(4)
# Pods. GONE: there is no pod. AWAY: it runs on a node that cannot be seen. ENDED: its phase is Failed.
# HANGS: etcd runs, and never finds a leader.
GONE, NEW, UP, IMAGE, PENDING, CRASH, REFUSED, AWAY, ENDING, ENDED, HANGS = range(11)
POD_NAMES = ("gone", "new", "up", "image", "pending", "crash", "refused", "away", "ending", "ended", "hangs")
# Roles in etcd.
OUT, LISTED, LEARNER, VOTER = range(4)
# Recorded seats: not a seat, without a UID, with the UID of its volume, with the UID of a lost volume.
UNSEATED, SEATED, OWN, OTHER = range(4)
STRANGER = 99
"""The ID of a member that a user has added."""
F, J, P = m.Configuration.FOUNDING, m.Configuration.JOINING, m.Configuration.POISONED


class Member(NamedTuple):
    """The truth about one member."""

    volume: int = NONE
    terminating: bool = False
    marked: bool = False
    fresh: bool = False  # the annotation of all voters is current
    ran: int = -1  # the annotated version
    pod: int = GONE
    configuration: m.Configuration = P
    peers_right: bool = True
    serving: bool = False
    version: int = 0
    binary: int = 0  # the version of the running process, until the kubelet restarts a patched container
    shaped: bool = True  # the pod has the shape of the spec
    links: bool = True  # with the shape of the pod, etcd finds the others
    behind: bool = False  # it serves, and has not caught up with the leader since it started
    role: int = OUT
    seat: int = UNSEATED
    moved: bool = False  # a user has changed its peer URL
    prepared: bool = False  # the claim of another member interrupts its addition
    leads: bool = False
    claim: m.Action | None = None
    old: bool = False  # of an incarnation before the recorded one
    copied: bool = False  # there is a copy of its volume, with all labels and annotations
    amnesiac: bool = False  # a voter that started on an empty volume under its old ID


class World(NamedTuple):
    """The truth about one cluster."""

    members: tuple[Member, ...]
    size: int
    target: int = 0
    founded: bool = True  # as the status records it
    formed: bool = True  # the truth
    phase: m.Phase | None = None
    started: bool = False  # the founding records that a pod may have run
    edited: bool = False  # the spec was edited since the founding was recorded
    written: bool = True  # clients have written
    announced: bool = False  # the claim announces an interruption
    promoting: bool = False  # the claim says that the member may have a vote
    stranger: int = OUT  # the role of a member that a user has added
    blind: bool = False
    strikes: int = 0
    edits: int = 0
    delete: bool = False
    ephemeral: bool = False
    movable: bool = False  # whether a user may change peer URLs
    traced: bool = True  # the headless Service has its annotations
    links: bool = True  # with the shape of the spec, etcd finds the others
    lags: bool = False  # whether a member that starts again needs time to catch up


ERASED = Member()
COPIED = Member(copied=True)
"""A member of which only a copy of its volume is left."""
COPY = "copy-of-"
"""The prefix of the name of a copied volume."""
NAMES = sorted(member_name("c", UID, 1, counter) for counter in range(32))


VOTING = Member(volume=DATA, marked=True, fresh=True, ran=0, pod=UP, serving=True, role=VOTER, seat=OWN)


def cluster(voting: int, /, **values: Any) -> World:
    """A healthy cluster of the given number of voters."""
    return World((VOTING,) * voting, voting)._replace(**values)


def unfounded(size: int, /, **values: Any) -> World:
    """A cluster of which nothing exists."""
    return World((), size, founded=False, formed=False, written=False, traced=False)._replace(**values)


class Violation(AssertionError):
    """A step breaks a law."""


# ----------------------------------------------------------------------------------------------- queries


def voters(world: World) -> list[Member]:
    return [each for each in world.members if each.role == VOTER]


def count(world: World) -> int:
    if not world.formed:
        return sum(each.seat != UNSEATED for each in world.members)
    return len(voters(world)) + (world.stranger == VOTER)


def serving_voters(world: World) -> list[Member]:
    return [each for each in voters(world) if each.pod in (UP, AWAY) and each.volume == DATA]


def has_quorum(world: World) -> bool:
    """Whether enough voters run, as etcd sees it. A member on a node out of sight still runs."""
    return bool(count(world)) and len(serving_voters(world)) >= quorum(count(world))


def seen(world: World) -> bool:
    """Whether the operator gets a linearizable list."""
    return has_quorum(world) and not world.blind and any(each.pod == UP for each in serving_voters(world))


def name_of(index: int) -> str:
    return NAMES[index]


# ------------------------------------------------------------------------------------------- observation


def observe(world: World) -> m.Observation:
    """Returns what the operator sees."""
    names = {index: name_of(index) for index in range(len(world.members))}
    current = tuple(names[i] for i, each in enumerate(world.members) if each.role == VOTER)
    listed_names = {
        "" if each.moved else names[i] for i, each in enumerate(world.members) if each.role != OUT
    }
    if world.stranger != OUT:
        listed_names.add("")
    volumes, pods, members, endpoints, recorded_seats = [], [], [], [], []
    claim = None
    waiting = next((names[i] for i, each in enumerate(world.members) if each.prepared), "")
    leader = next((i + 1 for i, each in enumerate(world.members) if each.leads), 0)
    answering = seen(world)
    for index, each in enumerate(world.members):
        name = names[index]
        uid = f"v{index}"
        if each.volume != NONE:
            volumes.append(
                m.VolumeState(
                    name=name,
                    uid=uid,
                    owner=UID,
                    incarnation=0 if each.old else 1,
                    started=each.marked,
                    member_id=index + 1 if each.marked else 0,
                    cluster_id=7 if each.marked else 0,
                    version=VERSIONS[each.ran] if each.ran >= 0 else "",
                    voters=current if each.fresh else (),
                    epoch=1 if each.fresh else 0,
                    service="",
                    # Time does not pass here, so a learner would be given up again and again.
                    bound=not world.founded,
                    deleting=each.terminating,
                    lost=world.ephemeral and each.pod == ENDED,
                )
            )
        if each.copied:
            volumes.append(
                m.VolumeState(
                    name=f"{COPY}{name}",
                    uid=f"copy-of-{uid}",
                    owner=UID,
                    incarnation=1,
                    started=True,
                    member_id=index + 1,
                    cluster_id=7,
                    version=VERSIONS[0],
                    voters=(name,),
                    epoch=1,
                    labelled=name,
                )
            )
        if each.pod != GONE:
            pods.append(_pod(world, each, name, listed_names))
            endpoints.append(_endpoint(world, each, index, leader))
        static = not world.formed and each.seat != UNSEATED
        if (each.role != OUT or static) and answering:
            started = each.role in (LEARNER, VOTER)
            learner, urls = each.role in (LISTED, LEARNER), ("http://other:2380",) if each.moved else ()
            host = "" if each.moved else name
            members.append(m.MemberState(index + 1, host, learner, started, urls, each.moved))
        if each.seat != UNSEATED:
            recorded = {SEATED: "", OWN: uid, OTHER: "other"}[each.seat]
            recorded_seats.append(m.Seat(name, index + 1 if world.founded else 0, recorded))
        if each.claim is not None:
            version = VERSIONS[world.target] if each.claim is m.Action.RESTART else ""
            with_id = each.claim is m.Action.REMOVE or world.promoting
            member_id = index + 1 if with_id else 0
            claim = m.Claim(
                each.claim, name, member_id, _hop(world, version), world.announced, CLAIMED, waiting
            )
    if answering and world.stranger != OUT:
        members.append(m.MemberState(STRANGER, "", world.stranger != VOTER, started=False))
    founding = None
    if world.phase is not None:
        shape = "old" if world.edited else "new"
        founding = m.Founding(world.phase, VERSIONS[world.target], shape, "", "http/http", ran=world.started)
    record = m.Record(
        incarnation=1 if recorded_seats or world.founded else 0,
        next_member=len(NAMES),
        cluster_id=7 if world.founded else 0,
        founded=world.founded,
        founding=founding,
        seats=tuple(recorded_seats),
        claim=claim,
    )
    desired = m.Desired(
        size=world.size,
        version=VERSIONS[world.target],
        shape="new",
        delete_scaled=world.delete,
        ephemeral=world.ephemeral,
    )
    return m.Observation(
        name="c",
        uid=UID,
        now=NOW,
        desired=desired,
        record=record,
        volumes=tuple(volumes),
        pods=tuple(pods),
        members=tuple(members) if answering else None,
        members_cluster_id=7 if answering else 0,
        endpoints=tuple(endpoints),
        blind="Auth is enabled." if world.blind else "",
        trace=m.Trace(1, 7) if world.traced else m.Trace(),
    )


def _hop(world: World, version: str) -> str:
    """A claim to restart always has the next version: the world has no outdated claims."""
    if not version:
        return ""
    known = [v for each in voters(world) if (v := _last_version(world, each)) >= 0]
    lowest, target = (parsed(VERSIONS[each]) for each in (min(known, default=world.target), world.target))
    if not lowest or not target or target.release < lowest.release:
        return version
    return str((*versions.path(lowest, target), target)[0])


def _last_version(world: World, each: Member) -> int:
    """The version that the plan takes as the last one that ran."""
    healthy = each.pod == UP and has_quorum(world) and not world.blind and each.volume == DATA
    return each.binary if healthy else each.ran


_FAILURES = {
    IMAGE: m.Failure.IMAGE,
    PENDING: m.Failure.PENDING,
    CRASH: m.Failure.CRASH,
    REFUSED: m.Failure.REFUSED_EMPTY,
    ENDED: m.Failure.ENDED,
}


def _pod(world: World, each: Member, name: str, listed: set[str]) -> m.PodState:
    peers = {*listed, name} if each.peers_right else {"x"}
    return m.PodState(
        name=name,
        uid=f"p-{name}",
        owner=UID,
        version=VERSIONS[each.version],
        shape="new" if each.shaped else "old",
        configuration=each.configuration,
        peers=frozenset(peers),
        serving=each.serving,
        addressed=each.pod not in (NEW, PENDING, ENDED),
        ran=each.pod not in (NEW, PENDING, IMAGE),
        patched=_restarts(each),
        ready=each.pod == UP,
        deleting=each.pod == ENDING,
        unlisted=each.pod == CRASH and each.configuration == m.Configuration.JOINING,
        failure=_FAILURES.get(each.pod),
        damaged=each.pod == CRASH and each.volume == CORRUPT,
        failing_since=LONG_AGO if each.pod in _FAILURES else None,
        created=LONG_AGO,
        unready_since=None if each.pod == UP else LONG_AGO,
        node=m.Signal.UNKNOWN if each.pod == AWAY else m.Signal.HEALTHY,
    )


def _restarts(each: Member) -> bool:
    """Whether the kubelet is about to restart the container with a patched image."""
    return each.pod == UP and each.binary != BINARIES[each.version]


def _endpoint(world: World, each: Member, index: int, leader: int) -> m.EndpointState:
    healthy, unhealthy, unknown = m.Signal.HEALTHY, m.Signal.UNHEALTHY, m.Signal.UNKNOWN
    name = name_of(index)
    if world.blind or each.pod in (AWAY, ENDING):
        return m.EndpointState(name=name, health=unknown, linked=unknown)
    if each.pod != UP:
        return m.EndpointState(name=name, health=unhealthy, linked=unhealthy)
    serves = has_quorum(world)
    return m.EndpointState(
        name=name,
        health=healthy if serves else unhealthy,
        linked=healthy if serves and not each.behind else unhealthy,
        member_id=index + 1,
        cluster_id=7,
        leader_id=leader if serves else 0,
        term=2,
        raft_index=9,
        revision=2 if world.written else 1,
        hash=5,
        version=VERSIONS[each.binary].partition("-")[0],
    )


# ------------------------------------------------------------------------------------------------- truth


def settle(world: World) -> World:
    """Returns the canonical form: erased members are dropped, a leader is elected, members are sorted."""
    members = [each if _exists(each) else COPIED for each in world.members if _exists(each) or each.copied]
    members = [each if each.pod == UP else each._replace(behind=False) for each in members]
    if world.ephemeral:
        members = [
            each._replace(
                volume=NONE,
                terminating=False,
                marked=False,
                fresh=False,
                ran=-1,
                seat=OTHER if each.seat in (OWN, OTHER) else each.seat,
            )
            if each.pod == GONE
            else each
            for each in members
        ]
    world = world._replace(members=tuple(members))
    if has_quorum(world):
        can_lead = [i for i, each in enumerate(members) if each in serving_voters(world)]
        if not any(members[i].leads for i in can_lead):
            best = max(can_lead, key=lambda i: _key(members[i]))
            members = [each._replace(leads=i == best) for i, each in enumerate(members)]
        else:
            members = [each._replace(leads=each.leads and i in can_lead) for i, each in enumerate(members)]
    else:
        members = [each._replace(leads=False) for each in members]
    members.sort(key=_key)
    return world._replace(members=tuple(members))


def _exists(each: Member) -> bool:
    """Whether anything is left of a member, apart from a copy of its volume."""
    left = each.volume != NONE and not each.old
    return left or not (
        each.pod == GONE
        and each.role == OUT
        and each.seat == UNSEATED
        and each.claim is None
        and not each.prepared
    )


def _key(each: Member) -> tuple[object, ...]:
    return (*each[:-4], each.claim or "", *each[-3:])


def change(world: World, index: int, **values) -> World:
    members = list(world.members)
    members[index] = members[index]._replace(**values)
    return world._replace(members=tuple(members))


def change_all(world: World, where: Callable[[Member], bool], **values) -> World:
    members = tuple(each._replace(**values) if where(each) else each for each in world.members)
    return world._replace(members=members)


def membership_changed(world: World, index: int | None = None) -> World:
    """The annotations of the voters are outdated, and so are the peers of other pods that join."""
    world = change_all(world, lambda each: True, fresh=False)
    members = tuple(
        each._replace(peers_right=False)
        if i != index and each.configuration is J and each.pod != GONE and each.role != VOTER
        else each
        for i, each in enumerate(world.members)
    )
    return world._replace(members=members)


# ------------------------------------------------------------------------------------ progress by itself


def progress(world: World) -> Iterator[World]:
    """Yields what may happen next without anybody's doing: one container starts, one pod ends, and so on."""
    for index, each in enumerate(world.members):
        for after in _progress_of(world, each):
            if after != each:
                yield settle(change(world, index, **after._asdict()))


def _progress_of(world: World, each: Member) -> Iterator[Member]:
    if each.pod == ENDING:
        gone = each._replace(pod=GONE, serving=False, leads=False)
        yield gone._replace(volume=NONE, terminating=False, seat=_without(each)) if each.terminating else gone
    elif each.pod == AWAY:
        yield each._replace(pod=UP)
    elif _restarts(each):
        yield each._replace(pod=NEW)
    elif each.behind:
        yield each._replace(behind=False)
    elif each.pod == GONE and each.terminating:
        yield each._replace(
            volume=NONE, terminating=False, marked=False, fresh=False, ran=-1, seat=_without(each)
        )
    elif each.pod in (NEW, CRASH, PENDING):
        started = _start(world, each)
        yield started if each.links or started.pod != UP else started._replace(pod=HANGS)


def _without(each: Member) -> int:
    return OTHER if each.seat in (OWN, OTHER) else each.seat


def _start(world: World, each: Member) -> Member:
    """What becomes of a container that starts."""
    binary = BINARIES[each.version]
    if each.volume == NONE:
        return each._replace(pod=PENDING)
    if each.version in UNAVAILABLE:
        return each._replace(pod=IMAGE)
    if each.volume == CORRUPT:
        return each._replace(pod=CRASH)
    if each.volume == DATA:
        removed = each.role == OUT and world.formed
        return (
            each._replace(pod=CRASH) if removed else each._replace(pod=UP, binary=binary, behind=world.lags)
        )
    match each.configuration:
        case m.Configuration.POISONED:
            return each._replace(pod=REFUSED)
        case m.Configuration.FOUNDING:
            if world.formed or each.role == VOTER:
                return each._replace(pod=CRASH)
            return each._replace(pod=UP, binary=binary, volume=DATA, role=VOTER)
        case _:
            if each.role == VOTER:
                return each._replace(pod=UP, binary=binary, volume=DATA, amnesiac=True)
            if each.role == LISTED and each.peers_right and has_quorum(world):
                return each._replace(pod=UP, binary=binary, volume=DATA, role=LEARNER)
            if each.role == LEARNER:
                return each._replace(pod=UP, binary=binary, volume=DATA)
            return each._replace(pod=CRASH)


# ----------------------------------------------------------------------------------------------- strikes


def strikes(world: World) -> Iterator[World]:
    """Yields what the environment or a user may do to a member, while the budget lasts."""
    if world.strikes <= 0:
        return
    spent = world._replace(strikes=world.strikes - 1)
    for index, each in enumerate(world.members):
        if index and each == world.members[index - 1]:
            continue
        for after in _strikes_at(world, each):
            yield settle(change(spent, index, **after._asdict()))
        if world.movable and world.founded and each.role == VOTER and has_quorum(world):
            yield settle(membership_changed(change(spent, index, moved=not each.moved)))
    if world.founded or world.phase:
        # The status is lost, and the operator must find out by the volumes.
        lost = change_all(_forget(spent, None), lambda each: True, seat=UNSEATED)
        yield settle(lost)
    if world.founded:
        # A status of the founding is restored.
        yield from (settle(_forget(spent, each)) for each in (m.Phase.STARTING, m.Phase.ABANDONING))
        yield settle(spent._replace(blind=True))
        if world.stranger == OUT and has_quorum(world):
            yield settle(membership_changed(spent._replace(stranger=LISTED)))
            yield settle(membership_changed(spent._replace(stranger=VOTER)))
        return
    if world.phase and any(each.pod != GONE for each in world.members):
        # The status of an earlier founding is restored, which was given up.
        yield settle(change_all(_forget(spent, m.Phase.ABANDONING), lambda each: True, seat=UNSEATED))
    if any(each.pod == UP for each in world.members) and has_quorum(world):
        yield settle(spent._replace(written=True))


def _forget(world: World, phase: m.Phase | None) -> World:
    """The status records a phase of the founding, or nothing, instead of what came after it."""
    world = change_all(world, lambda each: True, prepared=False, claim=None)
    world = world._replace(founded=False, announced=False, promoting=False)
    return world._replace(phase=phase, started=phase is not None)


def _strikes_at(world: World, each: Member) -> Iterator[Member]:
    restarted = each._replace(pod=NEW) if each.pod in (UP, CRASH) else each
    if each.pod not in (GONE, ENDING):
        yield each._replace(pod=ENDING)  # the pod is deleted
    if each.volume != NONE and not world.ephemeral:
        if not each.terminating:
            yield each._replace(terminating=True)  # the PVC is deleted
            if each.pod not in (GONE, ENDING):
                yield each._replace(terminating=True, pod=ENDING)  # both are deleted
        # The pod and its PVC are replaced by a user: the name is the same, the data is not.
        yield each._replace(
            volume=EMPTY,
            terminating=False,
            marked=False,
            fresh=False,
            ran=-1,
            pod=GONE,
            serving=False,
            seat=_without(each),
        )
    if each.volume == DATA and each.pod != AWAY:
        yield restarted._replace(volume=EMPTY)  # the directory is wiped
        yield restarted._replace(volume=CORRUPT)
    if each.pod == UP:
        yield each._replace(pod=AWAY)  # the node is out of sight
        yield each._replace(pod=NEW)  # the process is killed
    if each.pod in (UP, NEW):
        # The kubelet evicts or rejects the pod.
        yield each._replace(pod=ENDED, volume=EMPTY if world.ephemeral else each.volume)


def edits(
    world: World, sizes: Iterable[int], targets: Iterable[int], *, shape: bool, link: bool
) -> Iterator[World]:
    """Yields what a user may edit, while the budget lasts."""
    if world.edits <= 0:
        return
    spent = world._replace(edits=world.edits - 1)
    for size in sizes:
        if size != world.size:
            yield settle(spent._replace(size=size, edited=True))
    for target in targets:
        if target != world.target:
            yield settle(spent._replace(target=target, edited=True))
    if shape:
        yield settle(change_all(spent._replace(edited=True), lambda each: True, shaped=False))
    if link:
        edited = spent._replace(edited=True, links=not world.links)
        yield settle(change_all(edited, lambda each: True, shaped=False))


# ----------------------------------------------------------------------------------------------- actions


def carry_out(world: World, observation: m.Observation, step: m.Step) -> World:
    """Returns the world after the operator has carried a step out."""
    index = {name_of(i): i for i in range(len(world.members))}
    if COPY in str(step):
        raise Violation(f"law 5: a copy of a volume is used\n{step}\n{describe(world)}")
    match step:
        case m.Announce(record):
            world = change_all(world, lambda each: True, prepared=False, claim=None)._replace(
                announced=False, promoting=False
            )
            if record.claim:
                name = record.claim.name
                if name not in index:
                    assert name not in NAMES, "a name is used twice"
                    world = world._replace(members=(*world.members, Member(version=0)))
                    index[name] = len(world.members) - 1
                world = change(world, index[name], claim=record.claim.action)
                if record.claim.prepared:
                    world = change(world, index[record.claim.prepared], prepared=True)
                promoting = record.claim.action is m.Action.ADD and record.claim.member_id != 0
                world = world._replace(announced=record.claim.interrupts, promoting=promoting)
        case m.RecordSeats(record):
            world = _record(world, record, index)
        case m.RecordFounding(record):
            world = change_all(world, lambda each: True, seat=UNSEATED, role=OUT, old=True)
            added = tuple(Member(seat=SEATED) for _ in record.seats)
            world = world._replace(
                members=(*world.members, *added),
                phase=m.Phase.PREPARING,
                started=False,
                edited=False,
                written=False,
                formed=False,
            )
        case m.RecordVolumes(record, pods):
            assert record.founding is not None
            world = _record(world, record, index)
            world = world._replace(phase=m.Phase.STARTING, started=record.founding.ran)
            world = _create(world, pods, index)
        case m.RecordAbandoning():
            world = world._replace(phase=m.Phase.ABANDONING)
        case m.RecordFounded(record):
            world = change_all(world, lambda each: each.seat != UNSEATED, role=VOTER)
            world = world._replace(founded=True, formed=True, phase=None, started=False, edited=False)
        case m.RecordResumed(record):
            world = _record(world, record, index)._replace(founded=True, phase=None, started=False)
            world = world._replace(edited=False)
        case m.CreateVolumes(names):
            for name in names:
                world = change(world, index[name], volume=EMPTY)
        case m.CreatePods(pods):
            world = _create(world, pods, index)
        case m.DeletePods(names):
            for name in names:
                world = change(world, index[name], pod=ENDING)
        case m.DeleteVolumes(names):
            for name in names:
                each = world.members[index[name]]
                world = change(
                    world,
                    index[name],
                    volume=NONE,
                    terminating=False,
                    marked=False,
                    fresh=False,
                    ran=-1,
                    seat=_without(each),
                )
        case m.Flip(names):
            for name in names:
                world = change(world, index[name], configuration=P)
        case m.Rejoin(name, _):
            world = change(world, index[name], peers_right=True)
        case m.MarkVolumes(marks):
            for mark in marks:
                world = _mark(world, index[mark.name], mark)
        case m.MarkService():
            world = world._replace(traced=True)
        case m.Serve(names):
            for name in names:
                world = change(world, index[name], serving=True)
        case m.Unserve(names):
            for name in names:
                world = change(world, index[name], serving=False)
        case m.AddLearner(name):
            busy = world.stranger == LISTED or any(e.role in (LISTED, LEARNER) for e in world.members)
            enough = count(world) == 1 or len(serving_voters(world)) >= quorum(count(world) + 1)
            if not busy and enough:
                world = membership_changed(change(world, index[name], role=LISTED), index[name])
        case m.Promote(name, _):
            world = membership_changed(change(world, index[name], role=VOTER))
        case m.RemoveMember(_, id_) if id_ == STRANGER:
            world = membership_changed(world._replace(stranger=OUT))
        case m.RemoveMember(name, _):
            each = world.members[index[name]]
            pod = CRASH if each.pod in (UP, NEW) else each.pod
            world = membership_changed(
                change(world, index[name], role=OUT, leads=False, pod=pod, amnesiac=False, moved=False)
            )
        case m.MoveLeader(name, _):
            world = change(change_all(world, lambda each: True, leads=False), index[name], leads=True)
        case m.PatchImage(name, version):
            world = change(world, index[name], version=VERSIONS.index(version))
            if world.members[index[name]].pod not in (UP, ENDED):
                world = change(world, index[name], pod=NEW)
    return settle(world)


def _create(world: World, pods: Iterable[m.PodPlan], index: dict[str, int]) -> World:
    members = world.members
    listed = {"" if members[i].moved else name for name, i in index.items() if members[i].role != OUT}
    if world.stranger != OUT:
        listed.add("")
    for planned in pods:
        i = index[planned.name]
        volume = EMPTY if world.ephemeral else world.members[i].volume
        world = change(
            world,
            i,
            pod=NEW,
            volume=volume,
            configuration=planned.configuration,
            serving=planned.serving,
            version=VERSIONS.index(planned.version),
            shaped=True,
            links=world.links,
            peers_right={*planned.peers} == {*listed, planned.name},
        )
    return world


def _record(world: World, record: m.Record, index: dict[str, int]) -> World:
    seats = {each.name: each for each in record.seats}
    members = []
    for name, i in index.items():
        each, seat = world.members[i], seats.get(name)
        if seat is None:
            state = UNSEATED
        elif not seat.volume_uid:
            state = SEATED
        else:
            state = OWN if seat.volume_uid == f"v{i}" and each.volume != NONE else OTHER
        members.append(each._replace(seat=state))
    return world._replace(members=tuple(members))


def _mark(world: World, index: int, mark: m.Mark) -> World:
    if mark.removed:
        # A retained volume plays no part any more. The plan's tests with names cover that it never returns.
        return change(
            world, index, volume=NONE, terminating=False, marked=False, fresh=False, ran=-1, seat=UNSEATED
        )
    current = tuple(name_of(i) for i, each in enumerate(world.members) if each.role == VOTER)
    ran = VERSIONS.index(mark.version) if mark.version else -1
    return change(world, index, marked=True, ran=ran, fresh=mark.voters == current and mark.epoch > 0)


# ------------------------------------------------------------------------------------------- exploration


class Count(NamedTuple):
    """What an exploration has seen."""

    states: int
    transitions: int
    member_states: int
    endings: frozenset[str]


def explore(
    starts: Iterable[World],
    decide: Callable[[m.Observation], m.Decision],
    judge: Callable[[World, m.Observation, m.Decision, World], None],
    ending: Callable[[World, m.Decision], str],
    *,
    sizes: Iterable[int] = (),
    targets: Iterable[int] = (),
    shape: bool = False,
    link: bool = False,
) -> Count:
    """Explores all worlds that can be reached, and checks that each of them heals.

    Args:
        starts: The worlds to begin with.
        decide: The plan.
        judge: Raises Violation if a step breaks a law.
        ending: Names the ending of a world that stands still, or raises Violation.
        sizes: The sizes that a user may edit to.
        targets: The versions that a user may edit to, as indexes of VERSIONS.
        shape: Whether a user may edit what shapes pods.
        link: Whether a user may edit it so that etcd does not find the other members, and back.
    """
    sizes, targets = tuple(sizes), tuple(targets)
    queue = deque(map(settle, starts))
    after_step: dict[World, World] = {}
    decided: dict[World, m.Decision] = {}
    seen_worlds = set(queue)
    transitions = 0
    while queue:
        world = queue.popleft()
        observation = observe(world)
        decision = decide(observation)
        following = carry_out(world, observation, decision.step)
        judge(world, observation, decision, following)
        decided[world], after_step[world] = decision, following
        for each in (
            following,
            *progress(world),
            *strikes(world),
            *edits(world, sizes, targets, shape=shape, link=link),
        ):
            transitions += 1
            if each not in seen_worlds:
                seen_worlds.add(each)
                queue.append(each)
    endings = _check_healing(decided, after_step, ending)
    kinds = {
        each._replace(leads=False, prepared=False, claim=None)
        for world in seen_worlds
        for each in world.members
    }
    return Count(len(seen_worlds), transitions, len(kinds), endings)


def _check_healing(
    decided: dict[World, m.Decision],
    after_step: dict[World, World],
    ending: Callable[[World, m.Decision], str],
) -> frozenset[str]:
    """Follows the plan from every world without strikes. It must come to rest, for a known reason."""
    at_rest: dict[World, str] = {}
    for start in after_step:
        path: dict[World, None] = {}
        world = start
        while world not in at_rest:
            if world in path:
                raise Violation(f"the plan goes in circles:\n{describe_path([*path], decided)}")
            path[world] = None
            following = _calm(world, after_step)
            if following == world:
                at_rest[world] = ending(world, decided[world])
            world = following
        at_rest |= dict.fromkeys(path, at_rest[world])
    return frozenset(at_rest.values())


def _calm(world: World, after_step: dict[World, World]) -> World:
    """Returns the next world without strikes and edits: the step's, or what goes on by itself."""
    following = after_step[world]
    return following if following != world else next(progress(world), world)


def describe_path(path: list[World], decided: dict[World, m.Decision]) -> str:
    return "\n".join(
        f"{decided[each].step} ({decided[each].reason})\n{describe(each)}" for each in path[-12:]
    )


def describe(world: World) -> str:
    """Returns a world for people."""
    lines = [f"  {world._replace(members=())}"]
    for each in world.members:
        values = {
            key: value
            for key, value in each._asdict().items()
            if value != getattr(ERASED, key) or key in ("pod", "volume")
        }
        values["pod"] = POD_NAMES[each.pod]
        values["volume"] = ("none", "empty", "data", "corrupt")[each.volume]
        values["role"] = ("out", "listed", "learner", "voter")[each.role]
        lines.append("    " + ", ".join(f"{key}={value}" for key, value in values.items()))
    return "\n".join(lines)
