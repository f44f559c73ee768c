"""What real etcd does in the situations that lose data or break a membership, as cases for any etcd.

The model (tests/unit/etcd) and the real binaries (tests/api) pass the same cases. The rows of the two tables
of measurements, "a wiped data directory" and "breaking static founding", are among them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from etcd_operator import errors
from etcd_operator.etcd import Etcd, Member
from tests.etcd.model.state import cluster_id, member_id

TOKEN = "token"  # noqa: S105 - that of etcd's initial cluster
TRIO = ("a", "b", "c")
UNKNOWN_ID = 0xDEAD


class Host(ABC):
    """Runs members of etcd, which keep their data directories when they end.

    Attributes:
        version: The version of etcd, such as `3.6.14`.
    """

    version: str

    @abstractmethod
    def start(
        self, name: str, initial: Sequence[str], *, state: str = "new", token: str = TOKEN, minor: int = 0
    ) -> None:
        """Starts a member.

        Args:
            name: The member.
            initial: The names in its initial cluster.
            state: The state of the initial cluster.
            token: The token of the initial cluster.
            minor: The minor version of the binary. 0 means that of `version`.
        """

    @abstractmethod
    def kill(self, name: str) -> None:
        """Ends a member with SIGKILL, if it runs."""

    @abstractmethod
    def terminate(self, name: str) -> None:
        """Ends a member with SIGTERM."""

    @abstractmethod
    def wipe(self, name: str) -> None:
        """Deletes the data directory of a member."""

    @abstractmethod
    def freeze(self, name: str) -> None:
        """Stops a member with SIGSTOP."""

    @abstractmethod
    def thaw(self, name: str) -> None:
        """Continues a member with SIGCONT."""

    @abstractmethod
    def ended(self, name: str) -> str:
        """Returns the end of the log of a member that has ended by itself; empty if it has not."""

    @abstractmethod
    def peer_url(self, name: str) -> str:
        """Returns the peer URL of a member."""

    @abstractmethod
    def etcd(self, name: str) -> Etcd:
        """Returns a client of a member."""

    @abstractmethod
    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Waits until a condition is true, and returns what it returned. An EtcdError counts as not true."""

    @abstractmethod
    async def enable_auth(self, name: str) -> None:
        """Enables auth in the cluster of a member."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Lets time pass: for rules of etcd that are about seconds."""

    # Built from the above.

    async def serves(self, *names: str) -> None:
        """Waits until members serve and know a leader."""
        for name in names:
            await self.until(partial(self._follows, name))

    async def found(self, *names: str) -> None:
        """Founds a cluster."""
        for name in names:
            self.start(name, names)
        await self.serves(*names)

    async def leader_first(self, *names: str) -> list[str]:
        """Returns the members so that the leader is the first."""

        async def sort() -> list[str] | None:
            statuses = {name: await self.etcd(name).status() for name in names}
            leading = [name for name, each in statuses.items() if each.leader == each.member_id]
            agreed = len({each.leader for each in statuses.values()}) == 1 and leading
            return sorted(names, key=lambda name: name not in leading) if agreed else None

        found: list[str] = await self.until(sort)
        return found

    async def ends(self, name: str, text: str) -> None:
        """Waits until a member has ended by itself with a text in its log."""

        async def seen() -> bool:
            return text in self.ended(name)

        await self.until(seen)

    async def put(self, name: str, key: bytes = b"k", value: bytes = b"v") -> int:
        """Writes through a member, as soon as it accepts that."""
        revision: int = await self.until(lambda: self.etcd(name).put(key, value))
        return revision

    async def _follows(self, name: str) -> bool:
        return (await self.etcd(name).status()).leader != 0


Case = Callable[[Host], Awaitable[None]]


async def founding_gives_the_ids_of_urls_and_token(host: Host) -> None:
    await host.found(*TRIO)
    ids = {name: member_id([host.peer_url(name)], TOKEN) for name in TRIO}
    listed = await host.etcd("a").member_list()
    assert listed.cluster_id == cluster_id(ids.values())
    assert {each.name: each.id for each in listed.members} == ids
    assert all(each.client_urls and not each.is_learner for each in listed.members)
    statuses = [await host.etcd(name).status() for name in TRIO]
    assert {each.revision for each in statuses} == {1}
    assert len({(each.leader, each.raft_term) for each in statuses}) == 1
    hashes = [await host.etcd(name).hash_kv() for name in TRIO]
    assert len({(each.hash, each.compact_revision) for each in hashes}) == 1
    await host.put("a")
    assert (await host.etcd("b").get(b"k")) is not None


async def a_wiped_member_with_existing_panics_and_rejoins_after_an_election(host: Host) -> None:
    await host.found(*TRIO)
    leader, wiped, other = await host.leader_first(*TRIO)
    await host.put(leader)
    before = (await host.etcd(wiped).status()).member_id
    host.kill(wiped)
    host.wipe(wiped)
    host.start(wiped, TRIO, state="existing")
    await host.ends(wiped, "is out of range [lastIndex(0)]")
    successor = (await host.etcd(other).status()).member_id
    await host.etcd(leader).move_leader(successor)
    await host.until(lambda: _leads(host, other))
    host.start(wiped, TRIO, state="existing")
    await host.serves(wiped)
    assert (await host.etcd(wiped).status()).member_id == before


async def a_wiped_member_with_new_is_refused_by_a_peer(host: Host) -> None:
    await host.found(*TRIO)
    host.kill("c")
    host.wipe("c")
    host.start("c", TRIO)
    await host.ends("c", "has already been bootstrapped")


async def a_wiped_member_with_new_founds_again_if_its_peers_are_silent(host: Host) -> None:
    await host.found(*TRIO)
    listed = await host.etcd("a").member_list()
    host.kill("c")
    host.wipe("c")
    host.freeze("a")
    host.freeze("b")
    host.start("c", TRIO)
    # It founds after the silence of its peers, and the three form one cluster again.
    await host.sleep(9)
    assert host.ended("c") == ""
    host.kill("a")
    host.start("a", TRIO)
    await host.serves("a", "c")
    again = await host.etcd("c").member_list()
    assert (again.cluster_id, again.members) == (listed.cluster_id, listed.members)


async def a_poisoned_member_never_starts_on_an_empty_volume(host: Host) -> None:
    await host.found(*TRIO)
    for state in ("existing", "new"):
        host.kill("c")
        # The poison costs nothing while there is a log.
        host.start("c", ["a", "b"], state=state)
        await host.serves("c")
        host.kill("c")
        host.wipe("c")
        host.start("c", ["a", "b"], state=state)
        await host.ends("c", 'couldn\'t find local name "c" in the initial cluster configuration')
        await host.put("a")
        listed = await host.etcd("a").member_list()
        await host.until(partial(_remove, host, "a", _id(listed.members, "c")))
        await host.until(lambda: host.etcd("a").member_add([host.peer_url("c")]))
        host.start("c", TRIO, state="existing")
        await _promoted(host, "a", "c")


async def _lose(host: Host, *, poisoned: bool) -> bool:
    """Wipes one of the two members that have a write while the other is down. Returns whether it is lost."""
    await host.found(*TRIO)
    kept, wiped, stale = await host.leader_first(*TRIO)
    host.kill(stale)
    await host.put(kept, b"precious")
    host.kill(wiped)
    host.wipe(wiped)
    initial = [name for name in TRIO if not poisoned or name != wiped]
    host.start(wiped, initial, state="existing")
    await host.ends(wiped, "couldn't find local name" if poisoned else "is out of range [lastIndex(0)]")
    host.kill(kept)
    host.start(stale, TRIO, state="existing")
    # A kubelet restarts it. Without poison, there is a log now, although it is empty.
    host.start(wiped, initial, state="existing")
    if poisoned:
        await host.ends(wiped, "couldn't find local name")
        host.start(kept, TRIO, state="existing")
        await host.serves(kept, stale)
    else:
        await host.serves(wiped, stale)
    return await host.etcd(stale).get(b"precious") is None


async def a_silent_rejoin_loses_an_acknowledged_write(host: Host) -> None:
    assert await _lose(host, poisoned=False)


async def poison_keeps_an_acknowledged_write(host: Host) -> None:
    assert not await _lose(host, poisoned=True)


async def a_size_edited_while_founding_gives_two_clusters(host: Host) -> None:
    five = (*TRIO, "d", "e")
    for name in ("a", "b"):
        host.start(name, TRIO)
    for name in ("c", "d", "e"):
        host.start(name, five)
    await host.serves("a", "b", "c", "d", "e")
    await host.put("a", b"x", b"three")
    await host.put("d", b"x", b"five")
    small, large = await host.etcd("a").member_list(), await host.etcd("d").member_list()
    assert small.cluster_id != large.cluster_id
    assert (len(small.members), len(large.members)) == (3, 5)


async def two_of_three_founded_again_with_another_token_accept_writes(host: Host) -> None:
    await host.found(*TRIO)
    await host.put("a", b"old")
    before = (await host.etcd("a").status()).cluster_id
    for name in ("a", "b"):
        host.kill(name)
        host.wipe(name)
    for name in ("a", "b"):
        host.start(name, TRIO, token="another")  # noqa: S106 - that of an initial cluster
    await host.serves("a", "b")
    await host.put("a", b"new")
    assert await host.etcd("b").get(b"old") is None
    assert (await host.etcd("a").status()).cluster_id != before


async def one_of_three_founded_again_with_another_token_is_harmless(host: Host) -> None:
    await host.found(*TRIO)
    host.kill("c")
    host.wipe("c")
    host.start("c", TRIO, token="another")  # noqa: S106 - that of an initial cluster
    await host.sleep(3)
    await host.put("a")
    assert not host.ended("c")
    with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
        await host.etcd("c").put(b"k", b"other")
    assert len((await host.etcd("b").member_list()).members) == 3


async def two_of_three_wiped_with_the_same_token_found_again_if_the_third_is_silent(host: Host) -> None:
    await host.found(*TRIO)
    await host.put("a", b"old")
    before = (await host.etcd("a").status()).cluster_id
    host.freeze("c")
    for name in ("a", "b"):
        host.kill(name)
        host.wipe(name)
    for name in ("a", "b"):
        host.start(name, TRIO)
    await host.serves("a", "b")
    await host.put("a", b"new")
    assert await host.etcd("b").get(b"old") is None
    assert (await host.etcd("a").status()).cluster_id == before


async def members_are_added_as_learners_and_promoted(host: Host) -> None:
    await host.found("a")
    etcd = host.etcd("a")
    listed = await etcd.member_add([host.peer_url("b")])
    added = listed.with_peer_urls([host.peer_url("b")])
    assert added is not None
    assert (added.started, added.is_learner) == (False, True)
    with pytest.raises(errors.MemberExists):
        await etcd.member_add([host.peer_url("b")])
    with pytest.raises(errors.TooManyLearners):
        await etcd.member_add([host.peer_url("c")])
    with pytest.raises(errors.LearnerNotReady):
        await etcd.member_promote(added.id)
    with pytest.raises(errors.MemberNotFound):
        await etcd.member_promote(UNKNOWN_ID)
    # The learner does not cost the quorum.
    await host.put("a")
    host.start("b", ("a", "b"), state="existing")
    learner = host.etcd("b")
    await host.until(learner.status)
    assert (await learner.status()).is_learner
    assert await learner.get(b"k", linearizable=False) is not None
    for refused in (learner.member_list(), learner.get(b"k"), learner.put(b"k", b"v"), learner.alarms()):
        with pytest.raises(errors.LearnerUnsupported):
            await refused
    with pytest.raises(errors.BadLeaderTransferee):
        await etcd.move_leader(added.id)
    await _promoted(host, "a", "b")
    with pytest.raises(errors.NotALearner):
        await etcd.member_promote(added.id)
    # The new voter has not been connected for 5 s.
    with pytest.raises(errors.UnhealthyCluster):
        await etcd.member_add([host.peer_url("c")])
    await host.until(lambda: etcd.member_add([host.peer_url("c")]))


async def nothing_is_added_while_a_voter_is_down_and_it_can_be_removed(host: Host) -> None:
    await host.found(*TRIO)
    leader, other, down = await host.leader_first(*TRIO)
    etcd = host.etcd(leader)
    members = (await etcd.member_list()).members
    await host.sleep(6)
    host.kill(down)
    await host.put(leader)
    with pytest.raises(errors.UnhealthyCluster):
        await etcd.member_add([host.peer_url("d")])
    with pytest.raises(errors.UnhealthyCluster):
        await etcd.member_remove(_id(members, other))
    with pytest.raises(errors.MemberNotFound):
        await etcd.member_remove(UNKNOWN_ID)
    left = await host.until(lambda: _remove(host, leader, _id(members, down)))
    assert {each.name for each in left.members} == {leader, other}
    await host.until(lambda: etcd.member_add([host.peer_url("d")]))
    # Its data does not rejoin.
    host.start(down, TRIO, state="existing")
    await host.ends(down, "has been permanently removed from the cluster")


async def a_joining_member_needs_the_exact_list_of_members(host: Host) -> None:
    await host.found("a")
    await host.etcd("a").member_add([host.peer_url("b")])
    host.start("b", ("a", "b", "c"), state="existing")
    await host.ends("b", "member count is unequal")
    host.wipe("b")
    host.start("b", ("b", "c"), state="existing")
    await host.ends("b", "cannot fetch cluster info from peer urls")


async def without_a_quorum_only_local_calls_are_answered(host: Host) -> None:
    await host.found(*TRIO)
    listed = await host.etcd("a").member_list()
    for name in ("b", "c"):
        host.kill(name)
    etcd = host.etcd("a")
    for call in (etcd.member_list(), etcd.put(b"k", b"v"), etcd.get(b"k"), etcd.alarms()):
        with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
            await call
    assert (await etcd.member_list(linearizable=False)).members == listed.members
    assert await etcd.get(b"k", linearizable=False) is None
    await host.until(lambda: _leaderless(etcd))
    with pytest.raises(errors.Unreachable):
        await host.etcd("b").status()
    # A member that restarts without a quorum does not serve at all.
    host.kill("a")
    host.start("a", TRIO, state="existing")
    await host.sleep(3)
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await host.etcd("a").status()
    assert caught.value.maybe_executed
    host.start("b", TRIO, state="existing")
    await host.serves("a", "b")
    await host.put("a")


async def a_terminated_leader_hands_over(host: Host) -> None:
    await host.found(*TRIO)
    leader, other, third = await host.leader_first(*TRIO)
    term = (await host.etcd(other).status()).raft_term
    host.terminate(leader)
    await host.put(other)
    after = await host.leader_first(other, third)
    assert (await host.etcd(after[0]).status()).raft_term == term + 1


async def only_the_leader_moves_the_leadership(host: Host) -> None:
    await host.found(*TRIO)
    leader, other, third = await host.leader_first(*TRIO)
    target = (await host.etcd(third).status()).member_id
    with pytest.raises(errors.NotLeader):
        await host.etcd(other).move_leader(target)
    with pytest.raises(errors.BadLeaderTransferee):
        await host.etcd(leader).move_leader(UNKNOWN_ID)
    await host.etcd(leader).move_leader(target)
    await host.until(lambda: _leads(host, third))


async def auth_hides_the_members(host: Host) -> None:
    await host.found("a")
    await host.enable_auth("a")
    etcd = host.etcd("a")
    calls: list[Awaitable[object]] = []
    calls += [etcd.get(b"k"), etcd.put(b"k", b"v"), etcd.member_add([host.peer_url("b")]), etcd.hash_kv()]
    calls += [etcd.status(), etcd.member_list(), etcd.alarms(), etcd.move_leader(UNKNOWN_ID)]
    for call in calls:
        with pytest.raises(errors.PermissionDenied) as caught:
            await call
        assert not caught.value.maybe_executed


async def data_of_a_newer_minor_is_refused_once_all_members_run_it(host: Host) -> None:
    old = int(host.version.split(".")[1])
    await host.found(*TRIO)
    await host.put("a")
    for name in ("a", "b"):
        host.terminate(name)
        host.start(name, TRIO, state="existing", minor=old + 1)
        await host.serves(name)
    # Until the last member is upgraded, going back is possible.
    host.terminate("a")
    host.start("a", TRIO, state="existing")
    await host.serves("a")
    for name in ("a", "c"):
        host.terminate(name)
        host.start(name, TRIO, state="existing", minor=old + 1)
        await host.serves(name)
    await host.sleep(6)
    host.terminate("c")
    host.start("c", TRIO, state="existing")
    refusal = f'version "3.{old + 1}.0" is not supported' if old > 5 else "server version is lower than"
    await host.ends("c", refusal)


CASES: Sequence[Case] = (
    founding_gives_the_ids_of_urls_and_token,
    a_wiped_member_with_existing_panics_and_rejoins_after_an_election,
    a_wiped_member_with_new_is_refused_by_a_peer,
    a_wiped_member_with_new_founds_again_if_its_peers_are_silent,
    a_poisoned_member_never_starts_on_an_empty_volume,
    a_silent_rejoin_loses_an_acknowledged_write,
    poison_keeps_an_acknowledged_write,
    a_size_edited_while_founding_gives_two_clusters,
    two_of_three_founded_again_with_another_token_accept_writes,
    one_of_three_founded_again_with_another_token_is_harmless,
    two_of_three_wiped_with_the_same_token_found_again_if_the_third_is_silent,
    members_are_added_as_learners_and_promoted,
    nothing_is_added_while_a_voter_is_down_and_it_can_be_removed,
    a_joining_member_needs_the_exact_list_of_members,
    without_a_quorum_only_local_calls_are_answered,
    a_terminated_leader_hands_over,
    only_the_leader_moves_the_leadership,
    auth_hides_the_members,
    data_of_a_newer_minor_is_refused_once_all_members_run_it,
)
"""All cases. Each gets a host without members."""

DATA: Sequence[Case] = (
    founding_gives_the_ids_of_urls_and_token,
    a_poisoned_member_never_starts_on_an_empty_volume,
    a_silent_rejoin_loses_an_acknowledged_write,
    poison_keeps_an_acknowledged_write,
    a_joining_member_needs_the_exact_list_of_members,
)
"""The cases about founding, joining and empty volumes, on which acknowledged writes depend."""

ESSENTIAL: Sequence[Case] = (
    *DATA,
    members_are_added_as_learners_and_promoted,
    nothing_is_added_while_a_voter_is_down_and_it_can_be_removed,
    without_a_quorum_only_local_calls_are_answered,
)
"""The cases on which the laws of the operator depend most. `./inv test` runs them, and the soak tests all."""


def _id(members: Sequence[Member], name: str) -> int:
    return next(each.id for each in members if each.name == name)


async def _leads(host: Host, name: str) -> bool:
    status = await host.etcd(name).status()
    return status.leader == status.member_id


async def _leaderless(etcd: Etcd) -> bool:
    return (await etcd.status()).leader == 0


async def _remove(host: Host, through: str, member: int) -> Any:
    return await host.etcd(through).member_remove(member)


async def _promoted(host: Host, through: str, name: str) -> None:
    listed = await host.etcd(through).member_list()
    added = listed.with_peer_urls([host.peer_url(name)])
    assert added is not None
    await host.until(lambda: host.etcd(through).member_promote(added.id))
    await host.serves(name)
