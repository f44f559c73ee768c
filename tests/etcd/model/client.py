"""The model's members as clients call them: the rules of etcd's API, with deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from msgspec.structs import replace

from etcd_operator.errors import DeadlineExceeded, Unreachable, refusal
from etcd_operator.etcd import (
    DEADLINE,
    Alarm,
    Credentials,
    Endpoint,
    Etcd,
    HashKV,
    KeyValue,
    Member,
    MemberList,
    MemberStatus,
)
from pilothouse import ObjectKey
from tests.etcd.model.members import Members
from tests.etcd.model.network import Answer
from tests.etcd.model.process import Process
from tests.etcd.model.state import Change, Delete, Entry, Put, Remove, SetMember, member_id, quorum

A = TypeVar("A")

#: Seconds that an answer takes, and between two checks whether a call can be answered.
LATENCY, POLL = 0.002, 0.05
#: Seconds for which a voter must have been connected to count in a change of the membership.
HEALTH_INTERVAL = 5.0
#: The part of the leader's log that a learner needs before its promotion.
READY = 0.9
#: The methods of `Etcd` that change nothing.
READS = ("alarms", "get", "hash_kv", "member_list", "status")


class _Refusal(Exception):
    """Etcd refuses the call with this status and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass
class _Proposal:
    """A change that is proposed once the member has a leader.

    Attributes:
        change: The change.
        entry: The entry of the log. None until it is proposed.
    """

    change: Change
    entry: Entry | None = None


class ModelMember:
    """A client of the member at one endpoint. It implements `etcd_operator.etcd.Etcd`.

    Args:
        members: The model.
        endpoint: The member's address and name.
    """

    def __init__(self, members: Members, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._members = members

    async def member_list(self, *, linearizable: bool = True, deadline: float = DEADLINE) -> MemberList:
        """Returns the cluster's members."""

        def answer(process: Process) -> MemberList | None:
            self._authorize(process, observes=True)
            self._refuse_learner(process)
            if linearizable and not self._confirmed(process):
                return None
            return _list(process)

        return await self._call("MemberList", answer, deadline)

    async def member_add(
        self, peer_urls: Iterable[str], *, learner: bool = True, deadline: float = DEADLINE
    ) -> MemberList:
        """Adds a member."""
        urls = tuple(peer_urls)

        def propose(process: Process) -> _Proposal:
            self._may_add(process, learner)
            self._refuse_existing(process, urls)
            if learner and any(each.is_learner for each in process.known.values()):
                raise _Refusal("FAILED_PRECONDITION", "etcdserver: too many learner members in cluster")
            number = member_id(urls, second=int(self._members.now))
            self._members.changes.append(f"add {'learner' if learner else 'voter'} {' '.join(urls)}")
            return _Proposal(SetMember(Member(number, "", urls, (), learner)))

        return await self._change("MemberAdd", propose, deadline)

    async def member_remove(self, member: int, *, deadline: float = DEADLINE) -> MemberList:
        """Removes a member."""

        def propose(process: Process) -> _Proposal:
            found = self._found(process, member)
            if not found.is_learner:
                self._may_remove(process, member)
            self._members.changes.append(f"remove {' '.join(found.peer_urls)}")
            return _Proposal(Remove(member))

        return await self._change("MemberRemove", propose, deadline)

    async def member_promote(self, member: int, *, deadline: float = DEADLINE) -> MemberList:
        """Gives a learner a vote."""

        def propose(process: Process) -> _Proposal | None:
            leader = self._members.leader_of(process)
            if leader is None:
                return None
            found = self._found(leader, member)
            self._may_promote(leader, found)
            self._members.changes.append(f"promote {' '.join(found.peer_urls)}")
            return _Proposal(SetMember(replace(found, is_learner=False)))

        return await self._change("MemberPromote", propose, deadline)

    async def member_update(
        self, member: int, peer_urls: Iterable[str], *, deadline: float = DEADLINE
    ) -> MemberList:
        """Replaces a member's peer URLs."""
        urls = tuple(peer_urls)

        def propose(process: Process) -> _Proposal:
            found = self._found(process, member)
            self._refuse_existing(process, urls, but=member)
            self._members.changes.append(f"update {' '.join(urls)}")
            return _Proposal(SetMember(replace(found, peer_urls=urls)))

        return await self._change("MemberUpdate", propose, deadline)

    async def move_leader(self, target_id: int, *, deadline: float = DEADLINE) -> None:
        """Makes another voter the leader."""

        def answer(process: Process) -> bool | None:
            self._authorize(process)
            self._refuse_learner(process)
            if not process.leads:
                raise _Refusal("FAILED_PRECONDITION", "etcdserver: not leader")
            target = process.opened.state.members.get(target_id)
            if target is None or target.is_learner:
                raise _Refusal("FAILED_PRECONDITION", "etcdserver: bad leader transferee")
            successor = next((each for each in process.links if each.id == target_id), None)
            if target_id == process.id:
                return True
            if successor is None:
                return None
            self._members.hand_over(process, successor)
            return True

        await self._call("MoveLeader", answer, deadline)

    async def status(self, *, deadline: float = DEADLINE) -> MemberStatus:
        """Returns the member's own state."""

        def answer(process: Process) -> MemberStatus:
            self._authorize(process, observes=True)
            data = process.opened
            leaderless = () if process.leader else ("etcdserver: no leader",)
            alarms = (f"memberID:{each.member_id} alarm:{each.type.value} " for each in data.state.alarms)
            return MemberStatus(
                version=process.version,
                db_size=data.state.size,
                db_size_in_use=data.state.size,
                leader=process.leader,
                raft_index=data.commit,
                raft_applied_index=data.state.applied,
                raft_term=data.term,
                is_learner=process.learner,
                errors=(*leaderless, *alarms),
                cluster_id=data.cluster_id,
                member_id=data.member_id,
                revision=data.state.revision,
            )

        return await self._call("Status", answer, deadline)

    async def alarms(self, *, deadline: float = DEADLINE) -> tuple[Alarm, ...]:
        """Returns the cluster's alarms. Etcd reads them through the log, so this needs a quorum."""

        def answer(process: Process) -> tuple[Alarm, ...] | None:
            self._authorize(process, observes=True)
            self._refuse_learner(process)
            return process.opened.state.alarms if self._confirmed(process) else None

        return await self._call("Alarm", answer, deadline)

    async def hash_kv(self, revision: int = 0, *, deadline: float = DEADLINE) -> HashKV:
        """Returns the hash of the member's key-value store."""

        def answer(process: Process) -> HashKV:
            self._authorize(process)
            self._refuse_learner(process)
            data = process.opened
            if revision > data.state.revision:
                message = "etcdserver: mvcc: required revision is a future revision"
                raise _Refusal("OUT_OF_RANGE", message)
            wanted = revision or data.state.revision
            return HashKV(
                hash=data.state.hashes[wanted - 1],
                compact_revision=-1,
                revision=data.state.revision,
                cluster_id=data.cluster_id,
                member_id=data.member_id,
                raft_term=data.term,
            )

        return await self._call("HashKV", answer, deadline)

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        """Returns a key, or None if it does not exist."""

        def answer(process: Process) -> tuple[KeyValue | None] | None:
            self._authorize(process)
            if linearizable:
                self._refuse_learner(process)
            if linearizable and not self._confirmed(process):
                return None
            return (process.opened.state.keys.get(key),)

        return (await self._call("Range", answer, deadline))[0]

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        """Writes a key and returns the revision."""
        proposal = _Proposal(Put(key, value))

        def answer(process: Process) -> KeyValue | None:
            if proposal.entry is None:
                self._authorize(process)
                self._refuse_learner(process)
                if any(each.type.value == "NOSPACE" for each in process.opened.state.alarms):
                    raise _Refusal("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded")
            if not self._committed(process, proposal):
                return None
            assert proposal.entry is not None
            self._members.acknowledge(process, proposal.entry)
            return process.opened.state.keys[key]

        return (await self._call("Put", answer, deadline)).mod_revision

    async def delete(self, key: bytes, *, deadline: float = DEADLINE) -> int:
        """Deletes a key and returns the number of deleted keys."""
        proposal = _Proposal(Delete(key))
        existed = False

        def answer(process: Process) -> tuple[int] | None:
            nonlocal existed
            if proposal.entry is None:
                self._authorize(process)
                self._refuse_learner(process)
                existed = key in process.opened.state.keys
            return (int(existed),) if self._committed(process, proposal) else None

        return (await self._call("DeleteRange", answer, deadline))[0]

    async def _change(
        self, name: str, propose: Callable[[Process], _Proposal | None], deadline: float
    ) -> MemberList:
        """Proposes a change of the members once, and answers when it is committed.

        Args:
            name: The name of the call.
            propose: Checks the change and returns it. None: not yet, because there is no leader.
            deadline: The seconds of the call.
        """
        proposal: _Proposal | None = None

        def answer(process: Process) -> MemberList | None:
            nonlocal proposal
            if proposal is None:
                self._authorize(process)
                self._refuse_learner(process)
                proposal = propose(process)
            return _list(process) if proposal and self._committed(process, proposal) else None

        return await self._call(name, answer, deadline)

    async def _call(self, name: str, answer: Callable[[Process], A | None], deadline: float) -> A:
        """Calls `answer` with the process that serves, until it returns something or the deadline passes."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline
        sent = False
        await asyncio.sleep(min(LATENCY, deadline))
        while True:
            self._members.advance()
            address = self.endpoint.host
            match self._members.network.connect(address):
                case Answer.REFUSED:
                    reason = "the connection was lost" if sent else "connection refused"
                    message = f"{self._name} cannot be reached: {reason}"
                    raise Unreachable(message, maybe_executed=sent, refused=not sent)
                case Answer.OPEN:
                    sent = True
                    process = self._members.at(address)
                    if process is not None and process.ready:
                        try:
                            found = answer(process)
                        except _Refusal as refused:
                            named = f"{self._name} refused {name}"
                            raise refusal(named, refused.code, refused.message) from None
                        if found is not None:
                            return found
            left = ends - loop.time()
            if left <= 0:
                message = f"{self._name} did not answer {name} within {deadline:g} s"
                raise DeadlineExceeded(message, maybe_executed=sent)
            await asyncio.sleep(min(POLL, left))

    @property
    def _name(self) -> str:
        return f"etcd at {self.endpoint.server_name} ({self.endpoint.host}:{self.endpoint.port})"

    def _committed(self, process: Process, proposal: _Proposal) -> bool:
        """Proposes a change unless that was done, and returns whether the process has applied it."""
        if proposal.entry is None:
            proposal.entry = self._members.propose(process, proposal.change)
        return proposal.entry is not None and bool(self._members.committed(process, proposal.entry))

    def _confirmed(self, process: Process) -> bool:
        """Whether a quorum confirms that the process has applied what is committed."""
        leader = self._members.leader_of(process)
        if leader is None or not self._members.has_quorum(leader):
            return False
        data = leader.opened
        own_term = data.commit > 0 and data.log[data.commit - 1].term == data.term
        return own_term and process.opened.state.applied >= data.commit

    # The rules of the membership, as in etcdserver/server.go.

    def _may_add(self, process: Process, learner: bool) -> None:
        voters = process.opened.state.voters
        started = sum(each.started for each in voters)
        if not learner and len(voters) != 1 and started < quorum(len(voters) + 1):
            raise _not_started()
        connected = self._connected(process, voters)
        enough = quorum(len(voters) + 1) if _counts_quorum(process) else len(voters)
        if len(voters) > 1 and connected < enough:
            raise _Refusal("UNAVAILABLE", "etcdserver: unhealthy cluster")

    def _may_remove(self, process: Process, member: int) -> None:
        voters = process.opened.state.voters
        others = [each for each in voters if each.id != member]
        if sum(each.started for each in others) < quorum(len(others)):
            raise _not_started()
        inactive = all(
            since > self._members.now for each, since in process.active.items() if each.id == member
        )
        if member != process.id and inactive:
            return
        if self._connected(process, voters) - 1 < 1 + (len(voters) - 1) // 2:
            raise _Refusal("UNAVAILABLE", "etcdserver: unhealthy cluster")

    def _may_promote(self, leader: Process, member: Member) -> None:
        data = leader.opened
        if member.is_learner and leader.match.get(member.id, 0) < READY * len(data.log):
            message = "etcdserver: can only promote a learner member which is in sync with leader"
            raise _Refusal("FAILED_PRECONDITION", message)
        voters = data.state.voters
        if 1 + sum(each.started for each in voters) < quorum(len(voters) + 1):
            raise _not_started()
        if not member.is_learner:
            message = "etcdserver: can only promote a learner member"
            raise _Refusal("FAILED_PRECONDITION", message)

    def _connected(self, process: Process, voters: Iterable[Member]) -> int:
        """Returns to how many voters a process has been connected for long enough, with itself."""
        since = {each.id: at for each, at in process.active.items()}
        latest = self._members.now - HEALTH_INTERVAL
        return sum(each.id == process.id or since.get(each.id, latest) < latest for each in voters)

    def _found(self, process: Process, member: int) -> Member:
        found = process.opened.state.members.get(member)
        if found is None:
            raise _Refusal("NOT_FOUND", "etcdserver: member not found")
        return found

    def _refuse_existing(self, process: Process, urls: Iterable[str], but: int = 0) -> None:
        taken = {url for each in process.known.values() if each.id != but for url in each.peer_urls}
        if taken & {*urls}:
            raise _Refusal("FAILED_PRECONDITION", "etcdserver: Peer URLs already exists")

    def _refuse_learner(self, process: Process) -> None:
        if process.learner:
            raise _Refusal("UNAVAILABLE", "etcdserver: rpc not supported for learner")

    def _authorize(self, process: Process, *, observes: bool = False) -> None:
        """Refuses a call without a user if auth is enabled. Old versions let anyone observe the cluster."""
        if process.opened.state.auth and not (
            observes and process.numbers < _PROTECTED.get(process.minor, ())
        ):
            raise _Refusal("INVALID_ARGUMENT", "etcdserver: user name is empty")


#: The first version of each minor that refuses a client without a user to observe the cluster.
_PROTECTED: Mapping[int, tuple[int, ...]] = {5: (3, 5, 29), 6: (3, 6, 10)}
#: The first version of each minor whose additions need a quorum of connected voters. Before, they need all.
_QUORUM_COUNTS: Mapping[int, tuple[int, ...]] = {5: (3, 5, 30), 6: (3, 6, 11)}


def _counts_quorum(process: Process) -> bool:
    return process.numbers >= _QUORUM_COUNTS.get(process.minor, ())


def _not_started() -> _Refusal:
    message = "etcdserver: re-configuration failed due to not enough started members"
    return _Refusal("FAILED_PRECONDITION", message)


def _list(process: Process) -> MemberList:
    data = process.opened
    members = tuple(sorted(process.known.values(), key=lambda each: each.id))
    return MemberList(data.cluster_id, data.member_id, data.term, members)


class ModelConnections:
    """The connections to the model's members. It implements `etcd_operator.etcd.Connections`.

    Args:
        members: The model.
        wrap: Wraps each client, for example to inject faults.
    """

    def __init__(self, members: Members, wrap: Callable[[ModelMember], Etcd] = lambda member: member) -> None:
        self._members = members
        self._wrap = wrap

    def members(
        self, cluster: ObjectKey, endpoints: Iterable[Endpoint], credentials: Credentials | None = None
    ) -> Mapping[Endpoint, Etcd]:
        """Returns a client for each endpoint."""
        return {each: self._wrap(ModelMember(self._members, each)) for each in endpoints}
