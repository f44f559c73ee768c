"""Two clients that write and read at a fixed rate, whether or not the cluster answers.

A write has at most three attempts within 5 s, like those of a client with the usual retry. Each attempt has
a value of its own, so that a late effect of an earlier attempt is recognized. Half of the writes go to keys
that are written once. The other half, and all reads, go to a few keys that both clients share.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from etcd_operator.errors import EtcdError
from etcd_operator.etcd import DEADLINE, KeyValue
from tests.etcd.history import WRITES_PER_SECOND, Begin, End, Entry, Kind, Operation, Outcome

CLIENTS = 2
#: Seconds: for all attempts of a write, for one of them unless it is the last, and between two of them.
WRITE_SECONDS = 5.0
ATTEMPT_SECONDS = 1.5
PAUSES = (0.1, 0.5)
ATTEMPTS = 1 + len(PAUSES)
#: Of five operations in a row, the last is a read.
_CYCLE = 5
# During an outage of some seconds, many calls on a shared key are open. With fewer keys, the search for their
# order would take too long.
_SHARED_KEYS = 20


class Calls(Protocol):
    """The calls of `etcd_operator.etcd.Etcd` that the writer makes."""

    async def get(
        self, key: bytes, *, linearizable: bool = True, deadline: float = DEADLINE
    ) -> KeyValue | None:
        """Returns a key, or None if it does not exist."""

    async def put(self, key: bytes, value: bytes, *, deadline: float = DEADLINE) -> int:
        """Writes a key and returns the revision."""


@dataclass(frozen=True)
class Load:
    """What a writer does.

    Attributes:
        prefix: The first part of all keys. Another run on the same cluster needs another one.
        rate: Writes per second of all clients together. The default leaves a margin above the least rate.
        stall: Seconds without an acknowledged write after which the writer gives up.
    """

    prefix: str
    rate: float = WRITES_PER_SECOND * 1.04
    stall: float = 60.0

    @property
    def interval(self) -> float:
        """The seconds between two operations of one client."""
        return CLIENTS / (self.rate * _CYCLE / (_CYCLE - 1))

    def operation(self, client: int, number: int) -> tuple[Kind, str]:
        """Returns what an operation of a client does, and its key."""
        shared = f"{self.prefix}/shared/{number // _CYCLE % _SHARED_KEYS}"
        if number % _CYCLE == _CYCLE - 1:
            return Kind.READ, shared
        return Kind.WRITE, shared if number % 2 else f"{self.prefix}/own/{client}/{number}"


class Writer:
    """Runs the clients and records every call."""

    def __init__(self, load: Load, clients: Sequence[Calls], record: Callable[[Entry], object]) -> None:
        """Takes what the writer needs.

        Args:
            load: What to do.
            clients: `CLIENTS` clients, with a connection each.
            record: Receives the entries of the history.
        """
        if len(clients) != CLIENTS:
            raise ValueError(f"The writer needs {CLIENTS} clients, but there are {len(clients)}.")
        self._load = load
        self._clients = clients
        self._record = record
        self._acknowledged = 0.0  # When a write was acknowledged last.

    async def run(self, stop: asyncio.Event) -> str:
        """Writes until `stop` is set or the cluster stalls, and then waits for the open calls.

        Returns:
            Why it gave up. Empty: it was stopped.
        """
        begin = Begin(_now(), round(self._load.interval * 1e9), CLIENTS)
        self._record(begin)
        self._acknowledged = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for client in range(CLIENTS):
                group.create_task(self._drive(begin, client, stop))
            problem = await self._stalled(stop)
            ended = _now()
            stop.set()
        self._record(End(ended, problem))
        return problem

    async def _stalled(self, stop: asyncio.Event) -> str:
        """Waits until `stop` is set, and returns "", or until no write was acknowledged for too long."""
        loop = asyncio.get_running_loop()
        while self._acknowledged + self._load.stall > loop.time():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._acknowledged + self._load.stall):
                    await stop.wait()
                return ""
        return f"No write was acknowledged for {self._load.stall:g} s."

    async def _drive(self, begin: Begin, client: int, stop: asyncio.Event) -> None:
        """Starts the operations of a client when they are due, also while earlier ones are open."""
        async with asyncio.TaskGroup() as group:
            for number in count():
                try:
                    async with asyncio.timeout_at(begin.due(client, number) / 1e9):
                        await stop.wait()
                    return
                except TimeoutError:
                    kind, key = self._load.operation(client, number)
                    call = self._read if kind is Kind.READ else self._write
                    group.create_task(call(client, number, key))

    async def _read(self, client: int, number: int, key: str) -> None:
        called = _now()
        try:
            found = await self._clients[client].get(key.encode(), linearizable=True, deadline=WRITE_SECONDS)
        except EtcdError as error:
            outcome, text, value = Outcome.FAILED, _text(error), None
        else:
            outcome, text, value = Outcome.OK, "", found.value.decode() if found else None
        self._record(Operation(client, number, Kind.READ, key, called, _now(), outcome, value, error=text))

    async def _write(self, client: int, number: int, key: str) -> None:
        deadline = asyncio.get_running_loop().time() + WRITE_SECONDS
        for attempt, pause in enumerate((*PAUSES, 0.0), 1):
            left = deadline - asyncio.get_running_loop().time()
            seconds = left if attempt == ATTEMPTS else min(left, ATTEMPT_SECONDS)
            if left <= 0 or await self._attempt(client, number, key, attempt, seconds):
                return
            await asyncio.sleep(pause)

    async def _attempt(self, client: int, number: int, key: str, attempt: int, seconds: float) -> bool:
        """Makes one attempt of a write, and returns whether it was acknowledged."""
        called = _now()
        value = f"{client}/{number}/{attempt}"
        revision, text, outcome = 0, "", Outcome.OK
        try:
            revision = await self._clients[client].put(key.encode(), value.encode(), deadline=seconds)
        except EtcdError as error:
            text = _text(error)
            outcome = Outcome.UNKNOWN if error.maybe_executed else Outcome.FAILED
        else:
            self._acknowledged = asyncio.get_running_loop().time()
        self._record(
            Operation(
                client, number, Kind.WRITE, key, called, _now(), outcome, value, revision, attempt, text
            )
        )
        return outcome is Outcome.OK


def _now() -> int:
    return round(asyncio.get_running_loop().time() * 1e9)


def _text(error: EtcdError) -> str:
    return f"{type(error).__name__}: {error}"
