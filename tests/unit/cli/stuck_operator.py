"""An operator's program whose event loop soon stands still, for a test that starts it as a process."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pilothouse.cli import run_operator
from pilothouse.playbook import Watch
from pilothouse.testing import eventually

STUCK = "the loop stands still from now on"


async def block() -> None:
    """Blocks the loop, once the operator hears signals."""
    await eventually(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
    logging.getLogger(__name__).info(STUCK)
    time.sleep(3600)  # noqa: ASYNC251 - that it blocks is the test


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """None; a task in the background blocks all others."""
    blocking = asyncio.create_task(block())
    yield []
    blocking.cancel()


if __name__ == "__main__":
    sys.exit(run_operator("stuck", watches))
