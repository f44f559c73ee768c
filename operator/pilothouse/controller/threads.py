"""Threads in which reconciles run blocking code. A thread cannot be stopped, so it may outlive its reconcile.

If a reconcile stops waiting for a thread, at a deadline or a closed fence, the thread still works on the
object. This module reports such threads to the worker.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import TypeVar

R = TypeVar("R")

# The threads that the reconcile of the current worker left running. Each future ends with its thread.
_left: ContextVar[list[asyncio.Future[None]] | None] = ContextVar("pilothouse_threads_left", default=None)


def threads_left() -> list[asyncio.Future[None]]:
    """Returns a list to which code in the current asyncio task adds each thread that it leaves running.

    A thread is represented by a future that is done when the thread has ended. A reconcile must await what it
    starts: threads that begin after the reconcile has ended are not in the list.
    """
    left: list[asyncio.Future[None]] = []
    _left.set(left)
    return left


async def to_thread(function: Callable[[], R]) -> R:
    """Runs a blocking function in a thread, as `asyncio.to_thread` does.

    If the caller is cancelled before the function has begun, the function does not run. If it has begun, its
    thread is added to `threads_left`.

    Args:
        function: The blocking function.

    Returns:
        What the function returned.

    Raises:
        RuntimeError: The function raised StopIteration.
        Exception: The function raised it.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    # Acquired by the thread when it begins, or by the caller when it stops waiting: the first one wins.
    claim = threading.Lock()

    def run() -> R:
        if not claim.acquire(blocking=False):
            raise RuntimeError("The caller was cancelled before the thread began.")
        try:
            return function()
        except StopIteration as error:
            # A future cannot carry StopIteration: the caller would wait forever.
            raise RuntimeError("The function that ran in a thread raised StopIteration.") from error
        finally:
            # The event loop may have been closed in between.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(ended.set_result, None)

    try:
        return await asyncio.to_thread(run)
    finally:
        left = _left.get()
        if left is not None and not ended.done() and not claim.acquire(blocking=False):
            left.append(ended)
