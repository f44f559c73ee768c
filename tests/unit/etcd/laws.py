"""The laws of the etcd operator, as a judge of single steps in the abstract world of `abstract`."""

from collections.abc import Iterator

from etcd_operator import model as m
from etcd_operator.seats import parsed, quorum, same_release
from tests.unit.etcd.abstract import (
    AWAY,
    BINARIES,
    COPIED,
    CORRUPT,
    CRASH,
    DATA,
    GONE,
    IMAGE,
    LEARNER,
    LISTED,
    MISLABELLED,
    NONE,
    OTHER,
    OUT,
    OWN,
    STRANGER,
    UNAVAILABLE,
    UNSEATED,
    UP,
    VERSIONS,
    VOTER,
    F,
    Member,
    P,
    Violation,
    World,
    count,
    describe,
    has_quorum,
    name_of,
    voters,
)

Targets = dict[str, Member]


def judge(world: World, observation: m.Observation, decision: m.Decision, after: World) -> None:
    """Raises Violation if the step, or the world that it was decided in, breaks a law."""
    index = {name_of(i): i for i in range(len(world.members))}
    step = decision.step
    targets = {name: world.members[index[name]] for name in names_of(step) if name in index}
    broken = [
        *law_1(world, step, targets),
        *law_2(world, step, targets, after),
        *law_3(step, targets),
        *law_4(world, step),
        *law_5(world, step, targets),
        *law_6(world, step, targets),
        *law_7(world, step, targets),
        *law_8(world, step, targets),
        *law_9(observation, step),
        *law_12(world, step, targets),
        *law_13(step),
    ]
    if broken:
        raise Violation(
            f"{'; '.join(broken)}\n{step}\n{decision.reason}: {decision.message}\n{describe(world)}"
        )


def names_of(step: m.Step) -> tuple[str, ...]:
    """Returns the seats that a step touches."""
    if isinstance(step, m.CreatePods):
        return tuple(each.name for each in step.pods)
    if isinstance(step, m.MarkVolumes):
        return tuple(each.name for each in step.marks)
    if hasattr(step, "names"):
        return step.names
    return (step.name,) if hasattr(step, "name") else ()


def live(world: World) -> list[Member]:
    """The voters that serve and are not about to restart, as far as the operator can see."""
    return [
        each
        for each in voters(world)
        if each.pod == UP and each.volume == DATA and each.binary == BINARIES[each.version]
    ]


def law_1(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """No acknowledged write is lost."""
    if any(each.amnesiac for each in world.members):
        yield "law 1: a voter forgot its log and votes on"
    if isinstance(step, m.Serve) and any(each.role != VOTER for each in targets.values()):
        yield "law 1: a member that is not a voter serves clients"
    holders = [each for each in world.members if each.seat == OWN and each.volume == DATA]
    if isinstance(step, m.RecordAbandoning) and world.written and holders:
        yield "law 1: a founding with written data is given up"
    deletes = isinstance(step, m.DeletePods | m.DeleteVolumes) and world.phase is m.Phase.ABANDONING
    if deletes and world.written and any(each in holders for each in targets.values()):
        yield "law 1: the written data of a founding is deleted"


def law_2(world: World, step: m.Step, targets: Targets, after: World) -> Iterator[str]:
    """A quorum of voters serves at any instant; one and two voters get an announcement."""
    before, left = live(world), live(after)
    if not world.founded or (len(left) >= len(before) and count(after) <= count(world)):
        return
    if isinstance(step, m.RemoveMember) and not any(each in before for each in targets.values()):
        return
    if count(world) >= 3 and len(left) < quorum(count(after)):
        yield f"law 2: {len(left)} of {count(after)} voters serve after the step"
    interrupts = len(left) < len(before)
    if count(world) <= 2 and interrupts and not world.announced:
        yield "law 2: the interruption was not announced"


def law_3(step: m.Step, targets: Targets) -> Iterator[str]:
    """A member joins as a learner that has started."""
    if isinstance(step, m.Promote) and any(
        each.role != LEARNER or each.pod != UP for each in targets.values()
    ):
        yield "law 3: a member that has not started gets a vote"


def law_4(world: World, step: m.Step) -> Iterator[str]:
    """Only a founding starts members with the state `new`, and only one is ever founded."""
    recorded = world.formed and _has_marked_volumes(world)
    starting = not world.founded and world.phase is m.Phase.STARTING and not recorded
    founding = isinstance(step, m.CreatePods) and any(each.configuration is F for each in step.pods)
    if founding and not starting:
        yield "law 4: a pod with the state new outside of the founding"
    if isinstance(step, m.RecordFounding):
        if any(each.marked and each.volume != NONE for each in world.members):
            yield "law 4: a second cluster is founded over retained data"
        if any(each.pod != GONE for each in world.members):
            yield "law 4: a second cluster is founded beside running pods"
        if world.traced:
            yield "law 4: a second cluster is founded in the place of a lost one"
    if isinstance(step, m.Serve) and not world.traced:
        yield "law 4: clients can write before the cluster is recorded on its Service"


def law_5(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """A member identity never starts on a volume other than its own."""
    if isinstance(step, m.CreatePods):
        for pod in step.pods:
            each = targets[pod.name]
            if each.seat == OTHER or each.terminating:
                yield "law 5: a member starts on a volume that is not its own"
            if (each.role == VOTER or each.marked) and world.founded and pod.configuration is not P:
                yield "law 5: a started member is created without poison"
    if isinstance(step, m.Promote) and any(each.configuration is not P for each in targets.values()):
        yield "law 5: a learner is promoted without poison"
    if any(each.serving and each.configuration is not P and each.role == VOTER for each in world.members):
        yield "law 5: a voter serves clients without poison"


def law_6(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """Data is deleted only for a member that etcd has confirmed removed, and only if the spec says so."""
    if isinstance(step, m.DeleteVolumes):
        if world.founded and any(each.role != OUT for each in targets.values()):
            yield "law 6: the data of a member is deleted"
        if world.founded and not world.delete and any(each.marked for each in targets.values()):
            yield "law 6: retained data is deleted"
        if not world.founded and any(each.volume in (DATA, CORRUPT) for each in targets.values()):
            yield "law 6: the data of a founding is deleted"
    holders = [each for each in targets.values() if each.role == VOTER and each.volume == DATA]
    if isinstance(step, m.DeletePods) and world.ephemeral and world.founded and holders:
        yield "law 6: the emptyDir of a voter is deleted"
    kept = world.phase is not m.Phase.ABANDONING and any(
        each.terminating and each.seat == OWN for each in holders
    )
    if isinstance(step, m.DeletePods) and kept:
        yield "law 6: the pod that keeps a Terminating volume is deleted"


def law_7(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """The leader is removed or restarted last."""
    leaders = [each for each in targets.values() if each.leads and each.pod == UP]
    if not leaders or not world.founded:
        return
    if isinstance(step, m.RemoveMember) and len(live(world)) > 1:
        yield "law 7: the leader is removed"
    if isinstance(step, m.PatchImage):
        others = [each for each in live(world) if not each.leads]
        if any(VERSIONS[each.version] != step.version for each in others):
            yield "law 7: the leader restarts before a follower"


def law_8(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """One minor and one member at a time."""
    versions = dict.fromkeys(targets, getattr(step, "version", ""))
    if isinstance(step, m.CreatePods):
        versions = {each.name: each.version for each in step.pods}
    elif not isinstance(step, m.PatchImage | m.DeletePods):
        return
    if not world.founded:
        return
    ran = [parsed(VERSIONS[each.ran]) for each in voters(world) if each.ran >= 0]
    old = min((each for each in ran if each), key=lambda each: each.release, default=None)
    for version in versions.values():
        new = parsed(version)
        if new and old and new.minor.minor - old.minor.minor > 1:
            yield f"law 8: a member goes from {old} to {new}"
    down = [each for each in targets.values() if each.role == VOTER and each not in live(world)]
    if isinstance(step, m.PatchImage) and any(_begins_minor(each, step.version) for each in down):
        yield "law 8: a minor upgrade begins with a member that is down"
    joining = [each for each in targets.values() if each.role in (OUT, LISTED, LEARNER)]
    runs = {each.version for each in voters(world)} | {each.binary for each in live(world)}
    runs -= {*UNAVAILABLE}
    if joining and isinstance(step, m.PatchImage) and VERSIONS.index(step.version) not in runs:
        yield "law 8: a new member gets a version that no voter runs"
    restarted = [each for each in targets.values() if each.role == VOTER and each in live(world)]
    if isinstance(step, m.PatchImage | m.DeletePods) and restarted:
        if len(restarted) > 1 or len(live(world)) < len(voters(world)):
            yield "law 8: a member restarts while another one does not serve"
        if any(each.behind for each in voters(world)):
            yield "law 8: a member restarts while another one has not caught up"
        if any(each.role in (LISTED, LEARNER) for each in world.members):
            yield "law 8: a member restarts while another one is added"


def _begins_minor(each: Member, version: str) -> bool:
    """Whether the pod of a voter has the release that last ran, and gets another minor."""
    new, old = parsed(version), parsed(VERSIONS[each.ran]) if each.ran >= 0 else None
    if new is None or old is None or new.minor == old.minor:
        return False
    return same_release(VERSIONS[each.version], VERSIONS[each.ran])


def law_9(observation: m.Observation, step: m.Step) -> Iterator[str]:
    """A change of etcd follows a linearizable list and a durable claim of its target."""
    if not isinstance(step, m.AddLearner | m.Promote | m.RemoveMember | m.MoveLeader):
        return
    claim = observation.record.claim
    if observation.members is None:
        yield "law 9: a change of etcd without a member list"
    wanted = {m.AddLearner: m.Action.ADD, m.Promote: m.Action.ADD}.get(type(step), m.Action.REMOVE)
    if claim is None or claim.action is not wanted:
        yield "law 9: a change of etcd without its claim"
    elif not isinstance(step, m.MoveLeader) and claim.name != step.name:
        yield "law 9: a change of etcd with the claim of another member"


def law_12(world: World, step: m.Step, targets: Targets) -> Iterator[str]:
    """What cannot be seen justifies no destructive step."""
    if not isinstance(step, m.RemoveMember | m.DeletePods | m.DeleteVolumes | m.PatchImage):
        return
    if world.founded and any(each.pod == AWAY and each.role == VOTER for each in targets.values()):
        yield "law 12: a member that cannot be seen is touched"
    if (
        world.blind
        and world.founded
        and any(each.role == VOTER and each.pod == UP for each in targets.values())
    ):
        yield "law 12: a blind operator touches a member"


def law_13(step: m.Step) -> Iterator[str]:
    """The members of another writer are its own: the operator counts them, and does not touch them.

    `test_one_writer` has the other half of the law: nothing but the playbook touches the operator's members.
    """
    if getattr(step, "member_id", 0) == STRANGER:
        yield "law 13: a member that a user has added is touched"


def ending(world: World, decision: m.Decision) -> str:
    """Names how a world comes to rest. Raises Violation unless it is healthy or beyond help."""
    intact = [each for each in voters(world) if each.volume == DATA and not each.terminating]
    match decision.step:
        case m.Settled() if _healthy(world):
            return "Healthy"
        case m.Blocked() if decision.reason == "VolumesMissing" and not has_quorum(world):
            return decision.reason
        case m.Blocked() if decision.reason == "DataLost" and not _has_marked_volumes(world):
            return decision.reason
        case m.Blocked() if decision.reason == "VolumeCopied" and not _has_marked_volumes(world):
            return decision.reason
        case m.Blocked() if decision.reason == "OtherVersion" and _is_downgrade(world):
            return decision.reason  # The status is lost, and the user has to undo the downgrade.
        case m.Blocked() if decision.reason == "QuorumLost" and (
            # The last removal may not be recorded while the image of the last voter does not exist.
            len(intact) < quorum(count(world)) or world.target in UNAVAILABLE
        ):
            return "QuorumLost"
        case m.Wait() if decision.reason == "FoundingLostVolumes":
            return decision.reason
        case m.Settled() if "DowngradeRefused" in {each.reason for each in decision.problems}:
            return "DowngradeRefused"
        case m.Settled() | m.Wait() if decision.problems and world.target == MISLABELLED:
            assert decision.problems[0].reason == "UnexpectedVersion", describe(world)
            return "UnexpectedVersion"
        case m.Wait() if _beyond_help(world):
            return decision.reason
        case m.Wait() if not has_quorum(world) and len(intact) < quorum(count(world)) and not world.stranger:
            # The last removal is not recorded, so the plan cannot know that there is no quorum any more.
            assert {"VolumeLost", "VolumeWiped", "MemberCrashing", "MemberDown", "PodEnded"} & {
                each.reason for each in decision.problems
            }, describe(world)
            return "QuorumLostUnknown"
    raise Violation(
        f"it does not heal: {decision.step} {decision.reason} {decision.message}\n{describe(world)}"
    )


def _healthy(world: World) -> bool:
    target = voters(world)
    return (
        len(target) == world.size
        and all(each.pod == UP and each.configuration is P and each.serving for each in target)
        and all(each.marked and each.fresh and each.seat == OWN and each.claim is None for each in target)
        and all(each.shaped and each.version == world.target for each in target)
        and sum(each != COPIED for each in world.members) == len(target)
    )


def _has_marked_volumes(world: World) -> bool:
    return any(each.marked and each.volume != NONE for each in world.members)


def _is_downgrade(world: World) -> bool:
    """Whether the volumes have data of a newer release than that of the spec, which only a user can undo."""
    target = parsed(VERSIONS[world.target])
    ran = [parsed(VERSIONS[each.ran]) for each in world.members if each.marked and each.ran >= 0]
    return any(each and target and each.release > target.release for each in ran)


def _is_damaged(world: World) -> bool:
    """Whether data is damaged, and the member cannot be replaced because there is no quorum."""
    replaceable = world.founded and has_quorum(world)
    return not replaceable and any(each.volume == CORRUPT for each in world.members)


def _beyond_help(world: World) -> bool:
    """Whether only a user, or the node, can go on."""
    return (
        world.blind
        or world.stranger != OUT
        or world.target in UNAVAILABLE
        or not world.links
        or any(each.moved for each in world.members)
        or any(each.pod == IMAGE for each in world.members)
        or _is_damaged(world)
        or (not world.founded and any(each.pod == CRASH for each in world.members if each.seat != UNSEATED))
        or (not has_quorum(world) and world.stranger == VOTER)
    )
