"""The fence: nothing is changed by a process that may have ceased to lead.

A Lease alone does not keep a deposed leader's last request from arriving after its successor's first. So
every call that changes something, at the API server or outside, passes a fence: it may be under way only up
to a time on this machine's clock, which ends before anybody else can take the Lease. That clock goes on while
the machine is suspended: a laptop that wakes up finds its fence closed.

What was cut on its way may land all the same. The fence remembers when that was last: for a while from then
on the Lease must not be given up (controller/election.py).
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

from pilothouse.controller.outcome import SyncError
from pilothouse.controller.threads import to_thread
from pilothouse.kube import (
    Api,
    KubeObject,
    ObjectKey,
    Page,
    PatchType,
    Resource,
    Unreachable,
    WatchEvent,
    hide_contents,
    holds_secrets,
)
from pilothouse.telemetry.clock import boottime

R = TypeVar("R")
T = TypeVar("T", bound=KubeObject)


class Fenced(SyncError):
    """A change was not made, or was stopped on its way: another process may hold the Lease by now."""

    def __init__(self) -> None:
        super().__init__("nothing may be changed: the Lease is not safely held by this process")


class Fence:
    """Lets changes through until a set time.

    The clock is read before each step of a change (whenever it goes on after having waited), not only by a
    timer: an event loop that was stopped for a minute runs what is ready before it looks at its timers.

    What a change does in a thread cannot be stopped: it needs a time limit of its own, of a few seconds. What
    goes through `in_thread` is begun only while the fence is open, and known until it ends.

    Attributes:
        threads: The threads in which something runs that may be a change, open or not.
        last_cut: When (boottime) a change was last cut on its way, by whomever: it may land all the same.
            Minus infinity: none ever was.

    Args:
        until: The time (boottime) after which no change may be under way: infinite when there is no election,
            in the past when the process does not lead.
    """

    def __init__(self, until: float = math.inf) -> None:
        self._until = until
        self.threads: set[int] = set()
        self.last_cut = -math.inf
        self._changes: set[_Change[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def until(self) -> float:
        """The time (boottime) after which no change may be under way. A renewed Lease moves it on."""
        return self._until

    @until.setter
    def until(self, until: float) -> None:
        self._until = until
        self._watch_clock()

    @property
    def open(self) -> bool:
        """Whether a change would be let through now."""
        return boottime(asyncio.get_running_loop())() < self._until

    def close(self) -> None:
        """Lets nothing through from now on, and stops what is under way."""
        self.until = -math.inf

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change.

        Args:
            effect: Makes it. It is cancelled when the time is over. An error of its own is taken for an
                answer, but for an Unreachable that says otherwise.

        Raises:
            Fenced: The change was not begun, or was stopped; in that case it may have been made.
        """
        time = boottime(asyncio.get_running_loop())
        if time() >= self._until:
            raise Fenced
        change = _Change(self, effect(), time)
        self._changes.add(change)
        if self._timer is None:
            self._watch_clock()
        try:
            return await change
        except Unreachable as error:
            if error.maybe_sent:
                self.last_cut = time()
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            # Whoever cancels the task meanwhile wants it to end, not to hear about a fence.
            if change.stopped and not (task and task.cancelling()):
                raise Fenced from None
            raise
        finally:
            self._changes.discard(change)

    async def in_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        """Runs what blocks, and may change something, in a thread.

        Args:
            function: What blocks.
            arguments: What it is given.

        Raises:
            Fenced: It was not begun, or is not waited for any longer; in that case it still runs.
        """
        time = boottime(asyncio.get_running_loop())

        def run() -> R:
            # First known, then begun: whoever closes the fence and then looks for threads misses none.
            thread = threading.get_ident()
            self.threads.add(thread)
            try:
                if time() >= self._until:
                    raise Fenced
                return function(*arguments)
            finally:
                self.threads.discard(thread)

        return await self.guard(lambda: to_thread(run))

    def _watch_clock(self) -> None:
        """Stops what is under way once the time is over; one timer serves all."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if not self._changes or self._until == math.inf:
            return
        loop = asyncio.get_running_loop()
        now = boottime(loop)()
        if now < self._until:
            self._timer = loop.call_later(self._until - now, self._watch_clock)
            return
        # Noted at once, not when they wake: whoever closes the fence and then asks is told.
        self.last_cut = now
        for change in self._changes:
            change.stop()


class _Change(Generic[R]):
    """A change under way: drives its effect step by step."""

    def __init__(self, fence: Fence, effect: Awaitable[R], time: Callable[[], float]) -> None:
        self.stopped = False
        self._time = time
        self._fence = fence
        self._effect = effect
        self._waits_for: Any = None

    def stop(self) -> None:
        """Wakes the effect from what it waits for, as `Task.cancel` would; its next step does not happen."""
        self.stopped = True
        if self._waits_for is not None:
            self._waits_for.cancel()

    def __await__(self) -> Generator[Any, None, R]:
        steps = self._effect.__await__()
        time = self._time
        error: BaseException | None = None
        try:
            while True:
                if time() >= self._fence.until and not isinstance(error, GeneratorExit):
                    self.stopped = True
                    error = asyncio.CancelledError()
                if isinstance(error, asyncio.CancelledError):
                    self._fence.last_cut = time()
                self._waits_for = steps.send(None) if error is None else steps.throw(error)
                error = None
                try:
                    yield self._waits_for
                except BaseException as thrown:  # whatever comes is the effect's own
                    error = thrown
        except StopIteration as end:
            result: R = end.value
            return result


class FencedApi:
    """An `Api` whose changes pass a fence; reads do not.

    Args:
        api: Reaches the API server.
        fence: Lets changes through.
    """

    def __init__(self, api: Api, fence: Fence) -> None:
        self._api = api
        self._fence = fence

    def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> Coroutine[Any, Any, T]:
        """Reads one object."""
        return _hidden(resource, self._api.get(resource, key, subresource=subresource))

    def request(self, method: str, path: str, **options: Any) -> Coroutine[Any, Any, bytes]:
        """Sends any request; if it may change something, only where the fence allows."""
        if method == "GET":
            return self._api.request(method, path, **options)
        return self._fence.guard(lambda: self._api.request(method, path, **options))

    def pages(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[Page[T], None]:
        """Lists a collection."""
        return self._api.pages(resource, **selectors)

    def watch_list(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[WatchEvent[T], None]:
        """Lists a collection and yields what changes in it."""
        return self._api.watch_list(resource, **selectors)

    def watch(
        self, resource: Resource[T], *, resource_version: str, **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields what changes in a collection."""
        return self._api.watch(resource, resource_version=resource_version, **selectors)

    def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> Coroutine[Any, Any, T]:
        """Creates an object, if the fence allows."""
        hide_contents(resource, body)
        return self._fence.guard(lambda: self._api.create(resource, body, namespace=namespace))

    def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        **options: Any,
    ) -> Coroutine[Any, Any, T]:
        """Changes some fields of an object, if the fence allows; a dry run changes nothing."""
        hide_contents(resource, body)
        if options.get("dry_run"):
            return self._api.patch(resource, key, body, type=type, **options)
        return self._fence.guard(lambda: self._api.patch(resource, key, body, type=type, **options))

    def delete(self, resource: Resource[T], key: ObjectKey, **options: Any) -> Coroutine[Any, Any, None]:
        """Asks for an object's deletion, if the fence allows."""
        return self._fence.guard(lambda: self._api.delete(resource, key, **options))


def _hidden(resource: Resource[T], read: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Has the values of a Secret that is read hidden in every text about the object that is worked on."""
    return _read_secret(resource, read) if holds_secrets(resource) else read


async def _read_secret(resource: Resource[T], read: Coroutine[Any, Any, T]) -> T:
    obj = await read
    hide_contents(resource, obj)
    return obj
