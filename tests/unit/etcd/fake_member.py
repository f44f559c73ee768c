"""A gRPC server with scripted answers in the place of an etcd member."""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from etcd_operator.etcd import Endpoint
from etcd_operator.rpc import rpc_pb2 as pb

NAME = "example-0.example.default.svc"
REQUESTS: dict[str, type[Message]] = {
    "KV/Range": pb.RangeRequest,
    "KV/Put": pb.PutRequest,
    "KV/DeleteRange": pb.DeleteRangeRequest,
    "Cluster/MemberList": pb.MemberListRequest,
    "Cluster/MemberAdd": pb.MemberAddRequest,
    "Cluster/MemberRemove": pb.MemberRemoveRequest,
    "Cluster/MemberPromote": pb.MemberPromoteRequest,
    "Cluster/MemberUpdate": pb.MemberUpdateRequest,
    "Maintenance/Alarm": pb.AlarmRequest,
    "Maintenance/Status": pb.StatusRequest,
    "Maintenance/HashKV": pb.HashKVRequest,
    "Maintenance/MoveLeader": pb.MoveLeaderRequest,
}
Answer = Message | GRPCError | Callable[[Any], Awaitable[Message]]


@dataclass
class Received:
    """A call that has arrived.

    Attributes:
        method: The name, such as `MemberList`.
        request: The message.
        deadline: The seconds that the client gives it. None: it sent no deadline.
        peer: The client's address and port, which identify the connection.
    """

    method: str
    request: Any
    deadline: float | None
    peer: tuple[str, int]


class FakeMember:
    """Answers each call with the next scripted answer of its method, and repeats the last one."""

    def __init__(self) -> None:
        self.calls: list[Received] = []
        self.port = 0
        self._answers: dict[str, deque[Answer]] = {}
        self._server: Server | None = None
        self._transports: set[asyncio.Transport] = set()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", NAME, self.port)

    @property
    def connections(self) -> int:
        """The number of connections over which calls have arrived."""
        return len({call.peer for call in self.calls})

    def will(self, method: str, *answers: Answer) -> None:
        """Sets the answers of a method: messages, errors, or functions of the request."""
        self._answers[method] = deque(answers)

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Starts to listen, from the second time on at the same port."""
        if context is not None:
            context.set_alpn_protocols(["h2"])
        self._server = Server([self])
        await self._server.start("127.0.0.1", self.port, ssl=context)
        [listening] = self._server._server.sockets  # type: ignore[union-attr]
        self.port = listening.getsockname()[1]

    async def stop(self) -> None:
        """Stops to listen and breaks all connections, like a member that is killed."""
        if self._server is not None:
            self._server.close()
            for each in self._transports:
                each.abort()
            await self._server.wait_closed()
            self._server = None

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"/etcdserverpb.{path}": Handler(
                self._handler(path.partition("/")[2]), Cardinality.UNARY_UNARY, request, Message
            )
            for path, request in REQUESTS.items()
        }

    def _handler(self, method: str) -> Callable[[Stream[Any, Any]], Awaitable[None]]:
        async def handle(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            assert stream.peer is not None
            self._transports.add(stream.peer._transport)
            peer = stream.peer.addr()
            assert peer is not None
            deadline = stream.deadline.time_remaining() if stream.deadline else None
            self.calls.append(Received(method, request, deadline, peer))
            answers = self._answers[method]
            answer = answers.popleft() if len(answers) > 1 else answers[0]
            if isinstance(answer, GRPCError):
                raise answer
            await stream.send_message(answer if isinstance(answer, Message) else await answer(request))

        return handle


class Held:
    """An answer that is sent once `release` is set. `arrived` is set when a call waits for it."""

    def __init__(self, answer: Message) -> None:
        self.answer = answer
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()

    async def __call__(self, request: object) -> Message:
        self.arrived.set()
        await self.release.wait()
        return self.answer


def refuse(status: Status, message: str) -> GRPCError:
    """Returns the answer of a member that refuses a call."""
    return GRPCError(status, f"etcdserver: {message}")
