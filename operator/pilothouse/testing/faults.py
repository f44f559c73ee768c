"""Faults at the calls of an operator's processes, to the API server and to outside systems.

Every call is counted; a fault strikes at the call with its number. How a process suffers it is
`pilothouse.testing.process`.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pilothouse.kube import Conflict, ServerError, TooManyRequests, Unreachable
from pilothouse.playbook.tasks import RESULT
from pilothouse.telemetry import current_object

R = TypeVar("R")

#: How long the cache is held back at most, seconds.
STALE_SECONDS = 60.0


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


#: What each fault does to the call that it strikes.
WORDS: Mapping[Fault, str] = {
    Fault.KILLED_BEFORE: "the process dies, and the call is not carried out",
    Fault.KILLED_AFTER: "the call is carried out, and the process dies before it sees the answer",
    Fault.REPLY_LOST: "the call is carried out, and the client gets an error instead of the answer",
    Fault.CONFLICT: "the call is refused, and not carried out",
    Fault.THROTTLED: "the call is refused, and not carried out",
    Fault.ERROR_BEFORE: "the call is not carried out",
    Fault.ERROR_AFTER: "the call is carried out, and the client gets an error instead of the answer",
    Fault.TIMEOUT: "no answer for 30 s, and the call is not carried out",
    Fault.LATE: "no answer for 30 s, and the call is carried out after the client has given up",
    Fault.WATCH_CUT: "all watches break",
    Fault.WATCH_EXPIRED: "all watches break, and must list again",
    Fault.STALE: "the caches do not yet show the last events",
    Fault.TWO_LEADERS: "the process freezes for a minute, and another one takes the Lease",
    Fault.TERMINATED: "the process is asked to stop during the call, and another one stands by",
}

#: What needs another process that stands by: in a run with one of these there is always an election.
WITH_STANDBY = {Fault.TWO_LEADERS, Fault.TERMINATED}

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
        task: the task that makes it; empty outside of tasks.
        object: the object that is reconciled: "FlightTicket default/my-ticket"; empty outside of reconciles.
        writes: whether it changes something.
        errors: how its client tells of faults.
        events: how many watch events the caches had been told before it.
        process: which process made it, from 1.
        election: whether it is a call of the election, which nothing fences.
        outside: whether it goes to an outside system.
    """

    number: int
    what: str
    writes: bool
    errors: Errors = field(repr=False)
    events: int
    process: int
    election: bool = False
    outside: bool = False
    task: str = ""
    object: str = ""

    def may_suffer(self, fault: Fault) -> bool:
        """Whether a fault can befall this call."""
        if fault in _ONLY_WRITES and not self.writes:
            return False
        if fault in _OF_CACHES and self.election:
            return False
        told = _TELLS.get(fault, fault)
        return told not in API_ERRORS or told in self.errors

    def __str__(self) -> str:
        by = f"task {self.task!r} of {self.object}" if self.task else self.object
        return f"call {self.number}: {self.what}{f' ({by})' if by else ''}"


class Faults:
    """The faults of one run, and the calls that were counted in it.

    Attributes:
        sites: all calls so far, of all processes, but for those of their elections.
        elections: those; they are made by the clock, not by what the operator does.
        struck: the faults that have befallen a call.
        broken: what must not happen and did, in words.
        events: how many watch events the caches have been told.
        endless: whether calls go on without end: then each waits for ever, so that the run can be stopped.
        leaders: tells who holds the operator's Lease, or one of its Leases.
        start_rival: starts another process of the operator.
        called: takes each call, and what befalls it, before it is made.
        landed: takes each call that has taken effect.

    Args:
        injections: what befalls which call.
    """

    def __init__(self, *injections: Injection) -> None:
        self.sites: list[Site] = []
        self.elections: list[Site] = []
        self.struck: set[Injection] = set()
        self.broken: list[str] = []
        self.events = 0
        self.endless = False
        self.leaders: Callable[[], Collection[str]] = list
        self.start_rival: Callable[[], None] = lambda: None
        self.called: Callable[[Site, Injection | None], None] = lambda site, injection: None
        self.landed: Callable[[Site], None] = lambda site: None
        self._injections = {(each.at, each.election): each for each in injections}
        self._held = [injection for injection in injections if injection.fault is Fault.STALE]
        self._passed: dict[Injection, asyncio.Event] = {each: asyncio.Event() for each in self._held}
        self._late: set[asyncio.Task[Any]] = set()

    def count(
        self,
        what: str,
        *,
        writes: bool,
        errors: Errors,
        process: int,
        election: bool = False,
        outside: bool = False,
    ) -> tuple[Site, Injection | None]:
        """Count a call; return it with what befalls it."""
        sites = self.elections if election else self.sites
        number = len(sites) + 1
        result = RESULT.get(None)
        site = Site(
            number,
            what,
            writes,
            errors,
            self.events,
            process,
            election,
            outside,
            task=result.task if result else "",
            object=str(current_object() or ""),
        )
        sites.append(site)
        injection = self._injections.get((number, election))
        if injection is not None and not site.may_suffer(injection.fault):
            injection = None
        if injection is not None:
            self.struck.add(injection)
        self.called(site, injection)
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
