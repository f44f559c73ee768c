"""Waiting for what must come true, with a deadline and an explanation."""

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from pilothouse.kube import Client, KubeError, Resource

R = TypeVar("R")


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
            `objects(client, resource, namespace)`.
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


def objects(client: Client, resource: Resource[Any], namespace: str = "") -> Callable[[], Awaitable[str]]:
    """Return a description for `eventually`: all objects of a kind as the server has them, as JSON."""

    async def describe() -> str:
        answer = json.loads(await client.request("GET", resource.path(namespace)))
        for each in answer.get("items", ()):
            each["metadata"].pop("managedFields", None)
        return f"{resource} in {namespace or 'all namespaces'}: " + json.dumps(answer.get("items"), indent=1)

    return describe
