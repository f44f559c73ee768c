"""What the operator asks of etcd: calls and answers as plain values, without gRPC.

`client` makes these calls to real members, and a model of etcd can stand in for it in tests. Every call is
made once: there is no retry, because the queue's back-off is the only retry layer. Every method of `Etcd`
raises an `EtcdError`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import msgspec

from pilothouse import ObjectKey

# The seconds in which a member must answer. A healthy member on a busy node takes less than 0.1 s.
DEADLINE = 2.0
CLIENT_PORT = 2379


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """Where one member serves clients.

    Attributes:
        host: The address to connect to: the pod's IP. A new pod has another address, and DNS would return
            the old one for up to 30 s.
        server_name: The name that the member's certificate must contain: the pod's DNS name.
        port: The port of the client URL.
    """

    host: str
    server_name: str
    port: int = CLIENT_PORT


@dataclass(frozen=True)
class Credentials:
    """The operator's TLS credentials for one cluster, as PEM text.

    Attributes:
        ca: The CA that signed the members' certificates.
        certificate: The operator's client certificate, with its chain.
        key: The key of the certificate.
    """

    ca: str
    certificate: str
    key: str = field(repr=False)


class Member(msgspec.Struct, frozen=True):
    """A member as etcd lists it.

    Attributes:
        id: The member's ID.
        name: The name that the member published. Empty: it has never started.
        peer_urls: The URLs at which the other members reach it.
        client_urls: The URLs that it published for clients. Empty: it has never started.
        is_learner: Whether it has no vote.
    """

    id: int
    name: str = ""
    peer_urls: tuple[str, ...] = ()
    client_urls: tuple[str, ...] = ()
    is_learner: bool = False

    @property
    def started(self) -> bool:
        """Whether the member has ever started."""
        return bool(self.name)


class MemberList(msgspec.Struct, frozen=True):
    """The members of a cluster, as the answering member knows them.

    Attributes:
        cluster_id: The cluster's ID.
        member_id: The ID of the member that answered.
        raft_term: The Raft term of the answer.
        members: All members, in etcd's order.
    """

    cluster_id: int
    member_id: int
    raft_term: int
    members: tuple[Member, ...]

    def with_peer_urls(self, peer_urls: Iterable[str]) -> Member | None:
        """Returns the member that has one of these peer URLs, or None.

        This finds the member that an addition with a lost answer has added: etcd does not list a name for it.
        """
        wanted = {*peer_urls}
        return next((each for each in self.members if wanted & {*each.peer_urls}), None)


class MemberStatus(msgspec.Struct, frozen=True):
    """The state of one member, as it reports it.

    Attributes:
        version: The version of the member's binary, such as `3.6.14`.
        db_size: The size of the database file in bytes.
        db_size_in_use: The bytes of it that are in use.
        leader: The ID of the member that it believes to be the leader. 0: it knows none.
        raft_index: The index of its last committed log entry.
        raft_applied_index: The index of its last applied log entry.
        raft_term: Its Raft term.
        is_learner: Whether it has no vote.
        errors: What it reports about itself, such as its alarms.
        cluster_id: The ID of its cluster.
        member_id: Its own ID.
        revision: The revision of its key-value store.
    """

    version: str
    db_size: int
    db_size_in_use: int
    leader: int
    raft_index: int
    raft_applied_index: int
    raft_term: int
    is_learner: bool
    errors: tuple[str, ...]
    cluster_id: int
    member_id: int
    revision: int


class AlarmType(Enum):
    """What an alarm is about."""

    NOSPACE = "NOSPACE"
    CORRUPT = "CORRUPT"
    UNKNOWN = "UNKNOWN"


class Alarm(msgspec.Struct, frozen=True, gc=False):
    """An alarm of the cluster.

    Attributes:
        member_id: The member that raised it. It may be 0 for CORRUPT.
        type: What it is about.
    """

    member_id: int
    type: AlarmType


class HashKV(msgspec.Struct, frozen=True, gc=False):
    """The hash of a member's key-value store.

    Two members are equal if the hashes of the same revision are equal and `compact_revision` is equal, too.

    Attributes:
        hash: The hash of all keys up to the revision.
        compact_revision: The revision up to which the store is compacted.
        revision: The revision of the store when the member answered.
        cluster_id: The ID of the member's cluster.
        member_id: The member's ID.
        raft_term: Its Raft term.
    """

    hash: int
    compact_revision: int
    revision: int
    cluster_id: int
    member_id: int
    raft_term: int


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """A key with its value.

    Attributes:
        key: The key.
        value: The value.
        create_revision: The revision that created the key.
        mod_revision: The revision that changed it last.
        version: The number of changes since it was created, at least 1.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int


class Etcd(Protocol):
    """The calls to one member. `deadline` is in seconds and includes the time to connect."""

    async def member_list(self, *, linearizable: bool = True, deadline: float = DEADLINE) -> MemberList:
        """Returns the cluster's members.

        Args:
            linearizable: Whether a quorum confirms the list. Otherwise the member returns what it knows,
                which may be outdated, also without a quorum.
            deadline: Seconds.
        """

    async def member_add(
        self, peer_urls: Iterable[str], *, learner: bool = True, deadline: float = DEADLINE
    ) -> MemberList:
        """Adds a member, and returns the members after that. It is not idempotent.

        If the answer is lost, the member may have been added: list the members and call
        `MemberList.with_peer_urls`.

        Args:
            peer_urls: The new member's peer URLs.
            learner: Whether it has no vote at first.
            deadline: Seconds.
        """

    async def member_remove(self, member_id: int, *, deadline: float = DEADLINE) -> MemberList:
        """Removes a member for ever, and returns the members after that."""

    async def member_promote(self, member_id: int, *, deadline: float = DEADLINE) -> MemberList:
        """Gives a learner a vote, and returns the members after that."""

    async def member_update(
        self, member_id: int, peer_urls: Iterable[str], *, deadline: float = DEADLINE
    ) -> MemberList:
        """Replaces a member's peer URLs, and returns the members after that."""

    async def move_leader(self, target_id: int, *, deadline: float = DEADLINE) -> None:
        """Makes another voter the leader. Only the leader accepts this call."""

    async def status(self, *, deadline: float = DEADLINE) -> MemberStatus:
        """Returns the member's own state, also without a quorum."""

    async def alarms(self, *, deadline: float = DEADLINE) -> tuple[Alarm, ...]:
        """Returns the cluster's alarms, as the member knows them."""

    async def hash_kv(self, revision: int = 0, *, deadline: float = DEADLINE) -> HashKV:
        """Returns the hash of the member's key-value store.

        Args:
            revision: The revision to hash. 0 means the newest one.
            deadline: Seconds.
        """

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        """Returns a key, or None if it does not exist.

        Args:
            key: The key.
            linearizable: Whether a quorum confirms the answer. Otherwise it may be outdated.
            deadline: Seconds.
        """

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        """Writes a key and returns the revision."""

    async def delete(self, key: bytes, *, deadline: float = DEADLINE) -> int:
        """Deletes a key and returns the number of deleted keys, 0 or 1."""


class Connections(Protocol):
    """The connections to the members of all clusters."""

    def members(
        self, cluster: ObjectKey, endpoints: Iterable[Endpoint], credentials: Credentials | None = None
    ) -> Mapping[Endpoint, Etcd]:
        """Returns a client for each endpoint of a cluster.

        Each reconcile of a cluster calls this with the endpoints of all pods. The connections to endpoints
        that are no longer in the list are closed, and all connections after a change of the credentials. No
        connection is opened before the first call.

        Args:
            cluster: The key of the EtcdCluster.
            endpoints: The endpoints of its members. With none, all connections of the cluster are closed.
            credentials: The TLS credentials. None: plain text.

        Raises:
            CredentialsError: The credentials cannot be used.
        """
