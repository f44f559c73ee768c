"""The engine on the model of the API server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from pilothouse.kube import ObjectKey
from pilothouse.playbook import Playbook, Watch
from pilothouse.testing import ModelApi
from tests.unit.operators import manager_of
from tests.unit.playbook.airline import Airline, TicketPlay, playbook
from tests.unit.tickets import TICKET

Start = Callable[..., Awaitable[asyncio.Task[None]]]


@pytest.fixture
def airline() -> Airline:
    return Airline()


@pytest.fixture
async def start(api: ModelApi, airline: Airline) -> AsyncIterator[Start]:
    """Starts an operator process; any number of times. The processes are killed at the end."""
    processes: list[asyncio.Task[None]] = []

    async def start(book: Playbook[TicketPlay] | None = None, resync: float = 0.0) -> asyncio.Task[None]:
        manager = manager_of(api, Watch(TICKET, book or playbook(airline), resync=resync))
        process = asyncio.create_task(manager.run(asyncio.Event()))
        processes.append(process)
        await asyncio.sleep(1)
        return process

    yield start
    for process in processes:
        process.cancel()
    await asyncio.gather(*processes, return_exceptions=True)


@pytest.fixture
def ticket(api: ModelApi) -> ObjectKey:
    return api.put(TICKET, "my-ticket", spec={"seats": 2})
