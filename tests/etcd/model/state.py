"""What a member stores: its log, and the state that it has applied from it."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from etcd_operator.etcd import Alarm, KeyValue, Member

#: The least and the most that a database file takes, in bytes.
DB_SIZE = 20480


class Change:
    """What an entry of the log changes. This one changes nothing: a leader begins its term with it."""


@dataclass(frozen=True)
class Put(Change):
    """Writes a key."""

    key: bytes
    value: bytes


@dataclass(frozen=True)
class Delete(Change):
    """Deletes a key."""

    key: bytes


@dataclass(frozen=True)
class SetMember(Change):
    """Adds a member, promotes it, or changes its URLs or its name."""

    member: Member


@dataclass(frozen=True)
class Publish(Change):
    """Records the name and the client URLs of a member that has started."""

    member_id: int
    name: str
    client_urls: tuple[str, ...]


@dataclass(frozen=True)
class Remove(Change):
    """Removes a member for ever."""

    member_id: int


@dataclass(frozen=True)
class SetClusterVersion(Change):
    """Raises the cluster version."""

    minor: int


@dataclass(frozen=True)
class Raise(Change):
    """Raises an alarm."""

    alarm: Alarm


@dataclass(frozen=True)
class EnableAuth(Change):
    """Enables auth."""


@dataclass(frozen=True, eq=False)
class Entry:
    """An entry of a log. Two entries are the same one only if they are the same object."""

    term: int
    change: Change


@dataclass
class State:
    """What a member has applied.

    Attributes:
        applied: The number of applied entries.
        members: The members by ID.
        removed: The IDs of the removed members.
        keys: The keys.
        revision: The revision of the store.
        hashes: The hash of the store at each revision from 1.
        alarms: The alarms.
        auth: Whether auth is enabled.
        minor: The minor version of the cluster; 0 until it is determined.
    """

    applied: int = 0
    members: dict[int, Member] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    keys: dict[bytes, KeyValue] = field(default_factory=dict)
    revision: int = 1
    hashes: list[int] = field(default_factory=lambda: [0])
    alarms: tuple[Alarm, ...] = ()
    auth: bool = False
    minor: int = 0

    def apply(self, change: Change) -> None:
        """Applies the next entry."""
        self.applied += 1
        match change:
            case Put(key, value):
                self._revise(key + b"=" + value)
                old = self.keys.get(key)
                created, version = (old.create_revision, old.version) if old else (self.revision, 0)
                self.keys[key] = KeyValue(key, value, created, self.revision, version + 1)
            case Delete(key):
                if self.keys.pop(key, None):
                    self._revise(key)
            case SetMember(member):
                if member.id not in self.removed:
                    self.members[member.id] = member
            case Publish(member_id, name, urls):
                if member_id in self.members:
                    self.members[member_id] = replace(self.members[member_id], name=name, client_urls=urls)
            case Remove(member_id):
                self.members.pop(member_id, None)
                self.removed.add(member_id)
            case SetClusterVersion(minor):
                self.minor = minor
            case Raise(alarm):
                self.alarms = tuple(dict.fromkeys((*self.alarms, alarm)))
            case EnableAuth():
                self.auth = True

    @property
    def voters(self) -> list[Member]:
        """The members with a vote."""
        return [each for each in self.members.values() if not each.is_learner]

    @property
    def size(self) -> int:
        """The size of the database in bytes."""
        return DB_SIZE + sum(len(each.key) + len(each.value) for each in self.keys.values())

    def _revise(self, change: bytes) -> None:
        self.revision += 1
        self.hashes.append(zlib.crc32(change, self.hashes[-1]))


@dataclass
class Data:
    """A data directory with a write-ahead log.

    Attributes:
        member_id: The ID of the member whose data it is.
        cluster_id: The ID of its cluster.
        log: The entries.
        commit: The number of entries that the member knows to be committed.
        term: The Raft term.
        state: What has been applied.
    """

    member_id: int
    cluster_id: int
    log: list[Entry] = field(default_factory=list)
    commit: int = 0
    term: int = 0
    state: State = field(default_factory=State)

    def apply(self) -> None:
        """Applies the committed entries."""
        for entry in self.log[self.state.applied : self.commit]:
            self.state.apply(entry.change)

    @property
    def freshness(self) -> tuple[int, int]:
        """What voters compare: the term of the last entry, and its index."""
        return (self.log[-1].term if self.log else 0), len(self.log)


@dataclass
class Volume:
    """A volume. `data` is None while it is empty."""

    data: Data | None = None


def quorum(voters: int) -> int:
    """Returns how many of the given number of voters are a quorum."""
    return voters // 2 + 1


def member_id(peer_urls: Iterable[str], token: str = "", second: int | None = None) -> int:
    """Returns the ID that etcd computes for a member (computeMemberID in membership/member.go).

    Args:
        peer_urls: Its peer URLs.
        token: The token of the founding.
        second: The time of an addition in seconds. None: the member is in the initial cluster.
    """
    text = "".join(sorted(peer_urls)) + token + ("" if second is None else str(second))
    return int.from_bytes(hashlib.sha1(text.encode(), usedforsecurity=False).digest()[:8], "big")


def cluster_id(members: Iterable[int]) -> int:
    """Returns the ID that etcd computes for a cluster (RaftCluster.genID)."""
    joined = b"".join(each.to_bytes(8, "big") for each in sorted(members))
    return int.from_bytes(hashlib.sha1(joined, usedforsecurity=False).digest()[:8], "big")


def founded(own: str, cluster: Mapping[str, tuple[str, ...]], token: str) -> Data:
    """Returns the data of a member that has founded a cluster.

    Args:
        own: The name of the member.
        cluster: The peer URLs of all members by name.
        token: The token.
    """
    ids = {name: member_id(urls, token) for name, urls in cluster.items()}
    members = sorted(
        (Member(ids[name], "", urls) for name, urls in cluster.items()), key=lambda each: each.id
    )
    data = Data(ids[own], cluster_id(ids.values()), [Entry(1, SetMember(each)) for each in members], term=1)
    data.commit = len(data.log)
    data.apply()
    return data
