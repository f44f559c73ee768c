"""An operator in this process, for a while."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pilothouse.process import Manager


@asynccontextmanager
async def running(manager: Manager, *, within: float = 10) -> AsyncIterator[None]:
    """Runs it for as long as the block lasts, and then lets it stop gracefully.

    Args:
        manager: Of the operator.
        within: Seconds that the stop may take.
    """
    stop = asyncio.Event()
    process = asyncio.create_task(manager.run(stop))
    try:
        yield
        assert not process.done(), process
    finally:
        stop.set()
        async with asyncio.timeout(within):
            await process
