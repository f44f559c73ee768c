"""A process of the operator, with faults at its calls.

A killed process stays dead: its later calls have no effect, even those from a `finally` block.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from pilothouse.kube import Expired, Unreachable
from pilothouse.testing.faults import API_ERRORS, Errors, Fault, Faults, Injection, Killed, Site
from pilothouse.testing.freezing import Freezable

R = TypeVar("R")

#: Seconds after which a client gives up waiting for a reply. A late call is carried out one second after
#: that.
TIMEOUT_SECONDS = 30.0
#: Seconds for which a leader is frozen: longer than the duration of a Lease.
FROZEN_SECONDS = 60.0
#: Seconds that a change takes during which the process is asked to stop: longer than its reconciles then may
#: take (GRACEFUL_SHUTDOWN_TIMEOUT, 5), by less than a successor has to wait from then on (5 more).
OUTLASTING_SECONDS = 9.0

_EFFECT_FIRST = {Fault.KILLED_AFTER, Fault.REPLY_LOST, Fault.ERROR_AFTER}


class Process:
    """A process of the operator, with faults at its calls.

    Attributes:
        number: The number of the process, from 1.
        alive: Whether the process has not been killed.
        died: Set when the process is killed.
        stop: Set when the process is asked to stop. Pass it to the manager.
        holder: The prefix of the Lease's holder identity when this process is the holder.
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
        """Whether the process has not been killed."""
        return not self.died.is_set()

    def kill(self) -> None:
        """Kills the process: from now on nothing that it does has an effect."""
        self.died.set()
        self._cut(Killed())

    def terminate(self) -> None:
        """Asks the process to stop, as SIGTERM does."""
        self.stop.set()

    def require_alive(self) -> None:
        """Raises Killed if the process has been killed."""
        if not self.alive:
            raise Killed

    def leads(self) -> bool:
        """Returns whether this process holds the Lease (or one of the Leases), or no process does."""
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
        """Makes a call, and injects the fault for it, if there is one.

        Args:
            what: A description of the call.
            effect: Makes the call.
            writes: Whether the call changes something.
            errors: The exceptions with which its client reports faults.
            election: Whether it is a call of the leader election.
            outside: Whether the call goes to an outside system.
            threaded: Whether a thread waits for the call. The fence cannot stop a thread.
            sent: Whether the call was sent while the process was the leader, even if it takes effect later.

        Raises:
            Killed: The process was killed, before or during this call.
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
            # A process that was killed during the call does not get the reply.
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
            await _ignoring_reply(lambda: self._take_effect(site, effect, sent))
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
                # The thread has already sent its request: it freezes while it waits for the reply.
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
                    # The request is sent: a caller that gives up waiting for the reply does not undo it.
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
        """Carries a call out, whether or not the process is still alive."""
        if site.writes and not site.election and not sent:
            self._note_unless_leading(str(site))
        try:
            return await effect()
        finally:
            self.faults.landed(site)

    async def _arrive_late(self, site: Site, effect: Callable[[], Awaitable[object]]) -> None:
        """Carries a call out after its caller has given up waiting."""
        await _ignoring_reply(effect)
        self.faults.landed(site)

    async def _freeze(self) -> None:
        """Freezes the process, which still considers itself the leader, and starts another one."""
        self.faults.start_rival()
        self.tasks.freeze()
        asyncio.get_running_loop().call_later(FROZEN_SECONDS, self.tasks.thaw)
        await asyncio.sleep(0)

    # For the watches of this process.

    def open_stream(self) -> "asyncio.Queue[object]":
        """Returns a queue from which a watch reads its events, so that the watch can be cut."""
        if self._forgotten:
            self._forgotten = False
            raise Expired(410, "Expired", "too old resource version")
        stream: asyncio.Queue[object] = asyncio.Queue()
        self._streams.add(stream)
        return stream

    def close_stream(self, stream: "asyncio.Queue[object]") -> None:
        """Forgets the queue of a watch that has ended."""
        self._streams.discard(stream)

    def _cut(self, error: BaseException) -> None:
        for stream in self._streams:
            while not stream.empty():
                stream.get_nowait()
            stream.put_nowait(error)


async def _ignoring_reply(effect: Callable[[], Awaitable[object]]) -> None:
    """Makes a call and ignores its result and its error."""
    with suppress(Exception):
        await effect()
