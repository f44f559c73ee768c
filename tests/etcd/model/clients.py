"""Clients of a Service: one for tests of their own pace, and one that writes all the time in a scenario."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from etcd_operator import errors
from etcd_operator.etcd import DEADLINE, Endpoint, KeyValue
from pilothouse.kube import Resource
from pilothouse.testing.controllers import Built, StandIn
from pilothouse.testing.controllers.cluster import Cluster
from tests.etcd.model.client import ModelMember
from tests.etcd.model.endpoints import SERVICE
from tests.etcd.model.members import Members
from tests.etcd.writer import ATTEMPT_SECONDS, ATTEMPTS, PAUSES, WRITE_SECONDS

if TYPE_CHECKING:
    from tests.etcd.model.world import EtcdWorld


class ServiceClient:
    """A client of a Service: it keeps its connection to one member while that works.

    Args:
        members: The model of etcd.
        name: The name of the Service.
        addresses: Returns the addresses of the endpoints that are ready.
    """

    def __init__(self, members: Members, name: str, addresses: Callable[[], Iterable[str]]) -> None:
        self._members = members
        self._name = name
        self._addresses = addresses
        self._connected = ""
        self._tried = 0

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        """Returns a key, or None if it does not exist."""
        member = self._member()
        try:
            return await member.get(key, linearizable=linearizable, deadline=deadline)
        except errors.EtcdError:
            self._connected = ""
            raise

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        """Writes a key and returns the revision."""
        member = self._member()
        try:
            return await member.put(key, value, deadline=deadline)
        except errors.EtcdError:
            self._connected = ""
            raise

    def _member(self) -> ModelMember:
        """Returns the member of the connection, after a failure another one."""
        if not self._connected:
            ready = list(self._addresses())
            if not ready:
                raise errors.Unreachable(f"{self._name} has no endpoints", maybe_executed=False)
            self._tried += 1
            self._connected = ready[self._tried % len(ready)]
        return ModelMember(self._members, Endpoint(self._connected, self._name))


class SteadyWriter(StandIn):
    """Writes through a Service from its first acknowledged write until the Service is gone.

    A write has the attempts and deadlines of `tests.etcd.writer`.

    Attributes:
        failed: The number of writes that failed although an earlier one was acknowledged.

    Args:
        world: The world.
        service: The name of the Service.
        pause: The seconds between two writes.
    """

    kinds = (SERVICE,)

    def __init__(self, world: EtcdWorld, service: str, pause: float = 0.5) -> None:
        self.failed = 0
        self._client = world.client(service)
        self._service = service
        self._pause = pause
        self._written = 0

    def concerned(self, resource: Resource[Built], obj: Built, cluster: Cluster) -> Any:
        """Yields the Service to write through."""
        if obj.metadata.name == self._service:
            yield obj.key

    async def sync(self, cluster: Cluster, obj: Built) -> float | None:
        """Writes once."""
        if await self._write():
            self._written += 1
        elif self._written:
            self.failed += 1
        return self._pause

    async def _write(self) -> bool:
        loop = asyncio.get_running_loop()
        ends = loop.time() + WRITE_SECONDS
        for attempt, pause in enumerate((*PAUSES, 0.0), 1):
            left = ends - loop.time()
            if left <= 0:
                break
            seconds = left if attempt == ATTEMPTS else min(left, ATTEMPT_SECONDS)
            try:
                await self._client.put(b"steady", str(self._written).encode(), deadline=seconds)
            except errors.EtcdError:
                await asyncio.sleep(pause)
            else:
                return True
        return False
