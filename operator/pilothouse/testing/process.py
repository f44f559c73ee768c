"""A process of the operator, and how it suffers the faults that befall its calls.

One that was killed stays dead: none of its calls, be it from a `finally`, has an effect any more.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from pilothouse.kube import Expired, Unreachable
from pilothouse.testing.faults import API_ERRORS, Errors, Fault, Faults, Injection, Killed, Site
from pilothouse.testing.freezing import Freezable

R = TypeVar("R")

#: After so long a caller gives up on an answer, and what was delayed arrives one second later, seconds.
TIMEOUT_SECONDS = 30.0
#: How long a leader is frozen, seconds: longer than a Lease lasts.
FROZEN_SECONDS = 60.0
#: How long a change takes at which the process is told to stop, seconds: longer than its syncs then may
#: (GRACEFUL_SHUTDOWN_TIMEOUT, 5), by less than a successor has to wait from then on (5 more).
OUTLASTING_SECONDS = 9.0

_EFFECT_FIRST = {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.ERROR_AFTER}


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

    def leads(self) -> bool:
        """Whether no other process holds the Lease, or all of the Leases."""
        leaders = self.faults.leaders()
        return not leaders or any(leader.startswith(self.holder) for leader in leaders)

    def _note_unless_leading(self, what: str) -> None:
        if not self.leads():
            leaders = self.faults.leaders()
            self.faults.broken.append(
                f"{what}: process {self.number} made this change while {' and '.join(leaders)} held the Lease"
            )

    async def call(
        self,
        what: str,
        effect: Callable[[], Awaitable[R]],
        *,
        writes: bool,
        errors: Errors = API_ERRORS,
        election: bool = False,
        outside: bool = False,
        threaded: bool = False,
        sent: bool = False,
    ) -> R:
        """Make a call, or suffer what is to befall it.

        Args:
            what: its words.
            effect: makes it.
            writes: whether it changes something.
            errors: how its client tells of faults.
            election: whether it is a call of the election.
            outside: whether it goes to an outside system.
            threaded: whether a thread waits for it, which no fence stops.
            sent: whether it was sent while the process led, however late it takes effect.

        Raises:
            Killed: the process is dead, be it since this call.
        """
        self.require_alive()
        site, injection = self.faults.count(
            what, writes=writes, errors=errors, process=self.number, election=election, outside=outside
        )
        if self.faults.endless:
            await asyncio.Event().wait()
        try:
            return await self._suffer(site, injection, effect, threaded, sent)
        finally:
            if injection is not None:
                self.faults.passed(injection)
            # Killed meanwhile, it never hears the answer.
            self.require_alive()

    async def _suffer(
        self,
        site: Site,
        injection: Injection | None,
        effect: Callable[[], Awaitable[R]],
        threaded: bool,
        sent: bool,
    ) -> R:
        fault = injection.fault if injection is not None else None
        if fault in _EFFECT_FIRST:
            await _ignoring_answer(lambda: self._take_effect(site, effect, sent))
        match fault:
            case Fault.KILLED_BEFORE | Fault.KILLED_AFTER:
                self.kill()
                raise Killed
            case Fault.TIMEOUT | Fault.LATE:
                if fault is Fault.LATE:
                    self.faults.later(lambda: self._arrive_late(site, effect), TIMEOUT_SECONDS + 1)
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise site.errors[Fault.REPLY_LOST]()
            case Fault.WATCH_CUT:
                self._cut(Unreachable("the connection was lost", maybe_sent=True))
            case Fault.WATCH_EXPIRED:
                self._forgotten = True
                self._cut(Unreachable("the connection was lost", maybe_sent=True))
            case Fault.TWO_LEADERS if threaded:
                # Nothing could stop what it has sent: it stands still while it waits for the answer.
                try:
                    return await self._take_effect(site, effect, sent)
                finally:
                    await self._freeze()
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
        return await self._take_effect(site, effect, sent)

    async def _take_effect(self, site: Site, effect: Callable[[], Awaitable[R]], sent: bool) -> R:
        self.require_alive()
        return await self._land(site, effect, sent=sent)

    async def _land(self, site: Site, effect: Callable[[], Awaitable[R]], *, sent: bool = False) -> R:
        """Take effect, be the process at its end or not."""
        if site.writes and not site.election and not sent:
            self._note_unless_leading(str(site))
        try:
            return await effect()
        finally:
            self.faults.landed(site)

    async def _arrive_late(self, site: Site, effect: Callable[[], Awaitable[object]]) -> None:
        """Take effect when nobody waits for the answer any more."""
        await _ignoring_answer(effect)
        self.faults.landed(site)

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
