"""A model of etcd's processes: how they start, whom they reach, who leads, and what is replicated.

It follows Raft's rules about terms, votes, logs and commits, and etcd's rules about its data directory. All
messages arrive immediately, and every replication is complete. Time passes only between the calls: `advance`
carries out what was due. Where Raft lets several members win an election, the one with the shortest log wins,
because that is the worst case for acknowledged writes.

The sources are etcd 3.6.14 and the measurements on a node. Contract tests compare the model with real etcd.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable, Iterable
from functools import partial

from tests.etcd.model.flags import Flags, host
from tests.etcd.model.network import Answer, Network
from tests.etcd.model.process import Exit, Process
from tests.etcd.model.startup import Startup
from tests.etcd.model.state import Change, Entry, Publish, SetClusterVersion, Volume, quorum

#: Seconds from the start of the process until it reads its data directory.
START = 0.3
#: Seconds without a leader after which a voter campaigns, and without a quorum after which a leader resigns.
ELECTION = 1.0
#: Seconds between having a leader and publishing the own name.
PUBLISH = 0.2
#: Seconds that a learner needs to catch up.
CATCH_UP = 0.5
#: Seconds for which DNS answers a lookup with the former address of a pod.
STALE_DNS = 5.0
#: Seconds between two checks of the leader whether all members have a newer minor version.
VERSIONS = 4.0


class Members:
    """All processes of etcd in one network.

    Attributes:
        network: The network.
        processes: The processes that run.
        volumes: All volumes that exist.
        led: The ID of each cluster that ever had a leader, with the domain of its members.
        changes: The changes of memberships so far, oldest first.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.network = Network()
        self.processes: list[Process] = []
        self.volumes: list[Volume] = []
        self.led: dict[int, str] = {}
        self.changes: list[str] = []
        self._clock = clock
        self._startup = Startup(self)
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._scheduled: set[Hashable] = set()
        self._acknowledged: dict[Entry, str] = {}
        self._lost: dict[Entry, None] = {}

    @property
    def now(self) -> float:
        """The time of what is being carried out."""
        return self._now

    def advance(self) -> None:
        """Carries out what was due until now."""
        until = self._clock()
        while self._events and self._events[0][0] <= until:
            self._now, _, event = heapq.heappop(self._events)
            event()
            self.refresh()
        self._now = until

    # What happens to processes and volumes.

    def make_volume(self) -> Volume:
        """Returns a new, empty volume."""
        volume = Volume()
        self.volumes.append(volume)
        return volume

    def wipe(self, volume: Volume) -> None:
        """Deletes the data directory. A process that uses it continues with its open files."""
        self.advance()
        volume.data = None

    def drop(self, volume: Volume) -> None:
        """Deletes a volume with its data."""
        self.wipe(volume)
        self.volumes.remove(volume)

    def start(self, flags: Flags, volume: Volume, version: str, address: str) -> Process:
        """Starts a process."""
        self.advance()
        process = Process(flags, volume, version, address)
        self.processes.append(process)
        self.network.listening.add(address)
        self.later(START, partial(self._startup.open, process))
        return process

    def fail(self, process: Process, code: int, message: str) -> None:
        """Ends a process."""
        if process.exit is not None:
            return
        process.exit = Exit(code, message, self._now)
        process.leads = process.ready = False
        process.leader = 0
        self.processes.remove(process)
        self.network.listening.discard(process.address)
        self.network.frozen.discard(process.address)

    def kill(self, process: Process) -> None:
        """Ends a process with SIGKILL."""
        self.advance()
        self.fail(process, 137, "")
        self.refresh()

    def terminate(self, process: Process) -> None:
        """Ends a process with SIGTERM. A leader hands over to the voter with the oldest link."""
        self.advance()
        if process.leads and process.address not in self.network.frozen:
            voters = self.linked_voters(process)
            if voters:
                self.hand_over(process, min(voters, key=lambda each: (process.links[each], each.id)))
        self.fail(process, 0, "")
        self.refresh()

    def freeze(self, process: Process) -> None:
        """Stops a process with SIGSTOP."""
        self.advance()
        self.network.frozen.add(process.address)
        self.refresh()

    def thaw(self, process: Process) -> None:
        """Continues a process with SIGCONT."""
        self.advance()
        self.network.frozen.discard(process.address)
        self.refresh()

    # What clients and the tests ask.

    def at(self, address: str) -> Process | None:
        """Returns the process at an address."""
        return next((each for each in self.processes if each.address == address), None)

    def leader_of(self, process: Process) -> Process | None:
        """Returns the leader that a process exchanges messages with, which may be itself."""
        if process.leads:
            return process
        return next((each for each in process.links if each.leads and each.id == process.leader), None)

    def has_quorum(self, leader: Process) -> bool:
        """Whether a leader reaches a quorum of voters."""
        return len(self.linked_voters(leader)) + 1 >= quorum(len(leader.opened.state.voters))

    def linked_voters(self, process: Process) -> list[Process]:
        """Returns the other voters that a process exchanges messages with."""
        voters = {each.id for each in process.opened.state.voters}
        return [each for each in process.links if each.id in voters]

    def propose(self, process: Process, change: Change) -> Entry | None:
        """Appends an entry to the leader's log. Returns None if the process has no leader."""
        leader = self.leader_of(process)
        if leader is None:
            return None
        entry = Entry(leader.opened.term, change)
        leader.opened.log.append(entry)
        if self._replicate(leader):
            self.refresh()
        return entry

    def committed(self, process: Process, entry: Entry) -> int:
        """Returns the index from 1 of an entry that a process has applied; 0 if it has not applied it."""
        data = process.opened
        for index in range(data.state.applied - 1, -1, -1):
            if data.log[index] is entry:
                return index + 1
            if data.log[index].term < entry.term:
                break
        return 0

    def hand_over(self, leader: Process, successor: Process) -> None:
        """Makes another voter the leader, without an interruption."""
        self._replicate(leader)
        if successor.opened.freshness == leader.opened.freshness:
            leader.leads = False
            self._win(successor, [successor, *successor.links])
            self.refresh()

    def acknowledge(self, process: Process, entry: Entry) -> None:
        """Remembers a write that was acknowledged to a client."""
        self._acknowledged[entry] = process.domain

    @property
    def acknowledged(self) -> int:
        """The number of acknowledged writes."""
        return len(self._acknowledged)

    def lost(self) -> list[Change]:
        """Returns the acknowledged writes that are lost.

        A write is lost if a leader was elected without it, or if no data directory has it any more.
        """
        self.advance()
        data = (*(each.data for each in self.volumes), *(each.data for each in self.processes))
        there = {entry for each in data if each is not None for entry in each.log}
        self._lost |= dict.fromkeys(entry for entry in self._acknowledged if entry not in there)
        return [each.change for each in self._lost]

    # Events.

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Schedules an event."""
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), event))

    def _once(self, at: float, what: Hashable, event: Callable[[], None]) -> None:
        """Schedules an event, unless the same one is scheduled already."""
        if what not in self._scheduled:
            self._scheduled.add(what)

            def happen() -> None:
                self._scheduled.discard(what)
                event()

            self.later(at - self._now, happen)

    # Links, leaders and elections.

    def refresh(self) -> None:
        """Brings links, leaders and logs up to date after a change."""
        while True:
            self._remove_members()
            self._link()
            self._follow()
            changed = [self._replicate(each) for each in self._running() if each.leads]
            if not any(changed):
                break
        for process in self._running():
            self._schedule(process)

    def _running(self) -> list[Process]:
        frozen = self.network.frozen
        return [each for each in self.processes if each.data is not None and each.address not in frozen]

    def _remove_members(self) -> None:
        """Ends the processes of removed members that know it, or that a peer refuses."""
        running = self._running()
        for process in running:
            theirs = (each for each in running if each is process or self._reaches(process, each))
            if any(process.id in each.opened.state.removed for each in theirs):
                self.fail(process, 0, "the member has been permanently removed from the cluster")

    def _reaches(self, one: Process, other: Process) -> bool:
        same = one.opened.cluster_id == other.opened.cluster_id
        return same and self.network.connect(other.address, one.address) is Answer.OPEN

    def _link(self) -> None:
        running = self._running()
        for one in self.processes:
            others = [each for each in running if one in running and self._linked(one, each)]
            one.links = {each: one.links.get(each, self._now) for each in others}
            one.active = {each: one.active.get(each, self._active(one, each)) for each in others}
            one.seen |= {each.id: each.address for each in others}

    def _linked(self, one: Process, other: Process) -> bool:
        if one is other or not self._reaches(one, other):
            return False
        known = other.id in one.known or one.id in other.known
        # Either of the two may open the connection.
        return known and (self._finds(one, other) or self._finds(other, one))

    def _finds(self, one: Process, other: Process) -> bool:
        member = one.known.get(other.id)
        hosts = [host(url) for url in member.peer_urls] if member else []
        return other.address in [self.network.names.get(each) for each in hosts]

    def _active(self, one: Process, other: Process) -> float:
        moved = one.seen.get(other.id, other.address) != other.address
        return self._now + (STALE_DNS if moved else 0.0)

    def _follow(self) -> None:
        """Lets each process follow the leader with the highest term that it is linked to."""
        running = self._running()
        for process in running:
            if process.leads and any(each.opened.term > process.opened.term for each in process.links):
                process.leads, process.leader = False, 0
        for process in running:
            if process.leads:
                process.leader, process.leaderless = process.id, None
                continue
            leaders = [each for each in process.links if each.leads]
            if leaders:
                process.leader = max(leaders, key=lambda each: each.opened.term).id
                process.leaderless = None
            elif process.leaderless is None:
                self._await_election(process)

    def _schedule(self, process: Process) -> None:
        """Schedules what a process does by itself."""
        if process.leads and not self.has_quorum(process):
            if process.lonely is None:
                process.lonely = self._now
                self.later(ELECTION, partial(self._resign, process, self._now))
        else:
            process.lonely = None
        if self.leader_of(process) and not process.ready:
            self._once(self._now + PUBLISH, ("publish", process), partial(self._publish, process))
        if process.leads and self._target_minor(process) > process.opened.state.minor:
            seconds = VERSIONS if process.opened.state.minor else PUBLISH
            self._once(self._now + seconds, ("version", process), partial(self._raise_version, process))

    def _resign(self, leader: Process, since: float) -> None:
        if leader.leads and leader.lonely == since:
            leader.leads, leader.leader, leader.lonely = False, 0, None

    def _await_election(self, process: Process) -> None:
        process.leaderless = self._now
        self.later(ELECTION, partial(self._campaign, process, self._now))

    def _campaign(self, process: Process, since: float) -> None:
        """Elects a leader, if a voter has waited long enough and gets a quorum of votes."""
        if process.leaderless != since or process.exit is not None:
            return
        process.leader = 0
        able = {each: votes for each in self._running() if (votes := self._votes(each))}
        if process.address not in self.network.frozen:
            near = [each for each in able if each is process or each in process.links]
            if near:
                winner = min(near, key=lambda each: (each.opened.freshness, each.id))
                self._win(winner, able[winner])
                return
        # Others may come back: try again.
        self._await_election(process)

    def _votes(self, candidate: Process) -> list[Process]:
        """Returns the voters that elect a candidate; empty if they are too few."""
        data = candidate.opened
        voters = {each.id for each in data.state.voters}
        waited = candidate.leaderless is not None and candidate.leaderless <= self._now - ELECTION + 1e-6
        if data.member_id not in voters or not waited:
            return []
        votes = [
            each
            for each in (candidate, *candidate.links)
            if each.id in voters and each.leaderless is not None and each.opened.freshness <= data.freshness
        ]
        return votes if len(votes) >= quorum(len(voters)) else []

    def _win(self, winner: Process, votes: Iterable[Process]) -> None:
        votes = [winner, *votes]
        term = 1 + max(each.opened.term for each in votes)
        for each in votes:
            each.opened.term = term
        winner.leads, winner.match, winner.lonely = True, {}, None
        winner.opened.log.append(Entry(term, Change()))
        self.led[winner.opened.cluster_id] = winner.domain
        mine = {*winner.opened.log}
        self._lost |= dict.fromkeys(
            entry
            for entry, domain in self._acknowledged.items()
            if domain == winner.domain and entry not in mine
        )

    def _publish(self, process: Process) -> None:
        if process.exit is None and process.data is not None and not process.ready:
            flags = process.flags
            change = Publish(process.id, flags.name, flags.client_urls)
            process.publishing = self.propose(process, change)

    def _target_minor(self, leader: Process) -> int:
        """Returns the lowest minor version of all members; 0 if the version of one is unknown."""
        versions = {each.id: each.minor for each in (leader, *leader.links)}
        return min((versions.get(each, 0) for each in leader.opened.state.members), default=0)

    def _raise_version(self, leader: Process) -> None:
        minor = self._target_minor(leader) if leader.exit is None and leader.leads else 0
        if minor > leader.opened.state.minor:
            self.propose(leader, SetClusterVersion(minor))

    # Replication.

    def _replicate(self, leader: Process) -> bool:
        """Sends the leader's log to all members, and commits. Returns whether the members have changed."""
        if not leader.leads or leader.exit is not None:
            return False
        before, ended = leader.opened.state.members, len(self.processes)
        members = dict(before)
        for each in list(leader.links):
            if each.id in before and each.exit is None:
                self._send(leader, each)
                if leader.exit is not None:
                    return True
        self._commit(leader)
        for each in (leader, *leader.links):
            if each.exit is None and (each is leader or each.id in leader.match):
                self._applied(leader, each)
        return members != leader.opened.state.members or ended != len(self.processes)

    def _send(self, leader: Process, follower: Process) -> None:
        mine, theirs = leader.opened, follower.opened
        if len(theirs.log) < leader.match.get(follower.id, 0):
            known = leader.match[follower.id]
            message = f"tocommit({known}) is out of range [lastIndex({len(theirs.log)})]"
            self.fail(follower, 2, message)
            return
        if theirs.commit > len(mine.log) and leader.minor >= 6:
            self.fail(leader, 2, "a member has committed more than the leader has")
            return
        if follower.learner and follower.id not in leader.match:
            ready = leader.links[follower] + CATCH_UP
            if self._now < ready:
                self._once(ready, ("catch up", leader, follower), _nothing)
                return
        agreed = min(len(mine.log), len(theirs.log))
        while agreed and mine.log[agreed - 1].term != theirs.log[agreed - 1].term:
            agreed -= 1
        if agreed < min(theirs.commit, len(mine.log)):
            self.fail(follower, 2, f"entry {agreed + 1} conflict with committed entry")
            return
        if agreed < len(mine.log):
            theirs.log[agreed:] = mine.log[agreed:]
        theirs.term = mine.term
        leader.match[follower.id] = len(mine.log)

    def _commit(self, leader: Process) -> None:
        data = leader.opened
        leader.match[leader.id] = len(data.log)
        counts = sorted((leader.match.get(each.id, 0) for each in data.state.voters), reverse=True)
        index = counts[quorum(len(counts)) - 1] if counts else 0
        if index > data.commit and data.log[index - 1].term == data.term:
            data.commit = index

    def _applied(self, leader: Process, process: Process) -> None:
        data = process.opened
        data.commit = max(data.commit, min(leader.opened.commit, len(data.log)))
        data.apply()
        if process.publishing is not None and self.committed(process, process.publishing):
            process.publishing, process.ready = None, True


def _nothing() -> None:
    """Only the refresh that follows every event is needed."""
