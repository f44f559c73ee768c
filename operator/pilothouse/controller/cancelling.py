"""Cancels asyncio tasks, and does not wait for tasks that swallow the cancellation."""

import asyncio
import logging
from collections.abc import Collection
from typing import Any

log = logging.getLogger(__name__)


async def cancel(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Cancels tasks and waits until they have ended.

    Args:
        tasks: The tasks to cancel.
        seconds: How long to wait. Tasks that have not ended by then are left running.
    """
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    ended, running = await asyncio.wait(tasks, timeout=seconds)
    for task in ended:
        # The reason for the stop is already in the log; errors during the stop are consequences of it.
        log.debug("Task ended: %r", None if task.cancelled() else task.exception())
    if running:
        log.warning(
            "Left asyncio tasks running that did not end when cancelled: %d. A playbook task may be "
            "swallowing CancelledError",
            len(running),
        )
