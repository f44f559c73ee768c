"""An operator whose one task acts outside: it writes down which pod has acted for which object."""

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pilothouse.cli import run_operator
from pilothouse.playbook import Play, Playbook, Watch, task
from tests.unit.tickets import TICKET, Ticket, TicketStatus


class OutsidePlay(Play[Ticket, TicketStatus]):
    """A play."""


@asynccontextmanager
async def watches(variables: Mapping[str, str]) -> AsyncIterator[Sequence[Watch]]:
    """Each object is acted for whenever its spec is new to the process."""
    outside, pod = Path(variables["OUTSIDE"]), variables["POD_NAME"]

    def note(line: str) -> None:
        with outside.open("a") as lines:
            lines.write(line)

    @task("it is booked outside")
    async def book(play: OutsidePlay) -> None:
        async def act() -> None:
            note(f"{pod} {play.object.metadata.name}\n")

        if play.object.status.observed_generation != play.object.metadata.generation:
            await play.call("book", act)

    yield [Watch(TICKET, Playbook(OutsidePlay, tasks=[book]))]


if __name__ == "__main__":
    sys.exit(run_operator("tickets", watches))
