"""Faults at the calls of an operator's processes to the API server and to outside systems.

Calls are counted, and a fault is injected at the call with a given number. `pilothouse.testing.process`
carries the fault out.
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

#: Maximum time for which events for the caches are delayed, in seconds.
STALE_SECONDS = 60.0


class Fault(StrEnum):
    """What goes wrong at one call."""

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
    WATCH_EXPIRED = "watch cut and history expired"
    STALE = "cache stale"
    TWO_LEADERS = "two leaders"
    TERMINATED = "process asked to stop"


#: The effect of each fault, for reports.
WORDS: Mapping[Fault, str] = {
    Fault.KILLED_BEFORE: "the process dies, and the call is not carried out",
    Fault.KILLED_AFTER: "the call is carried out, and the process dies before it gets the reply",
    Fault.REPLY_LOST: "the call is carried out, and the client gets an error instead of the reply",
    Fault.CONFLICT: "the call is refused, and not carried out",
    Fault.THROTTLED: "the call is refused, and not carried out",
    Fault.ERROR_BEFORE: "the call is not carried out",
    Fault.ERROR_AFTER: "the call is carried out, and the client gets an error instead of the reply",
    Fault.TIMEOUT: "there is no reply for 30 s, and the call is not carried out",
    Fault.LATE: "there is no reply for 30 s, and the call is carried out after the client has given up",
    Fault.WATCH_CUT: "all watches break",
    Fault.WATCH_EXPIRED: "all watches break, and must list again",
    Fault.STALE: "the caches do not have the last events yet",
    Fault.TWO_LEADERS: "the process freezes for a minute, and another one takes the Lease",
    Fault.TERMINATED: "the process is asked to stop during the call, and another one is on standby",
}

#: Faults that need a second process on standby. A run with one of them always has a leader election.
WITH_STANDBY = {Fault.TWO_LEADERS, Fault.TERMINATED}

_ONLY_WRITES = {Fault.CONFLICT, Fault.LATE}
# Faults of the caches, independent of the call.
_OF_CACHES = {Fault.WATCH_CUT, Fault.WATCH_EXPIRED, Fault.STALE}

Errors: TypeAlias = Mapping[Fault, Callable[[], Exception]]
"""Functions that make the exception with which a client reports a fault. A fault without an entry is not
injected at the client's calls. REPLY_LOST is also used for TIMEOUT and LATE."""

API_ERRORS: Errors = {
    Fault.REPLY_LOST: lambda: Unreachable("connection reset", maybe_sent=True),
    Fault.CONFLICT: lambda: Conflict(409, "Conflict", "the object has been modified"),
    Fault.THROTTLED: lambda: TooManyRequests(429, "TooManyRequests", "slow down", retry_after=3),
    Fault.ERROR_BEFORE: lambda: ServerError(500, "InternalError", "injected"),
    Fault.ERROR_AFTER: lambda: ServerError(500, "InternalError", "injected"),
}
"""The exceptions with which `pilothouse.kube.Client` reports faults."""

_REPORTED_AS = {Fault.TIMEOUT: Fault.REPLY_LOST, Fault.LATE: Fault.REPLY_LOST}


class Killed(BaseException):
    """The process is dead. Raised by the call at which it was killed, and by every later call."""


class Injection(NamedTuple):
    """A fault at a call.

    Attributes:
        at: The number of the call, from 1.
        fault: The fault.
        behind: For STALE: how many events the caches are behind at that call.
        seen: For STALE: the number of events after which the caches get no more.
        election: Whether it is a call of the leader election. These are counted separately.
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
    """A counted call.

    Attributes:
        number: The number of the call, from 1.
        what: A description: "patch flighttickets.flights.com/status default/my-ticket", "airline.book".
        task: The task that makes the call; empty outside of tasks.
        object: The object that is reconciled: "FlightTicket default/my-ticket"; empty outside of reconciles.
        writes: Whether the call changes something.
        errors: The exceptions with which its client reports faults.
        events: How many watch events the caches had received before the call.
        process: The number of the process that made the call, from 1.
        election: Whether it is a call of the leader election, to which the fence does not apply.
        outside: Whether the call goes to an outside system.
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
        """Returns whether a fault can be injected at this call."""
        if fault in _ONLY_WRITES and not self.writes:
            return False
        if fault in _OF_CACHES and self.election:
            return False
        reported = _REPORTED_AS.get(fault, fault)
        return reported not in API_ERRORS or reported in self.errors

    def __str__(self) -> str:
        by = f"task {self.task!r} of {self.object}" if self.task else self.object
        return f"call {self.number}: {self.what}{f' ({by})' if by else ''}"


class Faults:
    """The faults of one run, and the calls that were counted in it.

    Attributes:
        sites: All calls so far, of all processes, except those of leader elections.
        elections: The calls of leader elections. They depend on the clock, not on the work of the operator.
        struck: The faults that have been injected.
        broken: Descriptions of the forbidden changes that were made.
        events: How many watch events the caches have received.
        endless: Whether the operator makes calls endlessly. Each call then blocks, so that the run can be
            stopped.
        leaders: Returns the holders of the operator's Lease or Leases.
        start_rival: Starts another process of the operator.
        called: Called with each call and its fault before the call is made.
        landed: Called with each call that has taken effect.

    Args:
        injections: The faults to inject.
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
        """Counts a call, and returns it with the fault to inject, if there is one."""
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
        """Ends a fault after its call: stale caches receive events again."""
        if injection in self._passed:
            self._passed[injection].set()

    async def tell_event(self) -> None:
        """Counts an event before a watch delivers it, and waits while the caches are to be stale."""
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
        """Carries out a request after the given seconds, whether or not its caller still waits for it."""

        async def arrive() -> R:
            await asyncio.sleep(seconds)
            return await effect()

        # A request on its way does not belong to a process.
        task = asyncio.get_running_loop().create_task(arrive(), context=contextvars.Context())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task
