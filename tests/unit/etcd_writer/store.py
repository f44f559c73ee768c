"""A model of one etcd member for the writer, with faults."""

from __future__ import annotations

import asyncio
from collections import Counter
from enum import Enum, auto

from etcd_operator.errors import DeadlineExceeded, EtcdError, NoLeader, Unreachable
from etcd_operator.etcd import DEADLINE, KeyValue

#: Seconds that a call takes.
LATENCY = 0.002


class Fault(Enum):
    """What happens to calls."""

    NONE = auto()
    #: There is no connection, which is noticed immediately.
    UNREACHABLE = auto()
    #: The member answers that there is no leader, and executes nothing.
    NO_LEADER = auto()
    #: The member executes nothing and does not answer.
    SILENT = auto()
    #: The member executes the call, and the answer is lost.
    LOST_ANSWER = auto()


class Store:
    """The keys of a member. All clients may share one."""

    def __init__(self) -> None:
        self.keys: dict[bytes, KeyValue] = {}
        self.revision = 1
        self.fault = Fault.NONE
        #: How many of the next calls the fault affects. 0: all.
        self.calls_left = 0
        self.counts: Counter[str] = Counter()

    def copy(self) -> Store:
        """Returns another member with the same keys."""
        other = Store()
        other.keys, other.revision = dict(self.keys), self.revision
        return other

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        assert linearizable
        self.counts["get"] += 1
        fault = await self._reach(deadline)
        if fault is Fault.LOST_ANSWER:
            await self._time_out(deadline)
        return self.keys.get(key)

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        self.counts["put"] += 1
        fault = await self._reach(deadline)
        self.write(key, value)
        revision = self.revision
        if fault is Fault.LOST_ANSWER:
            await self._time_out(deadline)
        return revision

    def write(self, key: bytes, value: bytes, *, late: bool = False) -> None:
        """Writes a key. A late write took place after the others instead of at its own time."""
        self.revision += 1
        before = self.keys.get(key)
        created, version = (before.create_revision, before.version) if before else (self.revision, 0)
        self.keys[key] = KeyValue(key, value, created, self.revision, version + (not late))

    async def _reach(self, seconds: float) -> Fault:
        """Fails if the call does not reach the store. Otherwise returns the fault that it has later."""
        fault = self.fault
        if self.calls_left:
            self.calls_left -= 1
            self.fault = self.fault if self.calls_left else Fault.NONE
        if fault is Fault.UNREACHABLE:
            raise Unreachable("connection refused", maybe_executed=False)
        await asyncio.sleep(LATENCY)
        if fault is Fault.NO_LEADER:
            raise NoLeader("no leader", code="UNAVAILABLE", message="etcdserver: no leader")
        if fault is Fault.SILENT:
            await self._time_out(seconds)
        return fault

    async def _time_out(self, seconds: float) -> None:
        await asyncio.sleep(seconds - LATENCY)
        raise DeadlineExceeded(f"no answer within {seconds:g} s", maybe_executed=True)


class Refusing(Store):
    """A member that refuses the first reads."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        self._times -= 1
        if self._times >= 0:
            raise EtcdError("not yet")
        return await super().get(key, linearizable=linearizable, deadline=deadline)
