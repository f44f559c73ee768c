"""Threads in which syncs run what blocks, and which may outlive them: nothing can stop a thread.

Whoever stops waiting for one (at a deadline, or at a closed fence) leaves it behind, still at work on its
key. The worker learns of it here.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

R = TypeVar("R")

# What the worker in whose sync this is called has left behind; each ends with its thread.
_left: ContextVar[list[asyncio.Future[None]] | None] = ContextVar("pilothouse_threads_left", default=None)


def threads_left() -> list[asyncio.Future[None]]:
    """The threads that whatever the current task runs from now on leaves behind: one future for each.

    It is done when its thread has ended. What a sync starts it must await: what begins when the sync is over
    is not among them.
    """
    left: list[asyncio.Future[None]] = []
    _left.set(left)
    return left


async def to_thread(function: Callable[[], R]) -> R:
    """Runs what blocks in a thread, as `asyncio.to_thread` does.

    Whoever is cancelled meanwhile either has it not begin at all, or finds it among the `threads_left`.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    # Taken by the thread that begins, or by who does not wait for it any longer: the first one has it.
    claim = threading.Lock()

    def run() -> R:
        if not claim.acquire(blocking=False):
            raise RuntimeError("nobody waits for it any longer")
        try:
            return function()
        except StopIteration as error:
            # A future cannot carry it: whoever waits would wait for ever.
            raise RuntimeError("a StopIteration came out of a thread") from error
        finally:
            # A loop that is closed has nobody left who would want to know.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set_result, None)

    try:
        return await asyncio.to_thread(run)
    finally:
        left = _left.get()
        if left is not None and not ended.done() and not claim.acquire(blocking=False):
            left.append(ended)
