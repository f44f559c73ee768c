"""How a process of etcd starts: on its data directory, or else as the flags say.

The sources are bootstrap.go and cluster_util.go of etcd 3.6.14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from tests.etcd.model.flags import host
from tests.etcd.model.network import Answer, Network
from tests.etcd.model.process import Process
from tests.etcd.model.state import Data, founded

#: Seconds that a starting member waits for each peer that does not answer: founding, and joining.
SILENT_NEW, SILENT_EXISTING = 2.5, 10.0
#: Seconds after which a member that cannot resolve its own name exits, and between two attempts.
RESOLVE, RESOLVE_AGAIN = 30.0, 1.0


class Surroundings(Protocol):
    """What a starting process depends on. `members.Members` implements it."""

    network: Network

    @property
    def now(self) -> float:
        """The time in seconds."""

    def at(self, address: str) -> Process | None:
        """Returns the process at an address."""

    def fail(self, process: Process, code: int, message: str) -> None:
        """Ends a process."""

    def later(self, seconds: float, event: Callable[[], None]) -> None:
        """Schedules an event."""


class Startup:
    """Starts processes.

    Args:
        surroundings: The other processes.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._others = surroundings

    def open(self, process: Process) -> None:
        """Opens the data directory, or creates it as the flags say."""
        if process.exit is not None:
            return
        data, flags = process.volume.data, process.flags
        if data is not None:
            self._use(process, data)
        elif flags.poisoned:
            message = f'couldn\'t find local name "{flags.name}" in the initial cluster configuration'
            self._others.fail(process, 1, message)
        elif flags.state == "new":
            self._resolve(process, self._others.now + RESOLVE)
        else:
            self._ask(process, self._peers(process), SILENT_EXISTING)

    def _resolve(self, process: Process, until: float) -> None:
        """Founds a cluster once DNS knows the own name."""
        own = process.flags.peer_urls
        if {*own} != {*process.flags.initial_cluster[process.flags.name]}:
            listed = ",".join(process.flags.initial_cluster[process.flags.name])
            message = (
                f"--initial-cluster has {listed} but missing from --initial-advertise-peer-urls={own[0]}"
            )
            self._others.fail(process, 1, message)
        elif process.exit is not None:
            return
        elif all(host(url) in self._others.network.names for url in own):
            self._ask(process, self._peers(process), SILENT_NEW)
        elif self._others.now >= until:
            self._others.fail(process, 1, f"failed to resolve {host(own[0])}")
        else:
            self._others.later(RESOLVE_AGAIN, partial(self._resolve, process, until))

    def _peers(self, process: Process) -> list[str]:
        others = (urls for name, urls in process.flags.initial_cluster.items() if name != process.flags.name)
        return sorted(url for urls in others for url in urls)

    def _ask(self, process: Process, peers: Sequence[str], patience: float) -> None:
        """Asks the peers one after another for their members. The first answer decides."""
        for number, url in enumerate(peers):
            address = self._others.network.names.get(host(url), "")
            answer = self._others.network.connect(address, process.address) if address else Answer.REFUSED
            if answer is Answer.SILENT:
                rest = peers[number + 1 :]
                self._others.later(patience, partial(self._ask_again, process, rest, patience))
                return
            peer = self._others.at(address)
            if answer is Answer.OPEN and peer is not None and peer.data is not None:
                self._answered(process, peer)
                return
        if process.flags.state == "new":
            self._found(process)
        else:
            message = "could not retrieve cluster information from the given URLs"
            self._others.fail(process, 1, f"cannot fetch cluster info from peer urls: {message}")

    def _ask_again(self, process: Process, peers: Sequence[str], patience: float) -> None:
        if process.exit is None:
            self._ask(process, peers, patience)

    def _answered(self, process: Process, peer: Process) -> None:
        if process.flags.state == "existing":
            self._join(process, peer)
            return
        own = founded(process.flags.name, process.flags.initial_cluster, process.flags.token)
        listed = peer.known.get(own.member_id)
        if listed is not None and listed.client_urls:
            self._others.fail(process, 1, f"member {own.member_id:x} has already been bootstrapped")
        else:
            self._found(process)

    def _found(self, process: Process) -> None:
        flags = process.flags
        self._create(process, founded(flags.name, flags.initial_cluster, flags.token))

    def _join(self, process: Process, peer: Process) -> None:
        """Joins the cluster of a peer as the member that has the own peer URLs."""
        flags, known = process.flags, peer.known
        own = {frozenset(urls) for urls in flags.initial_cluster.values()}
        error = ""
        if len(known) != len(flags.initial_cluster):
            error = "member count is unequal"
        elif unknown := [each for each in known.values() if frozenset(each.peer_urls) not in own]:
            error = (
                f"PeerURLs: no match found for existing member ({unknown[0].id:x}, {unknown[0].peer_urls})"
            )
        if error:
            self._others.fail(process, 1, f"error validating peerURLs: {error}")
            return
        # A member that does not know the version of its cluster is not compatible with any other.
        if not 0 < peer.opened.state.minor <= process.minor:
            self._others.fail(process, 1, "incompatible with current running cluster")
            return
        urls = {*flags.initial_cluster[flags.name]}
        member = next(each for each in known.values() if {*each.peer_urls} == urls)
        process.remotes = tuple(known.values())
        self._create(process, Data(member.id, peer.opened.cluster_id))

    def _create(self, process: Process, data: Data) -> None:
        process.volume.data = data
        self._use(process, data)

    def _use(self, process: Process, data: Data) -> None:
        if data.state.minor > process.minor:
            message = f'version "3.{data.state.minor}.0" is not supported'
            if process.minor == 5:
                message = "invalid downgrade; server version is lower than determined cluster version"
            self._others.fail(process, 2, message)
            return
        process.data = data
        process.leaderless = None
