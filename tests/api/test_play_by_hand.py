"""`python3 -m flights_operator play` as a process: one ticket, with no operator at work, under its Lease."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from booking_api.faults import Faults, Hold
from flights_operator.__main__ import NAME
from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.controller import LeaderElector, LeaseTiming
from pilothouse.controller.lease import LEASE
from pilothouse.kube import Client, NotFound, ObjectKey
from pilothouse.testing import ApiServer, eventually, objects
from tests.airline import Airline, running_airline
from tests.api.test_flights import User
from tests.api.versions import ON_BOTH
from tests.api.widgets import install

pytestmark = ON_BOTH

ROOT = Path(__file__).parents[2]

Play = Callable[..., Awaitable[Process]]


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path) as airline:
        yield airline


@pytest.fixture
async def user(client: Client, namespace: str) -> User:
    await install(client, crd(FLIGHT_TICKET))
    return User(client, namespace)


@pytest.fixture
def lease(namespace: str) -> ObjectKey:
    """The operator's."""
    return ObjectKey(namespace, NAME)


@pytest.fixture
async def play(api_server: ApiServer, airline: Airline, namespace: str) -> AsyncIterator[Play]:
    """Starts `play` with further arguments, as a person does on a host that reaches the airline."""
    started: list[Process] = []

    async def play(*arguments: str) -> Process:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(api_server.kubeconfig()),
            "LEADER_ELECT": "true",
            "POD_NAMESPACE": namespace,
            "AIRLINE_URL": airline.url,
            "AIRLINE_API_KEY_FILE": str(airline.key_file),
        }
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "flights_operator", "play", *arguments],
            env=environment,
            stdout=PIPE,
            stderr=PIPE,
        )
        started.append(process)
        return process

    yield play
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: Process) -> tuple[int | None, str, str]:
    """The exit code, and what it wrote to stdout and to stderr."""
    told, errors = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, told.decode(), errors.decode()


async def test_it_books_while_it_holds_the_lease_and_gives_it_up(
    client: Client, user: User, airline: Airline, play: Play, namespace: str, lease: ObjectKey
) -> None:
    reference = (await user.create("t")).metadata.uid
    airline.set_faults(Faults(hold=Hold(methods=["POST"], count=1, stage="before")))
    process = await play(f"ft/{namespace}/t", "--diff")
    await eventually(lambda: airline.held, within=30, describe=objects(client, LEASE, namespace))
    assert "_manual-play" in (await client.get(LEASE, lease)).spec.holder_identity
    airline.clear_faults()
    code, told, errors = await ended(process)
    assert (code, errors) == (0, ""), told
    assert f"{namespace}/t" in told
    [booking] = await airline.bookings()
    assert booking.reference == reference
    ticket = await user.read("t")
    assert (ticket.status.phase, ticket.status.booking_id) == ("Booked", booking.id)
    assert (await client.get(LEASE, lease)).spec.holder_identity == ""
    assert await airline.actions() == ["created"]


async def test_while_another_holds_the_lease_it_is_refused_and_does_nothing(
    client: Client, user: User, airline: Airline, play: Play, namespace: str, lease: ObjectKey
) -> None:
    ticket = await user.create("t")
    leader = LeaderElector(client, lease, "pod-1", LeaseTiming())
    await leader.acquire()
    code, told, errors = await ended(await play(f"flightticket/{namespace}/t"))
    assert (code, told) == (1, "")
    assert leader.identity in errors
    assert "Use --check" in errors
    assert "Traceback" not in errors
    assert (await client.get(LEASE, lease)).spec.holder_identity == leader.identity
    assert airline.requests.total() == 0
    assert await user.read("t") == ticket


async def test_a_check_takes_no_lease(
    client: Client, user: User, airline: Airline, play: Play, namespace: str, lease: ObjectKey
) -> None:
    ticket = await user.create("t")
    code, told, errors = await ended(await play(f"flightticket/{namespace}/t", "--check", "--diff"))
    assert (code, errors) == (2, ""), told
    with pytest.raises(NotFound):
        await client.get(LEASE, lease)
    assert await airline.bookings() == []
    assert await user.read("t") == ticket
