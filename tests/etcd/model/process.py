"""One process of etcd: what it was started with, and what it knows."""

from __future__ import annotations

from dataclasses import dataclass, field

from etcd_operator.etcd import Member
from tests.etcd.model.flags import Flags, host
from tests.etcd.model.state import Data, Entry, Volume


@dataclass(frozen=True)
class Exit:
    """The end of a process."""

    code: int
    message: str
    at: float


@dataclass(eq=False)
class Process:
    """A process of etcd.

    Attributes:
        flags: Its flags.
        volume: The volume of its data directory.
        version: The version of the binary.
        address: The address where it listens.
        data: The data directory that it uses. None: it has not opened or created it yet.
        ready: Whether it serves clients: it has published its name since it started.
        leads: Whether it is the leader.
        leader: The ID of the leader that it follows; 0 if it knows none.
        links: The processes of its cluster that it exchanges messages with, and since when.
        active: The same, as etcd's transport counts it.
        remotes: The members that it knew before it had any log.
        exit: Why it ended. None: it runs.
    """

    flags: Flags
    volume: Volume
    version: str
    address: str
    data: Data | None = None
    ready: bool = False
    leads: bool = False
    leader: int = 0
    links: dict[Process, float] = field(default_factory=dict)
    active: dict[Process, float] = field(default_factory=dict)
    remotes: tuple[Member, ...] = ()
    exit: Exit | None = None
    match: dict[int, int] = field(default_factory=dict)
    leaderless: float | None = None
    lonely: float | None = None
    publishing: Entry | None = None
    seen: dict[int, str] = field(default_factory=dict)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the version."""
        return tuple(map(int, self.version.split(".")))

    @property
    def minor(self) -> int:
        """The minor version."""
        return self.numbers[1]

    @property
    def id(self) -> int:
        """The ID of the member; 0 before it is known."""
        return self.data.member_id if self.data else 0

    @property
    def opened(self) -> Data:
        """The data directory that it uses."""
        assert self.data is not None, "the process has not opened its data directory"
        return self.data

    @property
    def known(self) -> dict[int, Member]:
        """The members that it knows."""
        members = self.opened.state.members
        return members or {each.id: each for each in self.remotes}

    @property
    def learner(self) -> bool:
        """Whether it has no vote."""
        own = self.known.get(self.id)
        return own is not None and own.is_learner

    @property
    def domain(self) -> str:
        """The part of the network names that all members of a cluster share."""
        return host(self.flags.peer_urls[0]).partition(".")[2] if self.flags.peer_urls else ""
