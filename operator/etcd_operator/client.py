"""The client of etcd's gRPC API: the only module that knows gRPC."""

import asyncio
import errno
import os
import ssl
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar

from google.protobuf.message import DecodeError
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from etcd_operator.errors import (
    CredentialsError,
    DeadlineExceeded,
    EtcdError,
    TlsFailed,
    Undecodable,
    Unreachable,
    refusal,
)
from etcd_operator.etcd import (
    DEADLINE,
    Alarm,
    AlarmType,
    Credentials,
    Endpoint,
    Etcd,
    HashKV,
    KeyValue,
    Member,
    MemberList,
    MemberStatus,
)
from etcd_operator.rpc import rpc_pb2 as pb
from etcd_operator.rpc.rpc_grpc import ClusterStub, KVStub, MaintenanceStub
from pilothouse import ObjectKey
from pilothouse.kube import TlsFiles, tls_context
from pilothouse.telemetry import REGISTRY, Counter, Histogram

REQUESTS = Counter(
    "etcd_client_requests",
    'Calls to etcd members by method and gRPC status; "none" means no connection.',
    ["method", "code"],
    REGISTRY,
)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
SECONDS = Histogram(
    "etcd_client_request_seconds", "Seconds until the member answered.", ["method"], _BUCKETS, REGISTRY
)
# Cached because looking up a metric's child by its labels costs more than counting in it.
_requests = lru_cache(maxsize=256)(REQUESTS.labels)
_seconds = lru_cache(maxsize=64)(SECONDS.labels)

# Seconds by which the member's deadline is later than ours, so that a late call always ends in the same way.
# At its own deadline, etcd 3.5.0 answers with the status UNKNOWN, and 3.7 resets the stream.
_MEMBERS_MARGIN: Final = 1.0
_CLOSED: Final = "the operator has closed the connection"
_UNTRUSTED: Final = "it may not trust the operator's client certificate"
_ALARMS: Final[dict[int, AlarmType]] = {
    pb.NOSPACE: AlarmType.NOSPACE,
    pb.CORRUPT: AlarmType.CORRUPT,
}

Q = TypeVar("Q")
A = TypeVar("A")
# All answers that contain the members after a change, or without one.
_MembersAnswer: TypeAlias = (
    pb.MemberListResponse
    | pb.MemberAddResponse
    | pb.MemberRemoveResponse
    | pb.MemberPromoteResponse
    | pb.MemberUpdateResponse
)


class ConnectionPool:
    """The connections to the members of all clusters, as an async context manager. A process uses one.

    It implements `etcd.Connections`. Use it only on the event loop's thread.
    """

    def __init__(self) -> None:
        self._clusters: dict[ObjectKey, _Cluster] = {}

    async def __aenter__(self) -> "ConnectionPool":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for cluster in list(self._clusters):
            self.members(cluster, ())
        # asyncio closes the sockets in the next turn of the loop, which may be its last.
        await asyncio.sleep(0)

    def members(
        self, cluster: ObjectKey, endpoints: Iterable[Endpoint], credentials: Credentials | None = None
    ) -> Mapping[Endpoint, Etcd]:
        """Returns a client for each endpoint of a cluster, and closes the others; see `etcd.Connections`.

        Raises:
            CredentialsError: The credentials cannot be used.
        """
        wanted = dict.fromkeys(endpoints)
        known = self._clusters.pop(cluster, None)
        if known is not None and (not wanted or known.credentials != credentials):
            known.close()
            known = None
        if not wanted:
            return {}
        if known is None:
            known = _Cluster(credentials, None if credentials is None else client_context(credentials))
        self._clusters[cluster] = known
        return known.update(wanted)


@dataclass
class _Cluster:
    """The clients of one cluster, which share the TLS settings."""

    credentials: Credentials | None
    context: ssl.SSLContext | None
    clients: dict[Endpoint, "MemberClient"] = field(default_factory=dict)

    def update(self, wanted: Iterable[Endpoint]) -> Mapping[Endpoint, Etcd]:
        before = self.clients
        self.clients = {
            each: before.pop(each) if each in before else MemberClient(each, self.context) for each in wanted
        }
        _close(before.values())
        return dict(self.clients)

    def close(self) -> None:
        _close(self.clients.values())


def _close(clients: Iterable["MemberClient"]) -> None:
    for client in clients:
        client.close()


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Returns the TLS settings for connections to the members of a cluster.

    Raises:
        CredentialsError: The credentials cannot be used. The text names the part and contains nothing of it.
    """
    try:
        if not credentials.ca.strip():
            raise ValueError("it is empty")  # OpenSSL would trust the CAs of the system.
        tls_context(ca_data=credentials.ca)
    except (OSError, ValueError) as error:
        raise CredentialsError("ca", f"the CA cannot be used: {_tls_reason(error)}") from None
    try:
        context = TlsFiles(
            ca_data=credentials.ca, cert_data=credentials.certificate, key_data=credentials.key
        ).context()
    except (OSError, ValueError) as error:
        raise CredentialsError(
            "certificate", f"the client certificate or its key cannot be used: {_tls_reason(error)}"
        ) from None
    context.set_alpn_protocols(["h2"])
    return context


async def isolated(call: Coroutine[Any, Any, A], tasks: set[asyncio.Task[Any]]) -> A:
    """Runs a call of grpclib in a task of its own.

    When a deadline passes or a connection is lost, grpclib cancels the task that waits, and does not call
    `uncancel`. In the caller's task, the timeouts around the call would then no longer work.

    Args:
        call: The call.
        tasks: Contains the task while it runs, so that it can be cancelled.

    Raises:
        StreamTerminatedError: The task was cancelled through `tasks`.
    """
    task = asyncio.create_task(call)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    # If the caller is cancelled, gather cancels the task, waits for it, and does not lose the cancellation.
    [outcome] = await asyncio.gather(task, return_exceptions=True)
    if isinstance(outcome, asyncio.CancelledError):
        raise StreamTerminatedError(_CLOSED)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class _Connection:
    """A channel to one member. It closes once it is retired and its calls have ended."""

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
        name = endpoint.server_name if context else None
        self.channel = Channel(
            endpoint.host,
            endpoint.port,
            ssl=context,
            codec=ProtoCodec(),
            config=Configuration(ssl_target_name_override=name),
        )
        self.kv = KVStub(self.channel)
        self.cluster = ClusterStub(self.channel)
        self.maintenance = MaintenanceStub(self.channel)
        self.answered = False
        self._calls = 0
        self._retired = False

    def enter(self) -> None:
        self._calls += 1

    def leave(self) -> None:
        self._calls -= 1
        self._close_unused()

    def retire(self) -> None:
        self._retired = True
        self._close_unused()

    def _close_unused(self) -> None:
        if not self._retired or self._calls:
            return
        # Under TLS, the channel ends the connection only when the peer has answered, and does not say when.
        # Nothing is being sent any more, so the socket is closed at once. grpclib has no other way to it.
        protocol = self.channel._protocol
        connection = None if protocol is None else protocol.processor.connection
        transport = getattr(connection, "_transport", None)
        self.channel.close()
        if transport is not None:
            transport.abort()


class _Call:
    """One call in progress.

    Attributes:
        name: The name of the method, such as `MemberList`.
        sent: Whether the request may have reached the member.
        code: The gRPC status of the call; "none" without a connection.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.sent = False
        self.code = "none"

    async def run(self, method: UnaryUnaryMethod[Q, A], request: Q, deadline: float) -> A:
        async with asyncio.timeout(deadline), method.open(timeout=deadline + _MEMBERS_MARGIN) as stream:
            # A member that is stopping accepts a connection and closes it. grpclib would use it all the same.
            protocol = await method.channel.__connect__()
            if protocol.processor.connection.is_closing():
                raise StreamTerminatedError("the new connection was closed")
            # This sends the headers only. Etcd executes nothing before the message arrives.
            await stream.send_request()
            self.sent = True
            await stream.send_message(request, end=True)
            answer = await stream.recv_message()
        if answer is None:
            raise ProtocolError("the answer is empty")
        self.code = Status.OK.name
        return answer


class MemberClient:
    """A client of one member. It implements `etcd.Etcd`.

    It connects for the first call, and again for the first call after a lost connection. After a call that
    timed out, the next call uses a new connection: a connection to a node that was lost does not report an
    error for minutes.

    Args:
        endpoint: The member's address and name.
        context: The TLS settings. None: plain text.
    """

    def __init__(self, endpoint: Endpoint, context: ssl.SSLContext | None = None) -> None:
        self.endpoint = endpoint
        self._context = context
        self._current: _Connection | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def close(self) -> None:
        """Closes the connection. Calls in progress and later ones fail with Unreachable."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        self._retire()

    async def member_list(self, *, linearizable: bool = True, deadline: float = DEADLINE) -> MemberList:
        """Returns the cluster's members."""
        request = pb.MemberListRequest(linearizable=linearizable)
        answer = await self._call(lambda c: c.cluster.MemberList, request, deadline)
        return _member_list(answer)

    async def member_add(
        self, peer_urls: Iterable[str], *, learner: bool = True, deadline: float = DEADLINE
    ) -> MemberList:
        """Adds a member, and returns the members after that."""
        request = pb.MemberAddRequest(peerURLs=peer_urls, isLearner=learner)
        answer = await self._call(lambda c: c.cluster.MemberAdd, request, deadline)
        return _member_list(answer)

    async def member_remove(self, member_id: int, *, deadline: float = DEADLINE) -> MemberList:
        """Removes a member, and returns the members after that."""
        request = pb.MemberRemoveRequest(ID=member_id)
        answer = await self._call(lambda c: c.cluster.MemberRemove, request, deadline)
        return _member_list(answer)

    async def member_promote(self, member_id: int, *, deadline: float = DEADLINE) -> MemberList:
        """Gives a learner a vote, and returns the members after that."""
        request = pb.MemberPromoteRequest(ID=member_id)
        answer = await self._call(lambda c: c.cluster.MemberPromote, request, deadline)
        return _member_list(answer)

    async def member_update(
        self, member_id: int, peer_urls: Iterable[str], *, deadline: float = DEADLINE
    ) -> MemberList:
        """Replaces a member's peer URLs, and returns the members after that."""
        request = pb.MemberUpdateRequest(ID=member_id, peerURLs=peer_urls)
        answer = await self._call(lambda c: c.cluster.MemberUpdate, request, deadline)
        return _member_list(answer)

    async def move_leader(self, target_id: int, *, deadline: float = DEADLINE) -> None:
        """Makes another voter the leader."""
        request = pb.MoveLeaderRequest(targetID=target_id)
        await self._call(lambda c: c.maintenance.MoveLeader, request, deadline)

    async def status(self, *, deadline: float = DEADLINE) -> MemberStatus:
        """Returns the member's own state."""
        answer = await self._call(lambda c: c.maintenance.Status, pb.StatusRequest(), deadline)
        return MemberStatus(
            version=answer.version,
            db_size=answer.dbSize,
            db_size_in_use=answer.dbSizeInUse,
            leader=answer.leader,
            raft_index=answer.raftIndex,
            raft_applied_index=answer.raftAppliedIndex,
            raft_term=answer.raftTerm,
            is_learner=answer.isLearner,
            errors=tuple(answer.errors),
            cluster_id=answer.header.cluster_id,
            member_id=answer.header.member_id,
            revision=answer.header.revision,
        )

    async def alarms(self, *, deadline: float = DEADLINE) -> tuple[Alarm, ...]:
        """Returns the cluster's alarms."""
        request = pb.AlarmRequest(action=pb.AlarmRequest.GET)
        answer = await self._call(lambda c: c.maintenance.Alarm, request, deadline)
        return tuple(
            Alarm(each.memberID, _ALARMS.get(each.alarm, AlarmType.UNKNOWN)) for each in answer.alarms
        )

    async def hash_kv(self, revision: int = 0, *, deadline: float = DEADLINE) -> HashKV:
        """Returns the hash of the member's key-value store."""
        answer = await self._call(
            lambda c: c.maintenance.HashKV, pb.HashKVRequest(revision=revision), deadline
        )
        return HashKV(
            hash=answer.hash,
            compact_revision=answer.compact_revision,
            revision=answer.header.revision,
            cluster_id=answer.header.cluster_id,
            member_id=answer.header.member_id,
            raft_term=answer.header.raft_term,
        )

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        """Returns a key, or None if it does not exist."""
        request = pb.RangeRequest(key=key, serializable=not linearizable)
        answer = await self._call(lambda c: c.kv.Range, request, deadline)
        for each in answer.kvs:
            return KeyValue(each.key, each.value, each.create_revision, each.mod_revision, each.version)
        return None

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        """Writes a key and returns the revision."""
        answer = await self._call(lambda c: c.kv.Put, pb.PutRequest(key=key, value=value), deadline)
        return answer.header.revision

    async def delete(self, key: bytes, *, deadline: float = DEADLINE) -> int:
        """Deletes a key and returns the number of deleted keys."""
        answer = await self._call(lambda c: c.kv.DeleteRange, pb.DeleteRangeRequest(key=key), deadline)
        return answer.deleted

    async def _call(
        self, method: Callable[[_Connection], UnaryUnaryMethod[Q, A]], request: Q, deadline: float
    ) -> A:
        """Makes a call once, and turns every failure into an error of `errors`."""
        if self._closed:
            raise Unreachable(f"{self._name} cannot be reached: {_CLOSED}", maybe_executed=False)
        if self._current is None:
            self._current = _Connection(self.endpoint, self._context)
        connection, loop = self._current, asyncio.get_running_loop()
        chosen = method(connection)
        call = _Call(chosen.name.rpartition("/")[2])
        started = loop.time()
        connection.enter()
        try:
            answer = await isolated(call.run(chosen, request, deadline), self._tasks)
            connection.answered = True
            return answer
        except GRPCError as error:
            connection.answered, call.code = True, error.status.name
            if error.status is Status.DEADLINE_EXCEEDED:
                raise self._late(call, connection, deadline) from None
            named = f"{self._name} refused {call.name}"
            raise refusal(named, call.code, error.message or "") from None
        except StreamTerminatedError:
            raise self._lost(call, connection) from None
        except TimeoutError:
            raise self._late(call, connection, deadline) from None
        except OSError as error:
            raise self._not_connected(call, error) from None
        except (DecodeError, ProtocolError, AssertionError, NotImplementedError) as error:
            raise Undecodable(
                f"the answer to {call.name} of {self._name} is not one of etcd: {error}"
            ) from None
        finally:
            connection.leave()
            _requests(call.name, call.code).inc()
            _seconds(call.name).observe(loop.time() - started)

    def _retire(self) -> None:
        if self._current is not None:
            self._current.retire()
            self._current = None

    @property
    def _name(self) -> str:
        return f"etcd at {self.endpoint.server_name} ({self.endpoint.host}:{self.endpoint.port})"

    def _late(self, call: _Call, connection: _Connection, deadline: float) -> EtcdError:
        call.code = Status.DEADLINE_EXCEEDED.name
        # Other calls may still use this connection, so it closes after the last of them.
        if connection is self._current:
            self._retire()
        return DeadlineExceeded(
            f"{self._name} did not answer {call.name} within {deadline:g} s", maybe_executed=call.sent
        )

    def _lost(self, call: _Call, connection: _Connection) -> EtcdError:
        """Returns the error for a connection that ended before the answer."""
        if self._closed:
            reason = _CLOSED
        elif connection.answered:
            reason = "the connection was lost"
        elif self._context:
            reason = f"it closed the new connection; {_UNTRUSTED}"
            return TlsFailed(f"{self._name} cannot be reached: {reason}", maybe_executed=call.sent)
        else:
            reason = "it closed the new connection; it may require TLS"
        return Unreachable(f"{self._name} cannot be reached: {reason}", maybe_executed=call.sent)

    def _not_connected(self, call: _Call, error: OSError) -> EtcdError:
        if isinstance(error, ssl.SSLError) and not call.sent:
            return TlsFailed(f"the TLS handshake with {self._name} failed: {_tls_reason(error)}")
        reason = os.strerror(error.errno).lower() if error.errno else "the connection was lost"
        refused = error.errno == errno.ECONNREFUSED
        message = f"{self._name} cannot be reached: {reason}"
        return Unreachable(message, maybe_executed=call.sent, refused=refused)


def _tls_reason(error: Exception) -> str:
    """Returns OpenSSL's reason without its codes and source lines. The same cause gives the same text."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message.rstrip(".")
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "it is not PEM").replace("_", " ").lower()
        return f"{reason}; {_UNTRUSTED}" if " alert " in reason else reason
    return str(error) or "the connection was lost"


def _member_list(answer: _MembersAnswer) -> MemberList:
    return MemberList(
        cluster_id=answer.header.cluster_id,
        member_id=answer.header.member_id,
        raft_term=answer.header.raft_term,
        members=tuple(
            Member(each.ID, each.name, tuple(each.peerURLs), tuple(each.clientURLs), each.isLearner)
            for each in answer.members
        ),
    )
