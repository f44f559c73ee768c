"""An operator's program whose tasks do what tasks must not, for tests that start it as a process."""

import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.cli import run_operator
from pilothouse.playbook import Play, Playbook, Watch, task
from tests.unit.tickets import TICKET, Ticket, TicketStatus

BLOCKS_LOOP = 8
BLOCKS_THREAD = 9


@task("the loop is blocked")
async def blocks_the_loop(play: Play[Ticket, TicketStatus]) -> None:
    if play.object.spec.seats == BLOCKS_LOOP and not play.settled:
        time.sleep(6)  # noqa: ASYNC251 - that it blocks is the test


@task("a thread is blocked")
def blocks_a_thread(play: Play[Ticket, TicketStatus]) -> None:
    if play.object.spec.seats == BLOCKS_THREAD:
        time.sleep(3600)


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Two tasks, and one outside system: none."""
    playbook: Playbook[Any] = Playbook(Play, tasks=[blocks_the_loop, blocks_a_thread])
    yield [Watch(TICKET, playbook)]


if __name__ == "__main__":
    sys.exit(run_operator("tickets", watches))
