"""Ends tasks, and does not wait for those that do not end."""

import asyncio
import logging
from collections.abc import Collection
from typing import Any

log = logging.getLogger(__name__)


async def cancel(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Cancels tasks and waits until they have ended; who has not in so many seconds is left behind."""
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    ended, stubborn = await asyncio.wait(tasks, timeout=seconds)
    for task in ended:
        # Why the process ends has been said; what else breaks meanwhile is a consequence.
        log.debug("ended: %r", None if task.cancelled() else task.exception())
    if stubborn:
        log.warning(
            "%d parts of the operator did not end when told to and are left behind: what runs in a sync must "
            "let CancelledError through",
            len(stubborn),
        )
