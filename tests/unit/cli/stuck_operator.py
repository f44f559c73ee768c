"""An operator's program that blocks its event loop. A test starts it as a process."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from pilothouse import CONFIG_MAP
from pilothouse.cli import run_operator
from pilothouse.playbook import Watch
from pilothouse.testing import eventually

STUCK = "Blocking the event loop"


async def block() -> None:
    """Blocks the loop once the operator handles signals."""
    await eventually(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
    logging.getLogger(__name__).info(STUCK)
    time.sleep(3600)  # noqa: ASYNC251 - blocks on purpose


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Yields a watch without tasks. A background task blocks the loop."""
    blocking = asyncio.create_task(block())
    yield [Watch(CONFIG_MAP, tasks=[])]
    blocking.cancel()


if __name__ == "__main__":
    sys.exit(run_operator("stuck", watches))
