"""Faults at the calls of an operator's process, to the API server and to outside systems.

Every call is counted; a fault strikes at the call with its number. A process that was killed stays dead: none
of its calls, be it from a `finally`, has an effect any more.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pilothouse.kube import Conflict, Expired, ServerError, TooManyRequests, Unreachable
from pilothouse.testing.freezing import Freezable

R = TypeVar("R")

#: After so long a caller gives up on an answer, and what was delayed arrives one second later, seconds.
TIMEOUT_SECONDS = 30.0
#: How long the cache is held back at most, seconds.
STALE_SECONDS = 60.0
#: How long a leader is frozen, seconds: longer than a Lease lasts.
FROZEN_SECONDS = 60.0
#: How long a change takes at which the process is told to stop, seconds: longer than its syncs then may
#: (GRACEFUL_SHUTDOWN_TIMEOUT, 5), by less than a successor has to wait from then on (5 more).
OUTLASTING_SECONDS = 9.0


class Fault(StrEnum):
    """What befalls one call."""

    KILLED_BEFORE = "process killed before"
    KILLED_AFTER = "process killed after"
    REPLY_LOST = "reply lost"
    CONFLICT = "conflict"
    THROTTLED = "429"
    ERROR_BEFORE = "500 before the effect"
    ERROR_AFTER = "500 after the effect"
    TIMEOUT = "timeout"
    LATE = "carried out after the timeout"
    WATCH_CUT = "watch cut"
    WATCH_EXPIRED = "watch cut, and its past forgotten"
    STALE = "cache stale"
    TWO_LEADERS = "two leaders at once"
    TERMINATED = "process told to stop"


#: What needs another process that stands by: in a run with one of these there is always an election.
WITH_STANDBY = {Fault.TWO_LEADERS, Fault.TERMINATED}

_EFFECT_FIRST = {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.ERROR_AFTER}
_ONLY_WRITES = {Fault.CONFLICT, Fault.LATE}
# What befalls the caches, whichever call it is.
_OF_CACHES = {Fault.WATCH_CUT, Fault.WATCH_EXPIRED, Fault.STALE}

Errors: TypeAlias = Mapping[Fault, Callable[[], Exception]]
"""How a client tells of a fault. One that is missing befalls none of its calls; REPLY_LOST also stands for
TIMEOUT and LATE."""

API_ERRORS: Errors = {
    Fault.REPLY_LOST: lambda: Unreachable("connection reset", maybe_sent=True),
    Fault.CONFLICT: lambda: Conflict(409, "Conflict", "the object has been modified"),
    Fault.THROTTLED: lambda: TooManyRequests(429, "TooManyRequests", "slow down", retry_after=3),
    Fault.ERROR_BEFORE: lambda: ServerError(500, "InternalError", "injected"),
    Fault.ERROR_AFTER: lambda: ServerError(500, "InternalError", "injected"),
}
"""How `pilothouse.kube.Client` tells of a fault."""

_TELLS = {Fault.TIMEOUT: Fault.REPLY_LOST, Fault.LATE: Fault.REPLY_LOST}


class Killed(BaseException):
    """The process is gone. Raised at the call at which it was killed, and at every later one."""


class Injection(NamedTuple):
    """A fault at a call.

    Attributes:
        at: the call's number, from 1.
        fault: what befalls it.
        behind: for STALE: how many events the caches are behind at that call.
        seen: for STALE: after how many events they are held back.
        election: whether it is a call of the election; they are counted apart.
    """

    at: int
    fault: Fault
    behind: int = 0
    seen: int = 0
    election: bool = False

    def __str__(self) -> str:
        behind = f" by {self.behind} events" if self.behind else ""
        return f"{self.fault}{behind} at call {self.at}{' of the election' if self.election else ''}"


@dataclass(frozen=True)
class Site:
    """A call as it was counted.

    Attributes:
        number: which call it was, from 1.
        what: its words: "patch flighttickets.flights.com/status default/my-ticket", "airline.book".
        writes: whether it changes something.
        errors: how its client tells of faults.
        events: how many watch events the caches had been told before it.
        process: which process made it, from 1.
        election: whether it is a call of the election, which nothing fences.
    """

    number: int
    what: str
    writes: bool
    errors: Errors = field(repr=False)
    events: int
    process: int
    election: bool = False

    def may_suffer(self, fault: Fault) -> bool:
        """Whether a fault can befall this call."""
        if fault in _ONLY_WRITES and not self.writes:
            return False
        if fault in _OF_CACHES and self.election:
            return False
        told = _TELLS.get(fault, fault)
        return told not in API_ERRORS or told in self.errors

    def __str__(self) -> str:
        return f"{self.number}. {self.what} (process {self.process})"


class Faults:
    """The faults of one run, and the calls that were counted in it.

    Attributes:
        sites: all calls so far, of all processes, but for those of their elections.
        elections: those; they are made by the clock, not by what the operator does.
        struck: the faults that have befallen a call.
        broken: what must not happen and did, in words.
        events: how many watch events the caches have been told.
        leaders: tells who holds the operator's Lease, or one of its Leases.
        start_rival: starts another process of the operator.

    Args:
        injections: what befalls which call.
    """

    def __init__(self, *injections: Injection) -> None:
        self.sites: list[Site] = []
        self.elections: list[Site] = []
        self.struck: set[Injection] = set()
        self.broken: list[str] = []
        self.events = 0
        self.leaders: Callable[[], Collection[str]] = list
        self.start_rival: Callable[[], None] = lambda: None
        self._injections = {(each.at, each.election): each for each in injections}
        self._held = [injection for injection in injections if injection.fault is Fault.STALE]
        self._passed: dict[Injection, asyncio.Event] = {each: asyncio.Event() for each in self._held}
        self._late: set[asyncio.Task[Any]] = set()

    def count(
        self, what: str, *, writes: bool, errors: Errors, process: int, election: bool = False
    ) -> tuple[Site, Injection | None]:
        """Count a call; return it with what befalls it."""
        sites = self.elections if election else self.sites
        number = len(sites) + 1
        site = Site(number, what, writes, errors, self.events, process, election)
        sites.append(site)
        injection = self._injections.get((number, election))
        if injection is None or not site.may_suffer(injection.fault):
            return site, None
        self.struck.add(injection)
        return site, injection

    def passed(self, injection: Injection) -> None:
        """The call is over: its cache may see again."""
        if injection in self._passed:
            self._passed[injection].set()

    async def tell_event(self) -> None:
        """Count an event that a watch is about to tell; wait while caches are held back."""
        self.events += 1
        for injection in self._held:
            passed = self._passed[injection]
            if not passed.is_set() and self.events > injection.seen:
                try:
                    async with asyncio.timeout(STALE_SECONDS):
                        await passed.wait()
                except TimeoutError:
                    passed.set()

    def later(self, effect: Callable[[], Awaitable[R]], seconds: float) -> "asyncio.Task[R]":
        """Let a request arrive after so many seconds, whether or not its caller still waits for it."""

        async def arrive() -> R:
            await asyncio.sleep(seconds)
            return await effect()

        # On its way, it belongs to no process any more.
        task = asyncio.get_running_loop().create_task(arrive(), context=contextvars.Context())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task


class Process:
    """A process of the operator, as its calls go through the faults.

    Attributes:
        number: which one, from 1.
        alive: whether it has not been killed.
        died: set when it is killed.
        stop: set when it is told to stop; hand it to the manager.
        holder: what the Lease says of its holder when it is this process: the beginning of it.
    """

    def __init__(self, faults: Faults, number: int = 1, holder: str = "") -> None:
        self.faults = faults
        self.number = number
        self.holder = holder
        self.died = asyncio.Event()
        self.stop = asyncio.Event()
        self.tasks = Freezable()
        self._streams: set[asyncio.Queue[object]] = set()
        self._forgotten = False

    @property
    def alive(self) -> bool:
        """Whether it has not been killed."""
        return not self.died.is_set()

    def kill(self) -> None:
        """End it: from now on nothing that it does has an effect."""
        self.died.set()
        self._cut(Killed())

    def terminate(self) -> None:
        """Tell it to stop, as SIGTERM does."""
        self.stop.set()

    def require_alive(self) -> None:
        """Raise Killed when it has been killed."""
        if not self.alive:
            raise Killed

    def require_leads(self, what: str) -> None:
        """Note that a change is broken which is made now, while other processes hold the Leases.

        Calls do it by themselves; a task in a thread, which cannot be made to wait for virtual time, calls it
        where it changes something.
        """
        self.require_alive()
        self._note_unless_leading(what)

    def _note_unless_leading(self, what: str) -> None:
        leaders = self.faults.leaders()
        if leaders and not any(leader.startswith(self.holder) for leader in leaders):
            self.faults.broken.append(f"{what} was made while {' and '.join(leaders)} held the Lease")

    async def call(
        self,
        what: str,
        effect: Callable[[], Awaitable[R]],
        *,
        writes: bool,
        errors: Errors = API_ERRORS,
        election: bool = False,
    ) -> R:
        """Make a call, or suffer what is to befall it.

        Args:
            what: its words.
            effect: makes it.
            writes: whether it changes something.
            errors: how its client tells of faults.
            election: whether it is a call of the election.

        Raises:
            Killed: the process is dead, be it since this call.
        """
        self.require_alive()
        site, injection = self.faults.count(
            what, writes=writes, errors=errors, process=self.number, election=election
        )
        try:
            return await self._suffer(site, injection, effect)
        finally:
            if injection is not None:
                self.faults.passed(injection)
            # Killed meanwhile, it never hears the answer.
            self.require_alive()

    async def _suffer(self, site: Site, injection: Injection | None, effect: Callable[[], Awaitable[R]]) -> R:
        fault = injection.fault if injection is not None else None
        if fault in _EFFECT_FIRST:
            await _ignoring_answer(lambda: self._take_effect(site, effect))
        match fault:
            case Fault.KILLED_BEFORE | Fault.KILLED_AFTER:
                self.kill()
                raise Killed
            case Fault.TIMEOUT | Fault.LATE:
                if fault is Fault.LATE:
                    self.faults.later(lambda: _ignoring_answer(effect), TIMEOUT_SECONDS + 1)
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise site.errors[Fault.REPLY_LOST]()
            case Fault.WATCH_CUT:
                self._cut(Unreachable("the connection was lost", maybe_sent=True))
            case Fault.WATCH_EXPIRED:
                self._forgotten = True
                self._cut(Unreachable("the connection was lost", maybe_sent=True))
            case Fault.TWO_LEADERS:
                await self._freeze()
            case Fault.TERMINATED:
                self.faults.start_rival()
                self.terminate()
                if site.writes:
                    # Sent: whoever gives up waiting for the answer does not call it back.
                    return await asyncio.shield(
                        self.faults.later(lambda: self._land(site, effect), OUTLASTING_SECONDS)
                    )
            case Fault.STALE | None:
                pass
            case _:
                raise site.errors[fault]()
        return await self._take_effect(site, effect)

    async def _take_effect(self, site: Site, effect: Callable[[], Awaitable[R]]) -> R:
        self.require_alive()
        return await self._land(site, effect)

    async def _land(self, site: Site, effect: Callable[[], Awaitable[R]]) -> R:
        """Take effect, be the process at its end or not."""
        if site.writes and not site.election:
            self._note_unless_leading(str(site))
        return await effect()

    async def _freeze(self) -> None:
        """Stand still, believing to lead, until somebody else does."""
        self.faults.start_rival()
        self.tasks.freeze()
        asyncio.get_running_loop().call_later(FROZEN_SECONDS, self.tasks.thaw)
        await asyncio.sleep(0)

    # For the watches of this process.

    def open_stream(self) -> "asyncio.Queue[object]":
        """Return where a watch reads its events from, so that it can be cut."""
        if self._forgotten:
            self._forgotten = False
            raise Expired(410, "Expired", "too old resource version")
        stream: asyncio.Queue[object] = asyncio.Queue()
        self._streams.add(stream)
        return stream

    def close_stream(self, stream: "asyncio.Queue[object]") -> None:
        """Forget a watch that has ended."""
        self._streams.discard(stream)

    def _cut(self, error: BaseException) -> None:
        for stream in self._streams:
            while not stream.empty():
                stream.get_nowait()
            stream.put_nowait(error)


async def _ignoring_answer(effect: Callable[[], Awaitable[object]]) -> None:
    """Make a call of whose answer nobody hears."""
    with suppress(Exception):
        await effect()
