"""The client of etcd's gRPC API with a scripted server."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from etcd_operator import errors
from etcd_operator.client import REQUESTS, ConnectionPool, MemberClient, isolated
from etcd_operator.etcd import (
    DEADLINE,
    Alarm,
    AlarmType,
    Endpoint,
    Etcd,
    HashKV,
    KeyValue,
    Member,
    MemberList,
    MemberStatus,
)
from etcd_operator.rpc import kv_pb2
from etcd_operator.rpc import rpc_pb2 as pb
from pilothouse import ObjectKey
from tests.unit.etcd.fake_member import NAME, FakeMember, Held, refuse

# Long enough for a busy machine. No test waits for it.
PATIENT = 30.0
# No test needs an answer within it.
SHORT = 0.05
# Within this time a member that is back must answer.
RECONNECTED = 1.0
HEADER = pb.ResponseHeader(cluster_id=2**64 - 1, member_id=7, revision=40, raft_term=3)
MEMBERS = [
    pb.Member(ID=7, name="a", peerURLs=["http://a:2380"], clientURLs=["http://a:2379"]),
    pb.Member(ID=8, peerURLs=["http://b:2380"], isLearner=True),
]
LIST = MemberList(
    cluster_id=2**64 - 1,
    member_id=7,
    raft_term=3,
    members=(
        Member(7, "a", ("http://a:2380",), ("http://a:2379",)),
        Member(8, "", ("http://b:2380",), (), True),
    ),
)
CLUSTER = ObjectKey("default", "example")


@pytest.fixture
async def member() -> AsyncIterator[FakeMember]:
    fake = FakeMember()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(member: FakeMember) -> AsyncIterator[MemberClient]:
    client = MemberClient(member.endpoint)
    yield client
    client.close()
    await asyncio.sleep(0)


CALLS: dict[str, tuple[Callable[[Etcd], Awaitable[object]], Any, Any, Any]] = {
    # Name: the call, the request that arrives, the answer, the result.
    "MemberList": (
        lambda etcd: etcd.member_list(),
        pb.MemberListRequest(linearizable=True),
        pb.MemberListResponse(header=HEADER, members=MEMBERS),
        LIST,
    ),
    "MemberList (local)": (
        lambda etcd: etcd.member_list(linearizable=False),
        pb.MemberListRequest(),
        pb.MemberListResponse(header=HEADER, members=MEMBERS),
        LIST,
    ),
    "MemberAdd": (
        lambda etcd: etcd.member_add(["http://b:2380"]),
        pb.MemberAddRequest(peerURLs=["http://b:2380"], isLearner=True),
        pb.MemberAddResponse(header=HEADER, member=MEMBERS[1], members=MEMBERS),
        LIST,
    ),
    "MemberAdd (voter)": (
        lambda etcd: etcd.member_add(["http://b:2380"], learner=False),
        pb.MemberAddRequest(peerURLs=["http://b:2380"]),
        pb.MemberAddResponse(header=HEADER, member=MEMBERS[1], members=MEMBERS),
        LIST,
    ),
    "MemberRemove": (
        lambda etcd: etcd.member_remove(2**64 - 2),
        pb.MemberRemoveRequest(ID=2**64 - 2),
        pb.MemberRemoveResponse(header=HEADER, members=MEMBERS),
        LIST,
    ),
    "MemberPromote": (
        lambda etcd: etcd.member_promote(9),
        pb.MemberPromoteRequest(ID=9),
        pb.MemberPromoteResponse(header=HEADER, members=MEMBERS),
        LIST,
    ),
    "MemberUpdate": (
        lambda etcd: etcd.member_update(9, ["http://c:2380"]),
        pb.MemberUpdateRequest(ID=9, peerURLs=["http://c:2380"]),
        pb.MemberUpdateResponse(header=HEADER, members=MEMBERS),
        LIST,
    ),
    "MoveLeader": (
        lambda etcd: etcd.move_leader(9),
        pb.MoveLeaderRequest(targetID=9),
        pb.MoveLeaderResponse(header=HEADER),
        None,
    ),
    "Status": (
        lambda etcd: etcd.status(),
        pb.StatusRequest(),
        pb.StatusResponse(
            header=HEADER, version="3.6.14", dbSize=20, dbSizeInUse=10, leader=8, raftIndex=101,
            raftAppliedIndex=100, raftTerm=4, isLearner=True, errors=["memberID:7 alarm:NOSPACE"],
        ),
        MemberStatus(
            "3.6.14", 20, 10, 8, 101, 100, 4, True, ("memberID:7 alarm:NOSPACE",), 2**64 - 1, 7, 40
        ),
    ),
    "Alarm": (
        lambda etcd: etcd.alarms(),
        pb.AlarmRequest(),
        pb.AlarmResponse(
            alarms=[
                pb.AlarmMember(memberID=7, alarm=pb.NOSPACE),
                pb.AlarmMember(alarm=pb.CORRUPT),
                pb.AlarmMember(memberID=8, alarm=9),  # type: ignore[arg-type]  # of a newer etcd
            ]
        ),
        (Alarm(7, AlarmType.NOSPACE), Alarm(0, AlarmType.CORRUPT), Alarm(8, AlarmType.UNKNOWN)),
    ),
    "HashKV": (
        lambda etcd: etcd.hash_kv(33),
        pb.HashKVRequest(revision=33),
        pb.HashKVResponse(header=HEADER, hash=2**32 - 1, compact_revision=5),
        HashKV(2**32 - 1, 5, 40, 2**64 - 1, 7, 3),
    ),
    "Range": (
        lambda etcd: etcd.get(b"k"),
        pb.RangeRequest(key=b"k"),
        pb.RangeResponse(
            kvs=[kv_pb2.KeyValue(key=b"k", value=b"\0v", create_revision=2, mod_revision=4, version=2)]
        ),
        KeyValue(b"k", b"\0v", 2, 4, 2),
    ),
    "Range (local, missing)": (
        lambda etcd: etcd.get(b"k", linearizable=False),
        pb.RangeRequest(key=b"k", serializable=True),
        pb.RangeResponse(),
        None,
    ),
    "Put": (
        lambda etcd: etcd.put(b"k", b"v"),
        pb.PutRequest(key=b"k", value=b"v"),
        pb.PutResponse(header=HEADER),
        40,
    ),
    "DeleteRange": (
        lambda etcd: etcd.delete(b"k"),
        pb.DeleteRangeRequest(key=b"k"),
        pb.DeleteRangeResponse(deleted=1),
        1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_sends_its_request_and_returns_plain_values(name, member, client):
    call, request, answer, result = CALLS[name]
    method = name.partition(" ")[0]
    member.will(method, answer)
    assert await call(client) == result
    [received] = member.calls
    assert (received.method, received.request) == (method, request)
    # The member gives up after the client, also if the connection is lost.
    assert 0 < received.deadline <= DEADLINE + 1


def test_the_member_of_a_lost_addition_is_found_by_its_peer_urls():
    assert LIST.with_peer_urls(["http://b:2380"]) == LIST.members[1]
    assert LIST.with_peer_urls(["http://c:2380"]) is None
    assert [member.started for member in LIST.members] == [True, False]


async def test_calls_share_one_connection(member, client):
    member.will("Status", pb.StatusResponse())
    member.will("Alarm", pb.AlarmResponse())
    await asyncio.gather(client.status(), client.status(), client.alarms())
    await client.status()
    assert len(member.calls) == 4
    assert member.connections == 1


REFUSALS = [
    (Status.UNAVAILABLE, "unhealthy cluster", errors.UnhealthyCluster, False),
    (
        Status.FAILED_PRECONDITION,
        "re-configuration failed due to not enough started members",
        errors.NotEnoughStartedMembers,
        False,
    ),
    (
        Status.FAILED_PRECONDITION,
        "can only promote a learner member which is in sync with leader",
        errors.LearnerNotReady,
        False,
    ),
    (Status.FAILED_PRECONDITION, "can only promote a learner member", errors.NotALearner, False),
    (Status.FAILED_PRECONDITION, "too many learner members in cluster", errors.TooManyLearners, False),
    (Status.NOT_FOUND, "member not found", errors.MemberNotFound, False),
    (Status.FAILED_PRECONDITION, "Peer URLs already exists", errors.MemberExists, False),
    # etcd 3.5, and 3.6.
    (Status.UNAVAILABLE, "rpc not supported for learner", errors.LearnerUnsupported, False),
    (Status.FAILED_PRECONDITION, "rpc not supported for learner", errors.LearnerUnsupported, False),
    (Status.FAILED_PRECONDITION, "not leader", errors.NotLeader, False),
    (Status.FAILED_PRECONDITION, "bad leader transferee", errors.BadLeaderTransferee, False),
    (Status.PERMISSION_DENIED, "permission denied", errors.PermissionDenied, False),
    (Status.INVALID_ARGUMENT, "user name is empty", errors.PermissionDenied, False),
    (Status.UNAUTHENTICATED, "invalid auth token", errors.PermissionDenied, False),
    (Status.RESOURCE_EXHAUSTED, "mvcc: database space exceeded", errors.NoSpace, False),
    (Status.OUT_OF_RANGE, "mvcc: required revision has been compacted", errors.Compacted, False),
    (Status.UNAVAILABLE, "no leader", errors.NoLeader, True),
    (Status.UNAVAILABLE, "request timed out", errors.Unavailable, True),
    (Status.UNAVAILABLE, "leader changed", errors.Unavailable, True),
    (Status.UNKNOWN, "context canceled", errors.Refused, True),
    (Status.INVALID_ARGUMENT, "given member URLs are invalid", errors.Refused, False),
]


@pytest.mark.parametrize(("status", "message", "kind", "maybe"), REFUSALS)
async def test_a_refusal_has_its_class(status, message, kind, maybe, member, client):
    member.will("MemberAdd", refuse(status, message), pb.MemberAddResponse())
    with pytest.raises(errors.Refused) as caught:
        await client.member_add(["http://b:2380"])
    assert type(caught.value) is kind
    assert caught.value.maybe_executed is maybe
    assert str(caught.value) == f"etcd at {NAME} (127.0.0.1:{member.port}) refused MemberAdd: {message}"
    assert (caught.value.code, caught.value.message) == (status.name, f"etcdserver: {message}")
    await client.member_add(["http://b:2380"])
    assert member.connections == 1, "a refusal is an answer, so the connection works"


async def test_a_refusal_of_the_auth_store_has_no_status_of_its_own(member, client):
    member.will("HashKV", GRPCError(Status.UNKNOWN, "auth: user name is empty"))
    with pytest.raises(errors.PermissionDenied, match="refused HashKV: user name is empty") as caught:
        await client.hash_kv()
    assert not caught.value.maybe_executed


async def test_an_answer_of_another_api_is_undecodable(member, client):
    # The field of the header has bytes that are not a message.
    member.will("Status", kv_pb2.KeyValue(key=b"\xff\xff"))
    with pytest.raises(errors.Undecodable, match=r"the answer to Status of etcd at .* is not one of etcd"):
        await client.status()


async def test_after_a_deadline_the_next_call_uses_another_connection(member, client):
    member.will("Status", pb.StatusResponse())
    await client.status()
    member.will("Status", Held(pb.StatusResponse()))
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await client.status(deadline=SHORT)
    assert str(caught.value) == (
        f"etcd at {NAME} (127.0.0.1:{member.port}) did not answer Status within 0.05 s"
    )
    assert caught.value.maybe_executed
    member.will("Status", pb.StatusResponse(version="3.6.14"))
    assert (await client.status(deadline=PATIENT)).version == "3.6.14"
    assert member.connections == 2


async def test_a_deadline_that_the_member_reports_is_the_same_error(member, client):
    member.will("Status", refuse(Status.DEADLINE_EXCEEDED, "context deadline exceeded"))
    with pytest.raises(errors.DeadlineExceeded, match="did not answer Status within 30 s") as caught:
        await client.status(deadline=PATIENT)
    assert caught.value.maybe_executed


async def test_a_deadline_does_not_end_other_calls_on_the_connection(member, client):
    slow = Held(pb.StatusResponse(version="3.6.14"))
    member.will("Status", slow)
    member.will("MemberList", Held(pb.MemberListResponse()))
    status = asyncio.create_task(client.status(deadline=PATIENT))
    await slow.arrived.wait()
    with pytest.raises(errors.DeadlineExceeded):
        await client.member_list(deadline=SHORT)
    slow.release.set()
    assert (await status).version == "3.6.14"
    assert member.connections == 1


async def test_a_member_that_does_not_listen_is_unreachable(member, client):
    await member.stop()
    with pytest.raises(errors.Unreachable) as caught:
        await client.member_add(["http://b:2380"])
    assert str(caught.value) == (
        f"etcd at {NAME} (127.0.0.1:{member.port}) cannot be reached: connection refused"
    )
    assert not caught.value.maybe_executed
    assert caught.value.refused


async def test_a_connection_that_the_member_closes_immediately_is_unreachable(member, client, monkeypatch):
    member.will("MemberList", pb.MemberListResponse())
    create = Channel._create_connection

    async def closed(channel):
        protocol = await create(channel)
        protocol.connection_lost(None)
        return protocol

    with monkeypatch.context() as patch:
        patch.setattr(Channel, "_create_connection", closed)
        with pytest.raises(errors.Unreachable, match="it closed the new connection") as found:
            await client.member_list()
    assert not found.value.maybe_executed
    await client.member_list()
    assert len(member.calls) == 1


async def test_a_lost_answer_may_have_been_executed(member, client):
    held = Held(pb.MemberAddResponse())
    member.will("Status", pb.StatusResponse())
    member.will("MemberAdd", held)
    await client.status()
    adding = asyncio.create_task(client.member_add(["http://b:2380"], deadline=PATIENT))
    await held.arrived.wait()
    await member.stop()
    with pytest.raises(errors.Unreachable, match="cannot be reached: the connection was lost") as caught:
        await adding
    assert caught.value.maybe_executed


async def test_a_restarted_member_is_reconnected(member, client):
    member.will("Status", pb.StatusResponse(version="3.6.14"))
    await client.status()
    await member.stop()
    for _ in range(10):  # A back-off would grow.
        with pytest.raises(errors.Unreachable):
            await client.status()
    await member.start()
    async with asyncio.timeout(RECONNECTED):
        assert (await client.status()).version == "3.6.14"
    assert member.connections == 2


async def test_calls_are_counted_by_method_and_status(member, client):
    codes = ("OK", "NOT_FOUND", "DEADLINE_EXCEEDED", "none")

    def counts() -> list[int]:
        return [REQUESTS.labels("HashKV", code).value for code in codes]

    before = counts()
    member.will("HashKV", pb.HashKVResponse(), refuse(Status.NOT_FOUND, "x"), Held(pb.HashKVResponse()))
    await client.hash_kv()
    with pytest.raises(errors.Refused):
        await client.hash_kv()
    with pytest.raises(errors.DeadlineExceeded):
        await client.hash_kv(deadline=SHORT)
    await member.stop()
    with pytest.raises(errors.Unreachable):
        await client.hash_kv()
    assert [after - first for first, after in zip(before, counts(), strict=True)] == [1, 1, 1, 1]


async def test_a_timeout_around_a_call_still_works_after_a_deadline(member, client):
    """The task that waits is cancelled by grpclib for good, which would break `asyncio.timeout`."""
    member.will("Status", Held(pb.StatusResponse()))

    async def call_and_wait() -> None:
        with suppress(errors.DeadlineExceeded):
            await client.status(deadline=SHORT / 10)
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await call_and_wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancelled_caller_ends_its_call(member, client):
    held = Held(pb.StatusResponse())
    member.will("Status", held)
    task = asyncio.create_task(client.status(deadline=PATIENT))
    await held.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_is_not_lost_when_the_deadline_passes_at_the_same_time():
    waiting = asyncio.Event()

    async def call() -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError from None  # as grpclib does once the deadline has passed

    task = asyncio.create_task(isolated(call(), set()))
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_closed_client_ends_its_calls_and_refuses_others(member, client):
    held = Held(pb.StatusResponse())
    member.will("Status", held)
    running = asyncio.create_task(client.status(deadline=PATIENT))
    await held.arrived.wait()
    client.close()
    with pytest.raises(errors.Unreachable, match="the operator has closed the connection") as caught:
        await running
    assert caught.value.maybe_executed
    with pytest.raises(errors.Unreachable, match="the operator has closed the connection") as caught:
        await client.status()
    assert not caught.value.maybe_executed


async def test_the_pool_keeps_connections_of_members_and_closes_the_others():
    members = [FakeMember(), FakeMember()]
    for member in members:
        await member.start()
        member.will("Status", pb.StatusResponse())
    first, second = (member.endpoint for member in members)
    async with ConnectionPool() as pool:
        before = pool.members(CLUSTER, [first, second])
        other = pool.members(ObjectKey("default", "other"), [first])
        assert [*before] == [first, second]
        await before[first].status()
        await before[second].status()
        # The second member's pod was replaced: its address is another one.
        moved = Endpoint("127.0.0.2", second.server_name, second.port)
        after = pool.members(CLUSTER, [first, moved])
        assert [*after] == [first, moved]
        assert after[first] is before[first]
        with pytest.raises(errors.Unreachable, match="has closed the connection"):
            await before[second].status()
        assert pool.members(CLUSTER, ()) == {}
        with pytest.raises(errors.Unreachable, match="has closed the connection"):
            await before[first].status()
        await other[first].status()
    with pytest.raises(errors.Unreachable, match="has closed the connection"):
        await other[first].status()
    for member in members:
        await member.stop()


async def test_the_connection_is_closed_after_a_deadline():
    opened, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.set()
        await reader.read()
        closed.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = MemberClient(Endpoint("127.0.0.1", NAME, server.sockets[0].getsockname()[1]))
        while not opened.is_set():  # on a busy machine, the first one may end before it has connected
            with pytest.raises(errors.DeadlineExceeded):
                await client.status(deadline=SHORT)
        await closed.wait()


def modules(name: str) -> set[str]:
    """Returns the modules that a new interpreter has loaded after an import."""
    path = [each for each in sys.path if each]
    code = f"import sys; sys.path[:0] = {path!r}; import {name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return {*done.stdout.split()}


@pytest.mark.parametrize("name", ["flights_operator.__main__", "etcd_operator.etcd", "etcd_operator.errors"])
def test_only_the_client_loads_grpc(name):
    """They would cost each flights operator 5 MiB."""
    assert not {"grpclib", "h2", "google.protobuf"} & modules(name)


def test_the_client_reads_tls_into_the_smaller_buffers():
    """Otherwise 150 connections would take 33 MiB more; tests/unit/kube/test_patches.py checks the effect."""
    assert "pilothouse.kube.patches" in modules("etcd_operator.client")
