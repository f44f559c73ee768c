"""The API server and outside systems as a process with faults calls them."""

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from pilothouse.kube import (
    Api,
    EventType,
    KubeObject,
    ObjectKey,
    Page,
    PatchType,
    Resource,
    WatchEvent,
    WatchListUnsupported,
)
from pilothouse.testing.faults import API_ERRORS, Errors, Fault, Killed
from pilothouse.testing.naming import require_known, suggestion
from pilothouse.testing.process import Process
from pilothouse.testing.threads import await_on

T = TypeVar("T", bound=KubeObject)
R = TypeVar("R")

LEASES = "leases.coordination.k8s.io"


class FaultyApi:
    """A client of the API server, real or a model, with faults. Leader elections are counted separately.

    Args:
        api: The client of the API server.
        process: The process that makes the calls.
        streams_lists: Whether the API server supports streaming lists, as it does by default since 1.34.
    """

    def __init__(self, api: Api, process: Process, *, streams_lists: bool = True) -> None:
        self._api = api
        self._process = process
        self._streams_lists = streams_lists

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Returns an object."""
        effect = lambda: self._api.get(resource, key, subresource=subresource)  # noqa: E731
        return await self._call("get", resource, key, effect, subresource)

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        """Sends any request."""
        effect = lambda: self._api.request(method, path, **options)  # noqa: E731
        return await self._process.call(f"{method} {path}", effect, writes=method != "GET")

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Creates an object."""
        key = ObjectKey(namespace, "")
        effect = lambda: self._api.create(resource, body, namespace=namespace)  # noqa: E731
        return await self._call("create", resource, key, effect)

    async def patch(
        self,
        resource: Resource[T],
        key: ObjectKey,
        body: object,
        *,
        type: PatchType,  # noqa: A002 - the client's own name
        subresource: str = "",
        **options: Any,
    ) -> T:
        """Patches an object."""

        def effect() -> Awaitable[T]:
            return self._api.patch(resource, key, body, type=type, subresource=subresource, **options)

        verb = "dry-run patch" if options.get("dry_run") else "patch"
        return await self._call(verb, resource, key, effect, subresource)

    async def delete(self, resource: Resource[T], key: ObjectKey, **options: Any) -> None:
        """Deletes an object."""
        await self._call("delete", resource, key, lambda: self._api.delete(resource, key, **options))

    async def pages(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[Page[T], None]:
        """Lists a collection."""

        async def all_pages() -> list[Page[T]]:
            return [page async for page in self._api.pages(resource, **selectors)]

        for page in await self._call("list", resource, None, all_pages):
            yield page

    async def watch_list(
        self, resource: Resource[T], **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the existing objects, and then the changes. The call ends with the list.

        A fault is injected before the end of the list is delivered.
        """
        if not self._streams_lists:
            raise WatchListUnsupported("this server lists in pages")
        stream = self._api.watch_list(resource, **selectors)
        async with aclosing(self._events(resource, stream, listed=False)) as events:
            async for event in events:
                yield event

    async def watch(
        self, resource: Resource[T], *, resource_version: str, **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the changes after a version."""
        await self._call("watch", resource, None, _nothing)
        stream = self._api.watch(resource, resource_version=resource_version, **selectors)
        async with aclosing(self._events(resource, stream, listed=True)) as events:
            async for event in events:
                yield event

    async def _events(
        self, resource: Resource[T], stream: AsyncGenerator[WatchEvent[T], None], *, listed: bool
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yields the events of a stream until it ends or is cut."""
        process = self._process
        queue = process.open_stream()
        pump = asyncio.get_running_loop().create_task(self._pump(resource, stream, queue, listed))
        try:
            while True:
                each = await queue.get()
                if isinstance(each, BaseException):
                    raise each
                if not isinstance(each, WatchEvent):
                    return
                yield each
        finally:
            process.close_stream(queue)
            pump.cancel()
            await asyncio.wait([pump])

    async def _pump(
        self,
        resource: Resource[T],
        stream: AsyncGenerator[WatchEvent[T], None],
        queue: "asyncio.Queue[object]",
        listed: bool,
    ) -> None:
        """Puts events into a queue until the stream ends or fails. Counts them, except those of a list."""
        end: object = None
        try:
            async with aclosing(stream):
                async for event in stream:
                    if event.type is EventType.END_OF_LIST:
                        await self._call("watch-list", resource, None, _nothing)
                        listed = True
                    if listed and event.object is not None:
                        await self._process.faults.tell_event()
                    queue.put_nowait(event)
        except (Exception, Killed) as error:
            end = error
        queue.put_nowait(end)

    async def _call(
        self,
        verb: str,
        resource: Resource[Any],
        key: ObjectKey | None,
        effect: Callable[[], Awaitable[R]],
        subresource: str = "",
    ) -> R:
        what = f"{verb} {resource}{'/' + subresource if subresource else ''} {key or ''}".rstrip()
        writes, election = verb in ("create", "patch", "delete"), str(resource) == LEASES
        return await self._process.call(what, effect, writes=writes, election=election)


class Outside:
    """The client of an outside system, or a model of it, with faults: each method call is a counted call.

    On the loop, await the methods. In a thread, where an operator calls a blocking client, a method blocks
    until it has the result. Faults are injected in threads as well, and calls of a dead process have no
    effect.

    Create it on the loop of the process.

    Args:
        model: The object that is called, shared by all processes. Its methods run on the loop and must not
            block.
        process: The process that makes the calls.
        reads: The names of the methods that change nothing. All other methods count as changes.
        errors: Functions that make the exceptions of the client, by the fault that they report. The keys are
            those of `API_ERRORS`.

    Raises:
        TypeError: `reads` is not a collection of names, or `errors` contains something other than functions
            that make exceptions.
        ValueError: `reads` contains a name that is not a method of the model, or `errors` has a key that is
            not a fault that a client can report. The message contains the most similar name.
    """

    def __init__(self, model: object, process: Process, *, reads: Collection[str], errors: Errors) -> None:
        kind = type(model).__name__
        require_known(f"Outside({kind}, reads=)", reads, _methods(model, reads), f"a method of {kind}")
        _require_errors(f"Outside({kind}, errors=)", errors)
        self._model = model
        self._process = process
        self._reads = reads
        self._errors = errors
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._model, name)
        if not callable(attribute):
            return attribute
        what = f"{type(self._model).__name__.lower()}.{name}"

        def call(*arguments: Any, **options: Any) -> Any:
            async def effect() -> Any:
                answer = attribute(*arguments, **options)
                return await answer if inspect.isawaitable(answer) else answer

            threaded = threading.get_ident() != self._thread
            made = self._process.call(
                what,
                effect,
                writes=name not in self._reads,
                errors=self._errors,
                outside=True,
                threaded=threaded,
                sent=threaded and self._process.leads(),
            )
            return await_on(self._loop, made) if threaded else made

        return call


def _methods(model: object, asked: Collection[str]) -> set[str]:
    """Returns the public methods of a model, and those of `asked` that it creates dynamically."""
    own = {**vars(type(model)), **getattr(model, "__dict__", {})}
    inherited = [name for base in type(model).__mro__[1:] for name in vars(base)]
    public = {name for name in (*own, *inherited) if not name.startswith("_")}
    declared = {name for name in public if callable(getattr(type(model), name, own.get(name)))}
    return declared | {name for name in map(str, asked) if callable(getattr(model, name, None))}


def _require_errors(where: str, errors: Errors) -> None:
    """Raises an error unless each key is a fault that a client reports, and each value makes an exception."""
    reported = {fault.name: fault for fault in API_ERRORS}
    for key, make in errors.items():
        if key not in API_ERRORS:
            name = f"Fault.{key.name}" if isinstance(key, Fault) else repr(key)
            raise ValueError(
                f"{where} has the key {name}, which is not a fault that a client reports. "
                f"{_errors_hint(key, list(reported))}"
            )
        error = make() if callable(make) else make
        if not callable(make) or not isinstance(error, Exception):
            raise TypeError(
                f"{where}: the value of Fault.{Fault(key).name} is {make!r}. "
                "Give a function without arguments that returns an exception."
            )


def _errors_hint(key: object, reported: Sequence[str]) -> str:
    name = key.name if isinstance(key, Fault) else str(key)
    if name in reported:
        return f"Write Fault.{name}."
    if name in (Fault.TIMEOUT.name, Fault.LATE.name):
        return "The client reports it as 'REPLY_LOST'."
    if name in Fault.__members__:
        return f"No exception reports it. {suggestion('', reported)}"
    return suggestion(name.upper(), reported)


async def _nothing() -> None:
    """Does nothing: the stream is opened when it is read."""
