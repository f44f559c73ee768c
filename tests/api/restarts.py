"""Restarts of the API server."""

import asyncio
from contextlib import aclosing
from functools import partial
from typing import Any

from pilothouse.kube import Client, Resource
from pilothouse.testing import ApiServer, eventually


async def start_again(api_server: ApiServer, client: Client, *kinds: Resource[Any]) -> None:
    """Starts an API server that was stopped, and waits until it serves lists and watches of the kinds.

    /readyz does not wait for the watch cache of a custom kind, which is built at the first request. Until
    then, watches are refused with 429 (storage is (re)initializing).
    """
    # On this thread: the kernel kills the server when the thread that has started it ends.
    api_server.start_api_server()
    await asyncio.to_thread(api_server.wait_ready)

    async def served(kind: Resource[Any]) -> bool:
        version = [page.resource_version async for page in client.pages(kind)][-1]
        async with aclosing(client.watch(kind, resource_version=version)) as events:
            await anext(events)  # A bookmark: the watch was accepted.
        return True

    for kind in kinds:
        await eventually(partial(served, kind), within=60)
