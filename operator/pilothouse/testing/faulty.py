"""What a process under faults calls: the API server, and outside systems."""

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
    """The calls of one process to the API server, real or a model. Those of its election are counted apart.

    Args:
        api: the API server.
        process: whose calls they are.
        streams_lists: whether the server streams its lists, as it does by default since 1.34.
    """

    def __init__(self, api: Api, process: Process, *, streams_lists: bool = True) -> None:
        self._api = api
        self._process = process
        self._streams_lists = streams_lists

    async def get(self, resource: Resource[T], key: ObjectKey, *, subresource: str = "") -> T:
        """Return an object."""
        effect = lambda: self._api.get(resource, key, subresource=subresource)  # noqa: E731
        return await self._call("get", resource, key, effect, subresource)

    async def request(self, method: str, path: str, **options: Any) -> bytes:
        """Send any request."""
        effect = lambda: self._api.request(method, path, **options)  # noqa: E731
        return await self._process.call(f"{method} {path}", effect, writes=method != "GET")

    async def create(self, resource: Resource[T], body: object, *, namespace: str = "") -> T:
        """Create an object."""
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
        """Change some fields of an object."""

        def effect() -> Awaitable[T]:
            return self._api.patch(resource, key, body, type=type, subresource=subresource, **options)

        verb = "dry-run patch" if options.get("dry_run") else "patch"
        return await self._call(verb, resource, key, effect, subresource)

    async def delete(self, resource: Resource[T], key: ObjectKey, **options: Any) -> None:
        """Ask for an object's deletion."""
        await self._call("delete", resource, key, lambda: self._api.delete(resource, key, **options))

    async def pages(self, resource: Resource[T], **selectors: Any) -> AsyncGenerator[Page[T], None]:
        """List a collection."""

        async def all_pages() -> list[Page[T]]:
            return [page async for page in self._api.pages(resource, **selectors)]

        for page in await self._call("list", resource, None, all_pages):
            yield page

    async def watch_list(
        self, resource: Resource[T], **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield what is there, and then what changes: a call that comes to its end with the list.

        What befalls it strikes before anybody knows that all objects have been told.
        """
        if not self._streams_lists:
            raise WatchListUnsupported("this server lists in pages")
        stream = self._api.watch_list(resource, **selectors)
        async with aclosing(self._told(resource, stream, listed=False)) as told:
            async for event in told:
                yield event

    async def watch(
        self, resource: Resource[T], *, resource_version: str, **selectors: Any
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield what changes after a version."""
        await self._call("watch", resource, None, _nothing)
        stream = self._api.watch(resource, resource_version=resource_version, **selectors)
        async with aclosing(self._told(resource, stream, listed=True)) as told:
            async for event in told:
                yield event

    async def _told(
        self, resource: Resource[T], stream: AsyncGenerator[WatchEvent[T], None], *, listed: bool
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Yield the events of a stream until it ends or is cut."""
        process = self._process
        told = process.open_stream()
        pump = asyncio.get_running_loop().create_task(self._pump(resource, stream, told, listed))
        try:
            while True:
                each = await told.get()
                if isinstance(each, BaseException):
                    raise each
                if not isinstance(each, WatchEvent):
                    return
                yield each
        finally:
            process.close_stream(told)
            pump.cancel()
            await asyncio.wait([pump])

    async def _pump(
        self,
        resource: Resource[T],
        stream: AsyncGenerator[WatchEvent[T], None],
        told: "asyncio.Queue[object]",
        listed: bool,
    ) -> None:
        """Hands events over until the stream ends, or with its error; those of a list are no news."""
        end: object = None
        try:
            async with aclosing(stream):
                async for event in stream:
                    if event.type is EventType.END_OF_LIST:
                        await self._call("watch-list", resource, None, _nothing)
                        listed = True
                    if listed and event.object is not None:
                        await self._process.faults.tell_event()
                    told.put_nowait(event)
        except (Exception, Killed) as error:
            end = error
        told.put_nowait(end)

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
    """An outside system's client, or a model of it, as one process calls it: every method is a call.

    On the loop it is awaited. In a thread, where a blocking client is called, it blocks until the answer is
    there; it is counted and struck like any other, and once the process is dead it has no effect.

    It is made on the process's loop.

    Args:
        model: what is called; shared by all processes. Its methods run on the loop, and must not block.
        process: whose calls they are.
        reads: the names of the methods that change nothing. All other methods are changes.
        errors: functions that make the client's exceptions, by the fault that they report. The keys are those
            of `API_ERRORS`.

    Raises:
        TypeError: `reads` is not a collection of names, or `errors` does not hold functions that make
            exceptions.
        ValueError: `reads` names something that is not a method of the model, or `errors` has a key that is
            not a fault that a client can report. The message gives the most similar name.
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
    """Return the public methods of a model, and those asked for that it makes up when they are called."""
    own = {**vars(type(model)), **getattr(model, "__dict__", {})}
    inherited = [name for base in type(model).__mro__[1:] for name in vars(base)]
    public = {name for name in (*own, *inherited) if not name.startswith("_")}
    declared = {name for name in public if callable(getattr(type(model), name, own.get(name)))}
    return declared | {name for name in map(str, asked) if callable(getattr(model, name, None))}


def _require_errors(where: str, errors: Errors) -> None:
    """Raise unless each key is a fault that a client can report, and each value makes an exception."""
    reported = {fault.name: fault for fault in API_ERRORS}
    for key, make in errors.items():
        if key not in API_ERRORS:
            name = key.name if isinstance(key, Fault) else str(key)
            raise ValueError(
                f"{where} has the key {name!r}, which is not a fault that a client reports. "
                f"{_errors_hint(name, list(reported))}"
            )
        error = make() if callable(make) else make
        if not callable(make) or not isinstance(error, Exception):
            raise TypeError(
                f"{where}: the value of Fault.{Fault(key).name} is {make!r}. "
                "Give a function without arguments that returns an exception."
            )


def _errors_hint(name: str, reported: Sequence[str]) -> str:
    if name in (Fault.TIMEOUT.name, Fault.LATE.name):
        return "The client reports it as 'REPLY_LOST'."
    if name in Fault.__members__:
        return f"No exception reports it. {suggestion('', reported)}"
    return suggestion(name.upper(), reported)


async def _nothing() -> None:
    """The stream itself is opened by whoever reads it."""
