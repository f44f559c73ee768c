"""Operators in this process, on the model of the API server under virtual time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.playbook import Watch, add_watch
from pilothouse.process import Manager, Settings
from pilothouse.testing import ModelApi


def manager_of(api: ModelApi, *watches: Watch, name: str = "tickets", **settings: Any) -> Manager:
    """Returns the manager of an operator. Its probes listen on a free port.

    Args:
        api: The model of the API server.
        watches: What the operator reconciles.
        name: The operator's name.
        settings: Fields of its `Settings`.
    """
    manager = Manager(name, Settings(health_host="127.0.0.1", health_port=0, **settings), api)
    for watch in watches:
        add_watch(manager, watch)
    return manager


@asynccontextmanager
async def operating(
    api: ModelApi, *watches: Watch, name: str = "tickets", **settings: Any
) -> AsyncIterator[Manager]:
    """Runs an operator within the block, from one second before it, and kills it at the end.

    Args:
        api: See `manager_of`.
        watches: See `manager_of`.
        name: See `manager_of`.
        settings: See `manager_of`.
    """
    manager = manager_of(api, *watches, name=name, **settings)
    process = asyncio.create_task(manager.run(asyncio.Event()))
    await asyncio.sleep(1)
    try:
        if process.done():
            process.result()
        yield manager
        assert not process.done(), process
    finally:
        process.cancel()
        await asyncio.gather(process, return_exceptions=True)
