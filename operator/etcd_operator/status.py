"""Derives the status of an EtcdCluster from an observation and a decision, without any I/O.

The status of a settled cluster does not change: it has no numbers that grow with each write.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from etcd_operator.blueprint import APP
from etcd_operator.etcd import CLIENT_PORT
from etcd_operator.failures import INVALID_SPEC, KUBERNETES_REFUSED, invalid_spec
from etcd_operator.model import Blocked, Decision, Observation, Problem, Settled, Signal, Wait
from etcd_operator.problems import SYMPTOMS
from etcd_operator.reasons import ALARMS, SEEN_IN_ANSWERS, SEEN_IN_ONE_ANSWER
from etcd_operator.seats import Cluster, Place, listed, quorum
from etcd_operator.types import LABEL, EtcdClusterStatus, MembersStatus
from etcd_operator.validation import Verdict
from pilothouse import TaskFailed

CREATING, RUNNING, FAILED = "Creating", "Running", "Failed"
"""The phases of the coreos operator."""

_MIB = 1 << 20
_HEALING = ("ReplacingMember", "RecreatingPods", "NoQuorum", "Resuming", "CorrectingMember", "QuorumLost")


_STOPPED = (KUBERNETES_REFUSED, "AuthoritiesReplaced")
"""The reasons of decisions to wait that delay all planned restarts until a user acts."""


class Aspect(NamedTuple):
    """A condition to set. A status of None stands for Unknown."""

    type: str
    status: bool | None
    reason: str
    message: str


class Report(NamedTuple):
    """What to write into the status.

    Attributes:
        status: The fields.
        conditions: The conditions besides Ready.
        ready: The status of Ready. None: Unknown.
        reason: Its reason.
        message: Its message.
        alarms: The messages of the problems that need a user, by their reasons.
    """

    status: EtcdClusterStatus
    conditions: tuple[Aspect, ...]
    ready: bool | None
    reason: str
    message: str
    alarms: Mapping[str, str]


def report(
    status: EtcdClusterStatus,
    observation: Observation,
    decision: Decision,
    verdict: Verdict,
    *,
    obstacles: tuple[Problem, ...] = (),
    warnings: tuple[Problem, ...] = (),
) -> Report:
    """Returns what the status shows.

    Args:
        status: The status so far, with the record.
        observation: The last observation.
        decision: What was decided on it.
        verdict: Which spec is in force.
        obstacles: Problems that the plan does not know, and that explain what it waits for.
        warnings: Warnings that the spec alone does not show.
    """
    cluster = Cluster(observation)
    decision = replace(decision, problems=(*obstacles, *decision.problems))
    verdict = replace(verdict, warnings=(*verdict.warnings, *warnings))
    ready, reason, message = _ready(cluster, decision, verdict, obstacles)
    conditions = tuple(
        each
        for each in _conditions(cluster, decision, verdict)
        if each.status is not False or each.type in _ALWAYS or _has(status, each.type)
    )
    alarms = _alarms(decision, verdict)
    fields = replace(
        _fields(status, cluster, decision),
        alarms=tuple(sorted({*alarms} | _held(status, cluster))),
        last_valid_spec=verdict.last_valid_spec,
    )
    return Report(fields, conditions, ready, reason, message, alarms)


def _alarms(decision: Decision, verdict: Verdict) -> dict[str, str]:
    """Returns the messages of the problems that need a user, by their reasons.

    An overloaded API server refuses writes for a moment, which needs no user. If it refuses the pod of a
    restart, that is the reason of the decision, too.
    """
    found: defaultdict[str, list[Problem]] = defaultdict(list)
    if verdict.mistakes:
        found[INVALID_SPEC].append(Problem(INVALID_SPEC, _mistakes(verdict)))
    if isinstance(decision.step, Blocked):
        found[decision.reason].append(Problem(decision.reason, decision.message))
    for each in decision.problems:
        if each.reason != KUBERNETES_REFUSED or decision.reason == KUBERNETES_REFUSED:
            found[each.reason].append(each)
    return {reason: _sentences(each) for reason, each in found.items() if reason in ALARMS}


def _held(status: EtcdClusterStatus, cluster: Cluster) -> frozenset[str]:
    """Returns the earlier alarms that may not have ended: members do not answer, or it is paused."""
    unknown: set[str] = set()
    if not cluster.known:
        unknown |= SEEN_IN_ANSWERS
    if any(each.pod and each.health is not Signal.HEALTHY for each in cluster.places.values()):
        unknown |= SEEN_IN_ONE_ANSWER
    if cluster.desired.paused:
        unknown.add("PermissionDenied")
    if any(map(cluster.outdated, (*cluster.voters, *cluster.learners))):
        unknown.add(KUBERNETES_REFUSED)  # A step that is more urgent asks for no restart.
    return frozenset(unknown.intersection(status.alarms))


class Notice(NamedTuple):
    """An Event about an alarm.

    Attributes:
        begins: Whether the alarm begins. Otherwise it ends.
        reason: The reason of the Event.
        message: Its note.
    """

    begins: bool
    reason: str
    message: str


def notices(status: EtcdClusterStatus, found: Report) -> Iterator[Notice]:
    """Yields what a pager needs: once when an alarm begins, and once when it ends.

    The stored status shows which Events an earlier reconcile or process has recorded.

    Args:
        status: The stored status.
        found: What is going to replace it.
    """
    before, now = status.alarms, found.status.alarms
    for each in before:
        if each not in now:
            yield Notice(False, "AlarmEnded", f"{each} is no longer reported. {found.message}")
    for each in now:
        if each not in before:
            yield Notice(True, each, found.alarms[each])


def failed_status(status: EtcdClusterStatus, failure: TaskFailed) -> EtcdClusterStatus:
    """Returns the status for a failure before the cluster was observed."""
    phase = FAILED if failure.permanent and status.phase != RUNNING else status.phase
    return replace(status, phase=phase, reason=failure.message if phase == FAILED else "")


# The fields.


def _fields(status: EtcdClusterStatus, cluster: Cluster, decision: Decision) -> EtcdClusterStatus:
    record, observation = cluster.record, cluster.observation
    status = replace(status, control_paused=cluster.desired.paused, **_phase(cluster, decision))
    if not record.incarnation:
        return status  # `records` recognizes a cluster of the coreos operator by the other fields.
    current = _current_version(status, cluster)
    return replace(
        status,
        size=len(cluster.voters) if record.founded else 0,
        selector=",".join(f"{key}={value}" for key, value in {**APP, LABEL: observation.name}.items()),
        service_name=f"{observation.name}-client",
        client_port=CLIENT_PORT,
        members=_members(cluster),
        leader=next((each.name for each in cluster.voters if cluster.leads(each)), ""),
        current_version=current,
        target_version=cluster.desired.version if current and current != cluster.desired.version else "",
        db_size=_db_size(status.db_size, cluster),
        retained_volumes=tuple(sorted(each.name for each in observation.volumes if each.removed)),
    )


def _phase(cluster: Cluster, decision: Decision) -> dict[str, str]:
    if isinstance(decision.step, Blocked):
        return {"phase": FAILED, "reason": decision.message}
    return {"phase": RUNNING if cluster.record.founded else CREATING, "reason": ""}


def _members(cluster: Cluster) -> MembersStatus:
    known = {each.name for each in (*cluster.voters, *cluster.learners)}
    ready = {each.name for each in cluster.voters if each.pod and each.pod.ready and _serves(cluster, each)}
    if not cluster.record.founded:
        known = {each.name for each in cluster.record.seats}
        ready = set()
    return MembersStatus(ready=tuple(sorted(ready)), unready=tuple(sorted(known - ready)))


def _serves(cluster: Cluster, place: Place) -> bool:
    """Whether a member serves. If the operator cannot see members, the readiness of its pod shows that."""
    hidden = not cluster.known and bool(cluster.observation.blind)
    return cluster.healthy(place) or (hidden and place.health is Signal.UNKNOWN and place.running)


def _current_version(status: EtcdClusterStatus, cluster: Cluster) -> str:
    if not cluster.record.founded:
        return ""
    return str(cluster.lowest) if cluster.lowest else status.current_version


def _db_size(before: str, cluster: Cluster) -> str:
    sizes = [each.endpoint.db_size for each in cluster.voters if each.endpoint.db_size]
    return rounded(max(sizes)) if sizes else before


def rounded(size: int) -> str:
    """Returns a number of bytes, rounded up in steps of at least 4 MiB and at least an eighth of it."""
    step = max(4 * _MIB, 1 << max(0, size.bit_length() - 4))
    return f"{-(-size // step) * step // _MIB}Mi"


# The conditions.

_ALWAYS = ("Available", "Progressing", "Degraded")


def _has(status: EtcdClusterStatus, type_: str) -> bool:
    return any(each.type == type_ for each in status.conditions)


def _ready(
    cluster: Cluster, decision: Decision, verdict: Verdict, obstacles: Sequence[Problem]
) -> tuple[bool | None, str, str]:
    if cluster.desired.paused:
        return None, "Paused", "spec.paused is true, so the operator does not touch the cluster."
    if verdict.mistakes:
        return False, INVALID_SPEC, _mistakes(verdict)
    if not isinstance(decision.step, Settled):
        if obstacles:
            return False, obstacles[0].reason, obstacles[0].message
        return False, decision.reason, _with_cause(decision)
    if decision.problems:
        return False, decision.problems[0].reason, _sentences(decision.problems)
    # The kubelet notices some time after the operator that a member serves. Clients connect to ready pods.
    if unready := [each.name for each in cluster.voters if each.pod is None or not each.pod.ready]:
        return False, "WaitingForMembers", f"Waiting until these pods are ready: {listed(unready)}."
    return True, "Settled", decision.message


def _mistakes(verdict: Verdict) -> str:
    return f"{invalid_spec(verdict.mistakes)} The last valid spec stays in force."


def _with_cause(decision: Decision) -> str:
    """Returns the message of a decision, and if it waits, why: such as an image that cannot be pulled."""
    causes = (each for each in decision.problems if each.reason not in SYMPTOMS)
    if isinstance(decision.step, Wait) and (cause := next(causes, None)):
        return f"{decision.message} {cause.message}"
    return decision.message


def _conditions(cluster: Cluster, decision: Decision, verdict: Verdict) -> Iterator[Aspect]:
    yield _available(cluster)
    settled = isinstance(decision.step, Settled | Blocked) or cluster.desired.paused
    yield Aspect("Progressing", not settled, decision.reason, decision.message)
    if isinstance(decision.step, Blocked):
        yield Aspect("Degraded", True, decision.reason, decision.message)
    elif decision.problems:
        yield Aspect("Degraded", True, decision.problems[0].reason, _sentences(decision.problems))
    else:
        yield Aspect("Degraded", False, "NoProblems", "The operator sees no problems.")
    yield _scaling(cluster, decision)
    yield _upgrading(cluster, decision)
    healing = decision.reason in _HEALING
    message = decision.message if healing else "No member is recovering."
    yield Aspect("Recovering", healing, decision.reason if healing else "NotRecovering", message)
    warnings = verdict.warnings
    if warnings:
        yield Aspect("Warning", True, warnings[0].reason, _sentences(warnings))
    else:
        yield Aspect("Warning", False, "NoWarnings", "The spec has no warnings.")
    yield _interruption(cluster, decision)


def _available(cluster: Cluster) -> Aspect:
    if not cluster.record.founded:
        return Aspect("Available", False, "NotFounded", "The cluster is not founded yet.")
    healthy, unknown = cluster.healthy_without(), 0
    unknown = sum(
        not cluster.healthy(each) and each.health is not Signal.UNHEALTHY for each in cluster.voters
    )
    needed = quorum(cluster.count)
    if healthy >= needed:
        return Aspect("Available", True, "ClusterAvailable", "A quorum of the members serves clients.")
    if healthy + unknown >= needed:
        blind = f" {cluster.observation.blind}" if cluster.observation.blind else ""
        message = f"The operator cannot see whether a quorum of the {cluster.count} voters serves.{blind}"
        return Aspect("Available", None, "Unknown", message)
    message = f"No quorum: fewer than {needed} of {cluster.count} voters serve."
    return Aspect("Available", False, "NoQuorum", message)


def _scaling(cluster: Cluster, decision: Decision) -> Aspect:
    current, desired = len(cluster.voters), cluster.desired.size
    if not cluster.record.founded:
        return Aspect("Scaling", False, "NotFounded", "The cluster is not founded yet.")
    if current == desired:
        return Aspect("Scaling", False, "SizeReached", f"The cluster has {_count(current)}.")
    message = f"The cluster has {_count(current)}, and spec.size is {desired}."
    if isinstance(decision.step, Blocked) or cluster.desired.paused:
        return Aspect("Scaling", False, decision.reason, message)
    return Aspect("Scaling", True, "ScalingUp" if current < desired else "ScalingDown", message)


def _count(members: int) -> str:
    return f"{members} member" if members == 1 else f"{members} members"


def _upgrading(cluster: Cluster, decision: Decision) -> Aspect:
    target = cluster.desired.version
    started = {each.started_version for each in cluster.voters} - {""}  # A lost volume has no version.
    running = started | {each.pod.version for each in cluster.voters if each.pod}
    if not cluster.record.founded or cluster.refusal or running <= {target}:
        return Aspect("Upgrading", False, "VersionReached", f"All members run {target}.")
    stopped = f"The upgrade to {target} has stopped."
    if _stopped(cluster, decision):
        return Aspect("Upgrading", False, decision.reason, stopped)
    if any(each.mislabelled and not cluster.outdated(each) for each in cluster.voters):
        return Aspect("Upgrading", False, "UnexpectedVersion", stopped)
    return Aspect("Upgrading", True, "ClusterUpgrading", f"Upgrading the members to etcd {target}.")


def _stopped(cluster: Cluster, decision: Decision) -> bool:
    """Whether no restart begins until a user acts."""
    return isinstance(decision.step, Blocked) or cluster.desired.paused or decision.reason in _STOPPED


def _interruption(cluster: Cluster, decision: Decision) -> Aspect:
    claim = cluster.record.claim
    if claim is None or not claim.interrupts:
        return Aspect("Interruption", False, "NoInterruption", "No interruption is planned.")
    if _stopped(cluster, decision):
        return Aspect("Interruption", False, decision.reason, decision.message)
    message = (
        f"The operator is about to {claim.action.lower()} {claim.name}. Clients may notice an interruption: "
        f"a cluster of size {cluster.count} has no spare member."
    )
    return Aspect("Interruption", True, "PlannedInterruption", message)


def _sentences(problems: Iterable[Problem]) -> str:
    text = ""
    for each in problems:
        text += f" {each.message}"
        if each.cause not in text:
            text += f" {each.cause}"
    return text.strip()
