"""The fence stops every change once this process may have lost its Lease.

A Lease alone does not prevent a deposed leader's last request from arriving after its successor's first. So
every call that changes something, at the API server or outside, passes a fence. The fence is open until a
point in time that lies before another process can take the Lease; a call that is still running then is
stopped. Its clock also counts the time in which the machine is suspended: when a laptop wakes up, its fence
is closed.

A request that was interrupted may still be carried out. The fence records when that last happened, and the
Lease is not released until some time after it (see controller/election.py).
"""

import asyncio
import math
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from pilothouse.controller.before_change import run_before_change
from pilothouse.controller.outcome import SyncError
from pilothouse.controller.threads import to_thread
from pilothouse.controller.written import APPLY, DELETE, PATCH, Written, noted
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
    is_secret_path,
)
from pilothouse.telemetry import hide
from pilothouse.telemetry.clock import boottime

R = TypeVar("R")
T = TypeVar("T", bound=KubeObject)


class Fenced(SyncError):
    """A change was not begun, or was interrupted, because another process may hold the Lease by now."""

    def __init__(self) -> None:
        super().__init__("Changes are stopped: this process may have lost its Lease.")


class Fence:
    """Allows changes until a point in time.

    The clock is read before each step of a change, that is, whenever the change resumes after an await. A
    timer alone is not enough: an event loop that was suspended for a minute runs the callbacks that are ready
    before it checks its timers.

    A change that runs in a thread cannot be stopped: it needs a time limit of its own, of a few seconds.
    `in_thread` begins a function only while the fence is open, and records its thread until it ends.

    Attributes:
        threads: The threads that may be making a change, even if the fence is closed by now.
        last_cut: When (boottime) a change was last interrupted, for any reason; it may still be carried out.
            Minus infinity if none was.

    Args:
        until: The time (boottime) after which no change may be running. Infinity without leader election, in
            the past while this process does not lead.
    """

    def __init__(self, until: float = math.inf) -> None:
        self._until = until
        self.threads: set[int] = set()
        self.last_cut = -math.inf
        self._changes: set[_Change[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def until(self) -> float:
        """The time (boottime) after which no change may be running. Each renewal of the Lease extends it."""
        return self._until

    @until.setter
    def until(self, until: float) -> None:
        self._until = until
        self._watch_clock()

    @property
    def open(self) -> bool:
        """Whether a change may begin now."""
        return boottime(asyncio.get_running_loop())() < self._until

    def close(self) -> None:
        """Refuses all changes from now on, and interrupts the running ones."""
        self.until = -math.inf

    async def guard(self, effect: Callable[[], Awaitable[R]]) -> R:
        """Makes a change, after the functions of `before_each_change`. If one of them fails, it is not made.

        Args:
            effect: Makes the change. It is cancelled when the fence closes. If it raises an error, it counts
                as answered, except for an Unreachable whose request may have been sent.

        Returns:
            What the effect returned.

        Raises:
            Fenced: The change was not begun, or was interrupted. An interrupted change may have been made.
        """
        time = boottime(asyncio.get_running_loop())
        if time() >= self._until:
            raise Fenced
        await run_before_change()
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
            # If the task itself is being cancelled, it must end with CancelledError rather than Fenced.
            if change.stopped and not (task and task.cancelling()):
                raise Fenced from None
            raise
        finally:
            self._changes.discard(change)

    async def in_thread(self, function: Callable[..., R], *arguments: Any) -> R:
        """Runs a blocking function, which may change something, in a thread.

        Args:
            function: The function.
            arguments: Its positional arguments.

        Returns:
            What the function returned.

        Raises:
            Fenced: The function was not begun, or it still runs and is no longer awaited.
        """
        time = boottime(asyncio.get_running_loop())

        def run() -> R:
            # Recorded before it begins, so that a caller that closes the fence and then reads `threads`
            # misses none.
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
        """Interrupts the running changes when the time is over. One timer serves all of them."""
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
        # Set here, not when the changes resume: a caller that closes the fence may read it immediately.
        self.last_cut = now
        for change in self._changes:
            change.stop()


class _Change(Generic[R]):
    """A running change: an awaitable that drives its effect step by step."""

    def __init__(self, fence: Fence, effect: Awaitable[R], time: Callable[[], float]) -> None:
        self.stopped = False
        self._time = time
        self._fence = fence
        self._effect = effect
        self._waits_for: Any = None

    def stop(self) -> None:
        """Interrupts what the effect awaits, as `Task.cancel` does. Its next step is not run."""
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
                except BaseException as thrown:  # passed on to the effect
                    error = thrown
        except StopIteration as end:
            result: R = end.value
            return result


class FencedApi:
    """An `Api` whose changes pass a fence. Reads do not.

    Args:
        api: The client of the API server.
        fence: The fence.
    """

    def __init__(self, api: Api, fence: Fence) -> None:
        self._api = api
        self._fence = fence

    def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> Coroutine[Any, Any, T]:
        """Reads one object."""
        return _hidden(resource, self._api.get(resource, key, subresource=subresource))

    def request(self, method: str, path: str, **options: Any) -> Coroutine[Any, Any, bytes]:
        """Sends a request. Requests other than GET pass the fence."""
        if method == "GET":
            request = self._api.request(method, path, **options)
            return _read_bytes(request) if is_secret_path(path) else request
        write = self._fence.guard(lambda: self._api.request(method, path, **options))
        return noted(write, Written(method, path, body=options.get("body")))

    def pages(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[Page[T], None]:
        """Lists a collection."""
        pages = self._api.pages(resource, **selectors)
        return _read_pages(resource, pages) if holds_secrets(resource) else pages

    def watch_list(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[WatchEvent[T], None]:
        """Lists a collection, then yields its changes."""
        return self._api.watch_list(resource, **selectors)

    def watch(
        self, resource: Resource[T], *, resource_version: str, **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the changes of a collection."""
        return self._api.watch(resource, resource_version=resource_version, **selectors)

    def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> Coroutine[Any, Any, T]:
        """Creates an object, if the fence is open."""
        hide_contents(resource, body)
        write = self._fence.guard(
            lambda: _hidden(resource, self._api.create(resource, body, namespace=namespace))
        )
        return noted(write, Written("create", resource, f"in {namespace or 'the cluster'}", body))

    def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        **options: Any,
    ) -> Coroutine[Any, Any, T]:
        """Patches an object, if the fence is open. A dry run changes nothing and does not pass the fence."""
        hide_contents(resource, body)
        if options.get("dry_run"):
            return _hidden(resource, self._api.patch(resource, key, body, type=type, **options))
        write = self._fence.guard(
            lambda: _hidden(resource, self._api.patch(resource, key, body, type=type, **options))
        )
        part = options.get("subresource", "")
        target = f"{resource}/{part}" if part else resource
        return noted(write, Written(APPLY if type is PatchType.APPLY else PATCH, target, key, body))

    def delete(self, resource: Resource[T], key: ObjectKey, **options: Any) -> Coroutine[Any, Any, None]:
        """Requests the deletion of an object, if the fence is open."""
        write = self._fence.guard(lambda: self._api.delete(resource, key, **options))
        return noted(write, Written(DELETE, resource, key))


def _hidden(resource: Resource[T], read: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
    """Returns an object as the API server sent it. The values of a Secret are then hidden."""
    return _read_secret(resource, read) if holds_secrets(resource) else read


async def _read_secret(resource: Resource[T], read: Coroutine[Any, Any, T]) -> T:
    obj = await read
    hide_contents(resource, obj)
    return obj


async def _read_pages(
    resource: Resource[T], pages: AsyncGenerator[Page[T], None]
) -> AsyncGenerator[Page[T], None]:
    async with aclosing(pages):
        async for page in pages:
            for obj in page.items:
                hide_contents(resource, obj)
            yield page


async def _read_bytes(read: Coroutine[Any, Any, bytes]) -> bytes:
    from pilothouse.kube.secret_values import values_of

    content = await read
    hide(lambda: values_of(content))
    return content
