"""Waits for a condition with a deadline, and explains a failure."""

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

#: How much of a log is shown, in characters.
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
    """Waits until a condition is true, and returns its value.

    Args:
        condition: Called repeatedly. May be async. A KubeError or AssertionError means "not yet".
        within: Seconds after which the test fails.
        describe: Returns a text that explains a failure, such as `explain(client, resource, namespace=...)`.
            May be async.
        every: Seconds between two calls of the condition.

    Raises:
        AssertionError: The condition did not become true in time. The message contains its last value or
            error, and the text of `describe`.
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
            raise AssertionError(
                f"The condition is not true after {within:g} s. Its last value: {last!r}\n{text}"
            )
        await asyncio.sleep(every)


async def _value(function: Callable[[], Any]) -> Any:
    value = function()
    return await value if inspect.isawaitable(value) else value


def objects(
    api: Client | ModelApi, resource: Resource[Any], namespace: str = ""
) -> Callable[[], Awaitable[str]]:
    """Returns a function for `describe` of `eventually`: shows all objects of a kind as JSON."""

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
    """Returns a function for `describe` of `eventually`: shows objects, all Events, and the end of a log.

    Args:
        api: The real API server or the model.
        resources: The kinds of the objects.
        namespace: The namespace of the objects and Events; empty for all.
        log: Returns the log of the operator, if pytest does not capture it, for example of another process.
    """

    async def describe() -> str:
        parts = [await objects(api, resource, namespace)() for resource in resources]
        parts += [_event_line(each) for each in await _all(api, EVENT, namespace)]
        if log is not None:
            parts.append(f"The end of the log:\n{log()[-LOG_LENGTH:]}")
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
