"""Waiting for what must come true, with a deadline and an explanation."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from pilothouse.controller.events import EVENT
from pilothouse.kube import Client, KubeError, Resource
from pilothouse.testing.documents import Json
from pilothouse.testing.model import ModelApi

R = TypeVar("R")

#: How much of a log is shown, characters.
LOG_LENGTH = 4000


@overload
async def eventually(
    condition: Callable[[], Awaitable[R]],
    *,
    within: float = ...,
    describe: Callable[[], Any] | None = ...,
    every: float = ...,
) -> R: ...


@overload
async def eventually(
    condition: Callable[[], R],
    *,
    within: float = ...,
    describe: Callable[[], Any] | None = ...,
    every: float = ...,
) -> R: ...


async def eventually(
    condition: Callable[[], Any],
    *,
    within: float = 10.0,
    describe: Callable[[], Any] | None = None,
    every: float = 0.02,
) -> Any:
    """Return the condition's value once it is true.

    Args:
        condition: called again and again; may be async. A KubeError or AssertionError from it means
            "not yet".
        within: seconds after which the test fails.
        describe: returns what explains a failure (may be async), such as
            `explain(client, resource, namespace=...)`.
        every: seconds between two looks.

    Raises:
        AssertionError: it did not come true; the message shows its last value or error, and the description.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    while True:
        try:
            last: Any = await _value(condition)
            if last:
                return last
        except (KubeError, AssertionError) as error:
            last = error
        if loop.time() >= ends:
            shown = await _value(describe) if describe is not None else ""
            text = shown if isinstance(shown, str) else repr(shown)
            raise AssertionError(f"not within {within} s; the condition's last value: {last!r}\n{text}")
        await asyncio.sleep(every)


async def _value(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value


def objects(
    api: Client | ModelApi, resource: Resource[Any], namespace: str = ""
) -> Callable[[], Awaitable[str]]:
    """Return a description for `eventually`: all objects of a kind as the server has them, as JSON."""

    async def describe() -> str:
        shown = json.dumps(await _all(api, resource, namespace), indent=1)
        return f"{resource} in {namespace or 'all namespaces'}: {shown}"

    return describe


def explain(
    api: Client | ModelApi,
    *resources: Resource[Any],
    namespace: str = "",
    log: Callable[[], str] | None = None,
) -> Callable[[], Awaitable[str]]:
    """Return a description for `eventually`: the objects of some kinds, all Events, and the end of a log.

    Args:
        api: where they are: the real API server or the model.
        resources: the kinds.
        namespace: where to look; empty for everywhere.
        log: returns the operator's log, where pytest does not capture it: of another process, for example.
    """

    async def describe() -> str:
        parts = [await objects(api, resource, namespace)() for resource in resources]
        parts += [_event_line(each) for each in await _all(api, EVENT, namespace)]
        if log is not None:
            parts.append(f"the log ends:\n{log()[-LOG_LENGTH:]}")
        return "\n".join(parts)

    return describe


async def _all(api: Client | ModelApi, resource: Resource[Any], namespace: str) -> list[Json]:
    if isinstance(api, ModelApi):
        found = [each for each in api.all(resource) if namespace in ("", each["metadata"].get("namespace"))]
    else:
        answer = json.loads(await api.request("GET", resource.path(namespace)))
        found = answer.get("items") or []
    return [{**each, "metadata": _without_fields(each["metadata"])} for each in found]


def _without_fields(metadata: Json) -> Json:
    return {name: value for name, value in metadata.items() if name != "managedFields"}


def _event_line(event: Json) -> str:
    about = event.get("regarding", {})
    times = event.get("series", {}).get("count", 1)
    return (
        f"{event.get('type')} {event.get('reason')} on {about.get('kind')} {about.get('namespace')}/"
        f"{about.get('name')}, {times} times: {event.get('note')}"
    )
