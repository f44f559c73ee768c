"""Asks the members of a cluster for their state. A member that does not answer is unknown, not dead."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from etcd_operator.errors import (
    CredentialsError,
    EtcdError,
    NoLeader,
    PermissionDenied,
    TlsFailed,
    Unreachable,
)
from etcd_operator.etcd import DEADLINE, Alarm, AlarmType, Etcd, HashKV, MemberList, MemberStatus
from etcd_operator.model import EndpointState, Signal

CAUGHT_UP = 1000
"""How many log entries a linked member may lack: etcd keeps more than that in memory for it, and at some
thousand writes a second the answers of two members differ by a few hundred entries."""

ENDING_DEADLINE = 0.5
"""The seconds in which a member must answer while its pod is being deleted. If its address is removed during
a call, the call only ends at its deadline, and its pod is not created again before that."""

AUTH = (
    "etcd's auth is enabled, and the operator has no user. Disable auth with `etcdctl auth disable`, or "
    "create an etcd user with the role root whose name is the common name of the client certificate in "
    "spec.TLS.static.operatorSecret."
)
"""Why etcd denies calls, and what to do."""


class Answer(msgspec.Struct, frozen=True):
    """What the member in one pod answered.

    Attributes:
        name: The name of the pod.
        status: Its own state. None: it did not answer.
        listed: The linearizable member list. None: it is a learner, or it did not answer.
        recalled: The member list that a voter without a leader has. No quorum confirms it.
        hash: The hash of its store. None: it was not asked.
        error: The first error.
    """

    name: str
    status: MemberStatus | None = None
    listed: MemberList | None = None
    recalled: MemberList | None = None
    hash: HashKV | None = None
    error: EtcdError | None = None


async def ask(
    members: Mapping[str, Etcd], *, hashes: bool, ending: Collection[str] = ()
) -> tuple[Answer, ...]:
    """Asks all members at the same time: two calls to each, or three with the hash.

    The member list is also the linearizable read that shows whether the member serves.

    Args:
        members: The clients by the names of the pods.
        hashes: Whether to read the hashes, too. It costs the members time, so only during the founding.
        ending: The names of the pods that are being deleted; see `ENDING_DEADLINE`.
    """
    deadlines = {name: ENDING_DEADLINE if name in ending else DEADLINE for name in members}
    calls = (_ask(name, etcd, hashes, deadlines[name]) for name, etcd in members.items())
    return tuple(await asyncio.gather(*calls))


async def _ask(name: str, etcd: Etcd, hashes: bool, deadline: float) -> Answer:
    answer = Answer(name)
    try:
        status = await etcd.status(deadline=deadline)
        answer = replace(answer, status=status)
        if status.is_learner:
            return answer  # It would answer the list with an error.
        if not status.leader:
            return replace(answer, recalled=await _recalled(etcd, deadline))
        answer = replace(answer, listed=await etcd.member_list(deadline=deadline))
        if hashes:
            answer = replace(answer, hash=await etcd.hash_kv(status.revision))
    except EtcdError as error:
        answer = replace(answer, error=error)
    return answer


async def _recalled(etcd: Etcd, deadline: float) -> MemberList | None:
    """Returns the member list that a member has. None: it refused, which its health does not depend on."""
    try:
        return await etcd.member_list(linearizable=False, deadline=deadline)
    except EtcdError:
        return None


def recalled_list(answers: Iterable[Answer], cluster_id: int) -> MemberList | None:
    """Returns the member list of the voter without a leader that has the longest log. None: none answered."""
    found = [
        (each.status.raft_index, each.recalled)
        for each in answers
        if each.status and each.recalled and each.recalled.cluster_id == cluster_id
    ]
    return max(found, key=lambda each: each[0])[1] if found else None


async def alarms(members: Mapping[str, Etcd], answers: Iterable[Answer]) -> tuple[Alarm, ...] | None:
    """Returns the cluster's alarms. It asks only if a member reports that there are some.

    Returns:
        The alarms. None: there are some, and no member has answered which.
    """
    asked = False
    for answer in answers:
        if answer.status is None or not answer.status.errors or answer.listed is None:
            continue
        asked = True
        try:
            return await members[answer.name].alarms()
        except EtcdError:
            continue
    return None if asked else ()


def chosen_list(answers: Sequence[Answer], cluster_id: int) -> Answer | None:
    """Returns the answer with the member list to rely on: of this cluster, and of its leader if possible.

    A list of another cluster is returned only if there is no other, so that the plan notices it.

    Args:
        answers: The answers.
        cluster_id: The recorded cluster ID. 0: none yet.
    """

    def preference(answer: Answer) -> tuple[bool, bool, int, bool]:
        status, listed = answer.status, answer.listed
        if status is None or listed is None:
            return False, False, 0, False
        leads = status.leader == status.member_id
        return True, listed.cluster_id == cluster_id, listed.raft_term, leads

    best = max(answers, key=preference, default=None)
    return best if best and best.listed else None


def rivals(answers: Iterable[Answer], cluster_id: int) -> tuple[str, ...]:
    """Returns the pods whose members have another leader than the latest one, and do not list each other.

    Each of these members has answered a linearizable read, so two groups of members have a quorum of their
    own. After a usual election, both lists have both leaders.

    Args:
        answers: The answers.
        cluster_id: The recorded cluster ID.
    """
    found = [
        (each.name, each.status.leader, each.listed)
        for each in answers
        if each.status and each.listed and each.listed.cluster_id == cluster_id
    ]
    if not found:
        return ()
    _, leader, latest = max(found, key=lambda each: each[2].raft_term)
    return tuple(
        sorted(
            name for name, other, listed in found if not (_lists(latest, other) and _lists(listed, leader))
        )
    )


def _lists(listed: MemberList, member_id: int) -> bool:
    return any(each.id == member_id for each in listed.members)


def state_of(answer: Answer, answers: Iterable[Answer], found: Iterable[Alarm] | None = ()) -> EndpointState:
    """Returns the state of one member, in the light of the answers of all.

    Args:
        answer: Its answer.
        answers: All answers.
        found: The alarms of etcd. None: unknown.
    """
    status = answer.status
    if status is None:
        refused = isinstance(answer.error, Unreachable) and answer.error.refused
        return EndpointState(name=answer.name, health=Signal.UNHEALTHY if refused else Signal.UNKNOWN)
    return EndpointState(
        name=answer.name,
        health=_health(answer, status),
        linked=_linked(answer, status, answers),
        member_id=status.member_id,
        cluster_id=status.cluster_id,
        leader_id=status.leader,
        term=status.raft_term,
        raft_index=status.raft_index,
        revision=status.revision,
        hash=answer.hash.hash if answer.hash else 0,
        version=status.version,
        db_size=status.db_size,
        corrupt=_corrupt(status, found),
    )


def _corrupt(status: MemberStatus, found: Iterable[Alarm] | None) -> bool:
    if found is None:  # Each member reports the alarms of all, as text.
        return any(AlarmType.CORRUPT.value in each for each in status.errors)
    return any(each.type is AlarmType.CORRUPT and each.member_id in (0, status.member_id) for each in found)


def _health(answer: Answer, status: MemberStatus) -> Signal:
    if not status.leader or isinstance(answer.error, NoLeader):
        return Signal.UNHEALTHY
    return Signal.HEALTHY if status.is_learner or answer.listed is not None else Signal.UNKNOWN


def _linked(answer: Answer, status: MemberStatus, answers: Iterable[Answer]) -> Signal:
    """Returns whether a member follows the leader, as both of them report it.

    A voter that has answered a linearizable read has exchanged messages with the leader just now.
    """
    leader = next(
        (each.status for each in answers if each.status and each.status.member_id == status.leader), None
    )
    if leader is None or (answer.listed is None and not status.is_learner):
        return Signal.UNKNOWN
    if (leader.cluster_id, leader.raft_term, leader.leader) != (
        status.cluster_id,
        status.raft_term,
        status.leader,
    ):
        return Signal.UNHEALTHY
    behind = leader.raft_index - status.raft_applied_index
    return Signal.HEALTHY if behind <= CAUGHT_UP else Signal.UNHEALTHY


def blindness(answers: Iterable[Answer]) -> str:
    """Returns why the operator cannot see the members although they run. Empty: it can."""
    for answer in answers:
        if isinstance(answer.error, PermissionDenied):
            return f"The operator may not see the members. {AUTH}"
        if isinstance(answer.error, TlsFailed | CredentialsError):
            error = str(answer.error)
            return f"{error[:1].upper()}{error[1:]}. Check the Secrets in spec.TLS.static."
    return ""
