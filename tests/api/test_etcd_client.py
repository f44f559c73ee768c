"""The client of etcd against real members of all supported minor versions."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from devcluster import toolchain
from etcd_operator import errors
from etcd_operator.client import ConnectionPool
from etcd_operator.etcd import Alarm, AlarmType, Credentials, Etcd, Member, MemberStatus
from pilothouse.testing import eventually
from release import etcd_stubs
from tests.api.etcd_members import CLUSTER, DOMAIN, VERSIONS, RealMember, serving
from tests.unit.kube.authority import Authority

ON_ALL = pytest.mark.parametrize("version", VERSIONS, ids=lambda suffix: suffix.removeprefix("-") or "3.6")
NEWEST = pytest.mark.parametrize("version", VERSIONS[-1:])
# Seconds. No test waits for it where all is well.
PATIENT = 30.0
# Within this time a member that is back must answer.
RECONNECTED = 1.0
UNKNOWN_ID = 0xDEAD
Start = Callable[..., RealMember]


@pytest.fixture
def new_member(tmp_path: Path, version: str) -> Iterator[Start]:
    """Returns a function that prepares a member. All members are killed after the test."""
    members: list[RealMember] = []

    def make(name: str, flags: Sequence[str] = ()) -> RealMember:
        members.append(RealMember(tmp_path, version, name, flags))
        return members[-1]

    yield make
    for member in members:
        member.stop()


@pytest.fixture
async def pool() -> AsyncIterator[ConnectionPool]:
    async with ConnectionPool() as pool:
        yield pool
    await asyncio.sleep(0)


@pytest.fixture
async def trio(new_member: Start, pool: ConnectionPool) -> list[RealMember]:
    """A cluster of three started voters."""
    members = [new_member(name) for name in ("a", "b", "c")]
    for member in members:
        member.start([other for other in members if other is not member])
    await serving(pool, *members)
    return members


def clients(pool: ConnectionPool, members: Sequence[RealMember]) -> list[Etcd]:
    found = pool.members(CLUSTER, [member.endpoint for member in members])
    return [found[member.endpoint] for member in members]


async def leader_first(pool: ConnectionPool, members: list[RealMember]) -> list[RealMember]:
    """Returns the members sorted so that the leader is the first."""

    async def sort() -> list[RealMember] | None:
        statuses = [await client.status() for client in clients(pool, members)]
        leading = [each.leader == each.member_id for each in statuses]
        agreed = len({each.leader for each in statuses}) == 1 and any(leading)
        return sorted(members, key=lambda each: not leading[members.index(each)]) if agreed else None

    found: list[RealMember] | None = await eventually(sort, within=PATIENT)
    assert found is not None
    return found


@ON_ALL
async def test_the_life_cycle_of_a_member(version, new_member, pool):
    first, second = new_member("first"), new_member("second")
    first.start()
    [etcd] = await serving(pool, first)
    status = await etcd.status()
    assert status.version == toolchain.TOOLS[f"etcd{version}"].version.removeprefix("v")
    assert status.leader == status.member_id
    assert (status.is_learner, status.errors) == (False, ())
    assert status.db_size >= status.db_size_in_use > 0
    assert status.raft_index >= status.raft_applied_index > 0

    listed = await etcd.member_list()
    assert (listed.cluster_id, listed.member_id) == (status.cluster_id, status.member_id)
    assert listed.members == (
        Member(status.member_id, "first", (first.peer_url,), (first.client_url,), False),
    )

    listed = await etcd.member_add([second.peer_url])
    added = listed.with_peer_urls([second.peer_url])
    assert added is not None
    assert (added.name, added.started, added.is_learner) == ("", False, True)
    assert listed == await etcd.member_list()
    with pytest.raises(errors.MemberExists):
        await etcd.member_add([second.peer_url])
    with pytest.raises(errors.TooManyLearners):
        await etcd.member_add(["http://127.0.0.1:1"])
    with pytest.raises(errors.LearnerNotReady):
        await etcd.member_promote(added.id)
    with pytest.raises(errors.MemberNotFound):
        await etcd.member_promote(UNKNOWN_ID)

    second.start([first], state="existing")
    etcd, learner = await serving(pool, first, second)
    assert (await learner.status()).is_learner
    with pytest.raises(errors.LearnerUnsupported):
        await learner.member_list()
    with pytest.raises(errors.BadLeaderTransferee):
        await etcd.move_leader(added.id)
    promoted = await eventually(lambda: promotion(etcd, added.id), within=PATIENT)
    assert promoted == await etcd.member_list()
    assert promoted.with_peer_urls([second.peer_url]) == Member(
        added.id, "second", (second.peer_url,), (second.client_url,), False
    )
    with pytest.raises(errors.NotALearner):
        await etcd.member_promote(added.id)

    with pytest.raises(errors.NotLeader):
        await learner.move_leader(added.id)
    await etcd.move_leader(added.id)
    await eventually(lambda: leads(learner), within=PATIENT)

    moved = "http://127.0.0.1:2"
    listed = await learner.member_update(status.member_id, [moved])
    assert [each.id for each in listed.members if moved in each.peer_urls] == [status.member_id]
    await learner.member_update(status.member_id, [first.peer_url])
    await eventually(lambda: removal(learner, status.member_id), within=PATIENT)
    assert [each.id for each in (await learner.member_list()).members] == [added.id]
    with pytest.raises(errors.MemberNotFound):
        await learner.member_remove(status.member_id)


async def promotion(etcd: Etcd, member_id: int):
    with suppress(errors.LearnerNotReady):
        return await etcd.member_promote(member_id)


async def removal(etcd: Etcd, member_id: int):
    with suppress(errors.UnhealthyCluster, errors.Unavailable, errors.DeadlineExceeded):
        return await etcd.member_remove(member_id)


async def leads(etcd: Etcd) -> bool:
    status = await etcd.status()
    return status.leader == status.member_id


@ON_ALL
async def test_with_one_of_three_members_down_not_even_a_learner_is_added(trio, pool):
    leading, _, down = await leader_first(pool, trio)
    down.stop()
    [leader] = clients(pool, [leading])
    await leader.put(b"k", b"v")
    with pytest.raises(errors.UnhealthyCluster) as caught:
        await leader.member_add(["http://127.0.0.1:1"])
    assert not caught.value.maybe_executed


@ON_ALL
async def test_a_voter_is_not_added_while_too_few_are_started(new_member, pool):
    first = new_member("first")
    first.start()
    [etcd] = await serving(pool, first)
    await etcd.member_add(["http://127.0.0.1:1"], learner=False)
    with pytest.raises(errors.NotEnoughStartedMembers):
        await etcd.member_add(["http://127.0.0.1:2"], learner=False)


@ON_ALL
async def test_without_a_quorum_only_local_calls_are_answered(trio, pool):
    survivor, *others = await leader_first(pool, trio)
    [etcd] = clients(pool, [survivor])
    listed = await etcd.member_list()
    for other in others:
        other.stop()
    with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)):
        await etcd.member_list()
    with pytest.raises((errors.DeadlineExceeded, errors.Unavailable)) as caught:
        await etcd.put(b"k", b"v")
    assert caught.value.maybe_executed
    assert (await etcd.member_list(linearizable=False)).members == listed.members
    assert isinstance(await etcd.status(), MemberStatus)
    await eventually(lambda: knows_no_leader(etcd), within=PATIENT)
    assert await etcd.get(b"k", linearizable=False) is None


async def knows_no_leader(etcd: Etcd) -> bool:
    return (await etcd.status()).leader == 0


@ON_ALL
async def test_keys_and_the_hash_of_all_members(trio, pool):
    one, two, three = clients(pool, trio)
    assert await one.get(b"k") is None
    revision = await one.put(b"k", b"\0v")
    assert await two.put(b"k", b"w") == revision + 1
    found = await three.get(b"k")
    assert found is not None
    assert (found.key, found.value, found.version) == (b"k", b"w", 2)
    assert (found.create_revision, found.mod_revision) == (revision, revision + 1)
    # A linearizable read has shown that each member has applied the revision.
    for each in (one, two):
        assert await each.get(b"k") == found
    hashes = [await each.hash_kv(revision + 1) for each in (one, two, three)]
    assert len({(each.hash, each.compact_revision, each.cluster_id) for each in hashes}) == 1
    assert len({each.member_id for each in hashes}) == 3
    assert {each.revision for each in hashes} == {revision + 1}
    assert (await one.hash_kv(revision)).hash != hashes[0].hash
    assert await one.delete(b"k") == 1
    assert await one.delete(b"k") == 0
    assert (await one.status()).revision == revision + 2
    assert await one.alarms() == ()


@ON_ALL
async def test_a_full_database(new_member, pool):
    member = new_member("only", ["--quota-backend-bytes=65536"])
    member.start()
    [etcd] = await serving(pool, member)

    async def fill() -> None:
        while True:
            await etcd.put(b"k", bytes(8192))

    with pytest.raises(errors.NoSpace):
        await asyncio.wait_for(fill(), PATIENT)
    status = await etcd.status()
    assert await etcd.alarms() == (Alarm(status.member_id, AlarmType.NOSPACE),)
    assert "NOSPACE" in " ".join(status.errors)
    assert await etcd.get(b"k") is not None
    assert await etcd.delete(b"k") == 1


@ON_ALL
async def test_a_member_without_permission_is_not_a_dead_one(new_member, pool):
    member = new_member("only")
    member.start()
    [etcd] = await serving(pool, member)
    for words in ("user add root:secret", "user grant-role root root", "auth enable"):
        member.etcdctl(*words.split())
    for call in (etcd.get(b"k"), etcd.put(b"k", b"v"), etcd.member_add(["http://127.0.0.1:1"])):
        with pytest.raises(errors.PermissionDenied) as caught:
            await call
        assert not caught.value.maybe_executed
    # Some versions allow these calls.
    for observed in (etcd.status(), etcd.member_list(), etcd.alarms(), etcd.hash_kv()):
        with suppress(errors.PermissionDenied):
            assert await observed is not None


@NEWEST
async def test_a_member_that_hangs_and_recovers(new_member, pool):
    member = new_member("only")
    member.start()
    [etcd] = await serving(pool, member)
    member.send(signal.SIGSTOP)
    for _ in range(2):  # the first over the old connection, the second over a new one
        with pytest.raises(errors.DeadlineExceeded):
            await etcd.status(deadline=0.2)
    member.send(signal.SIGCONT)
    assert (await etcd.status(deadline=PATIENT)).leader


@NEWEST
async def test_a_restarted_member_is_reconnected(new_member, pool):
    member = new_member("only")
    member.start()
    [etcd] = await serving(pool, member)
    await etcd.put(b"k", b"v")
    for number in (signal.SIGKILL, signal.SIGTERM):
        member.send(number)
        await eventually(lambda: unreachable(etcd), within=PATIENT)
        member.stop()
        member.start()
        async with ConnectionPool() as other:
            await serving(other, member)
        async with asyncio.timeout(RECONNECTED):
            assert (await etcd.status()).leader
        assert (await etcd.hash_kv()).revision == 2


async def unreachable(etcd: Etcd) -> bool:
    try:
        await etcd.status()
    except errors.Unreachable:
        return True
    return False


def tls_flags(authority: Authority, trusted: Path) -> list[str]:
    certificate, key = authority.issue("server", f"DNS:*.{DOMAIN},IP:127.0.0.1")
    return [
        *(f"--cert-file={certificate}", f"--key-file={key}"),
        *(f"--trusted-ca-file={trusted}", "--client-cert-auth"),
    ]


def credentials(ca: str, authority: Authority) -> Credentials:
    certificate, key = authority.issue("client", "DNS:operator")
    return Credentials(ca, certificate.read_text(), key.read_text())


@ON_ALL
async def test_a_rotated_ca_in_two_steps(new_member, pool, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    old_ca, new_ca = old.ca_file.read_text(), new.ca_file.read_text()
    both = tmp_path / "both.crt"
    both.write_text(old_ca + new_ca)
    member = new_member("only")

    member.start(tls=tls_flags(old, old.ca_file))
    await serving(pool, member, credentials=credentials(old_ca, old))
    member.stop()
    member.start(tls=tls_flags(new, both))
    # The operator has not seen the new CA yet.
    [etcd] = pool.members(CLUSTER, [member.endpoint], credentials(old_ca, old)).values()
    await eventually(lambda: untrusted(etcd), within=PATIENT)
    for trusted in (credentials(both.read_text(), old), credentials(new_ca, new)):
        [etcd] = await serving(pool, member, credentials=trusted)
        assert (await etcd.status()).leader
    member.stop()
    member.start(tls=tls_flags(new, new.ca_file))
    await serving(pool, member, credentials=credentials(new_ca, new))
    [etcd] = pool.members(CLUSTER, [member.endpoint], credentials(new_ca, old)).values()
    with pytest.raises(errors.Unreachable, match="may not trust the operator's client certificate"):
        await etcd.status()
    [etcd] = pool.members(CLUSTER, [member.endpoint]).values()
    with pytest.raises(errors.Unreachable, match="it may require TLS"):
        await etcd.status()


async def untrusted(etcd: Etcd) -> bool:
    try:
        await etcd.status()
    except errors.TlsFailed:
        return True
    except errors.Unreachable:
        pass
    return False


def test_the_proto_files_are_those_of_the_pinned_etcd():
    found = {path: path.read_text() for path in etcd_stubs.protos()}
    assert found == etcd_stubs.protos(), "run ./inv etcd-protos, then ./inv generate"
