"""A sample of the fault matrix on the real thing: API server, airline, and the operator as a process."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flights_operator.types import FLIGHT_TICKET, FlightTicket
from pilothouse.api.crd import crd
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType
from pilothouse.testing import ApiServer, Fault, Injection, eventually, objects, play
from pilothouse.testing.explore import injections
from tests.airline import Airline, running_airline
from tests.api.leases import SHORT_LEASE
from tests.api.widgets import install
from tests.faults.test_flight_ticket import TICKETS, TicketLife

SEED = 20260101
SAMPLE = 6
#: TIMEOUT and LATE take half a minute each, for the clock is real here; the others have places of their own.
ELSEWHERE = {Fault.TIMEOUT, Fault.LATE, Fault.STALE, Fault.TWO_LEADERS, Fault.TERMINATED}
#: In their order, not a set's, which is another in each process: then the seed would draw another sample.
QUICK = [fault for fault in Fault if fault not in ELSEWHERE]
#: The story's first calls are to watch, to write the finalizer, to book, and to write the status.
AT_THE_BOOKING = 3
#: The next are of a resync, which reads the ticket and calls the airline. Until the second of them is made,
#: the caches are told nothing beyond the first list.
AT_A_RESYNC = 6
PLACED = [Injection(AT_THE_BOOKING, Fault.TERMINATED), Injection(AT_A_RESYNC, Fault.STALE)]
ROOT = Path(__file__).parents[2]
HOOK = ROOT / "tests" / "faults" / "hook"
KILLED = 137
#: How the operator's processes end, one after the other; the last is told to stop when the story is over.
ENDS = {Fault.KILLED_BEFORE: [KILLED, 0], Fault.KILLED_AFTER: [KILLED, 0], Fault.TERMINATED: [0, 0]}


def sample() -> list[Injection]:
    """Drawn from the calls that the same story makes on the model, and a conflict in any case."""
    usual = play(TicketLife())
    all_of_them = [each for site in usual.sites[1:7] for each in injections(site, QUICK)]
    conflicts = [each for each in all_of_them if each.fault is Fault.CONFLICT]
    drawn = random.Random(SEED).sample(all_of_them, SAMPLE)
    return drawn if set(drawn) & set(conflicts) else [*drawn, conflicts[0]]


@asynccontextmanager
async def deployment(environment: dict[str, str], injection: Injection, struck: Path) -> AsyncIterator[None]:
    """Runs the operator, and a new process when the fault has ended it."""
    ends = ENDS.get(injection.fault, [0])
    faults = {"FAULTS": f"{injection.at}:{injection.fault}", "FAULTS_STRUCK": str(struck)}
    ended: list[tuple[int | None, str]] = []
    process: asyncio.subprocess.Process | None = None

    async def keep_running() -> None:
        nonlocal process
        for _ in ends:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "flights_operator"],
                env=environment | faults,
                stderr=asyncio.subprocess.PIPE,
            )
            _, log = await process.communicate()
            ended.append((process.returncode, log.decode()))

    running = asyncio.create_task(keep_running())
    try:
        yield
    finally:
        if process and process.returncode is None:
            process.terminate()
        await asyncio.wait_for(running, 40)
    assert [code for code, _ in ended] == ends, ended


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path) as airline:
        yield airline


@pytest.fixture
def environment(api_server: ApiServer, namespace: str, airline: Airline) -> dict[str, str]:
    """The operator's variables."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{HOOK}:{ROOT}/operator:{ROOT}/examples:{ROOT}",
        "KUBECONFIG": str(api_server.kubeconfig()),
        "AIRLINE_URL": airline.url,
        "AIRLINE_API_KEY_FILE": str(airline.key_file),
        "HEALTH_ADDRESS": "127.0.0.1:0",
        "WATCH_NAMESPACE": namespace,
    }


async def make_ticket(client: Client, key: ObjectKey) -> FlightTicket:
    await install(client, crd(FLIGHT_TICKET))
    body: dict[str, Any] = {
        "apiVersion": "flights.com/v1",
        "kind": "FlightTicket",
        "metadata": {"name": key.name},
        "spec": {"from": "Mumbai", "to": "London", "number": 2},
    }
    return await client.create(TICKETS, body, namespace=key.namespace)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("injection", [*sample(), *PLACED], ids=str)
async def test_a_fault_comes_to_the_same_end(
    client: Client,
    environment: dict[str, str],
    namespace: str,
    airline: Airline,
    tmp_path: Path,
    injection: Injection,
) -> None:
    """A ticket is created, changed and deleted."""
    key = ObjectKey(namespace, "t")
    ticket = await make_ticket(client, key)
    reference = ticket.metadata.uid
    describe = objects(client, TICKETS, namespace)

    async def booked(seats: int) -> bool:
        now: FlightTicket = await client.get(TICKETS, key)
        seen = now.status.observed_generation == now.metadata.generation
        return seen and now.status.phase == "Booked" and now.status.booked_seats == seats

    async def gone() -> bool:
        try:
            await client.get(TICKETS, key)
        except NotFound:
            return True
        return False

    if injection.fault is Fault.STALE:
        environment = environment | {"RESYNC_PERIOD": "1s"}
    async with deployment(environment, injection, tmp_path / "struck"):
        await eventually(lambda: booked(2), within=40, describe=describe)
        await client.patch(TICKETS, key, {"spec": {"number": 3}}, type=PatchType.MERGE)
        await eventually(lambda: booked(3), within=40, describe=describe)
        await client.delete(TICKETS, key)
        await eventually(gone, within=40, describe=describe)
    assert (tmp_path / "struck").read_text().startswith(str(injection.fault))
    assert await airline.actions(reference) == ["created", "changed", "cancelled", "closed"]


async def test_a_leader_that_was_frozen_changes_nothing_when_it_thaws_after_another_took_over(
    client: Client, environment: dict[str, str], namespace: str, airline: Airline, tmp_path: Path
) -> None:
    elects = {"LEADER_ELECT": "true", "POD_NAMESPACE": namespace, **SHORT_LEASE}
    struck = tmp_path / "struck"
    freezes = {"FAULTS": f"{AT_THE_BOOKING}:{Fault.TWO_LEADERS}", "FAULTS_STRUCK": str(struck)}

    async def start(name: str, **variables: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "flights_operator"],
            env=environment | elects | {"POD_NAME": name} | variables,
            stderr=asyncio.subprocess.PIPE,
        )

    key = ObjectKey(namespace, "t")
    reference = (await make_ticket(client, key)).metadata.uid
    frozen = await start("pod-1", **freezes)
    follower = None
    try:
        await eventually(struck.exists, within=120)
        assert await airline.actions(reference) == []
        follower = await start("pod-2")

        async def booked() -> bool:
            return (await client.get(TICKETS, key)).status.phase == "Booked"

        await eventually(booked, within=120, describe=objects(client, TICKETS, namespace))
        before = await client.get(TICKETS, key)
        frozen.send_signal(signal.SIGCONT)
        async with asyncio.timeout(120):
            _, log = await frozen.communicate()
        assert (frozen.returncode, b"Lost leadership" in log) == (1, True), log.decode()
        assert await client.get(TICKETS, key) == before
        assert await airline.actions(reference) == ["created"]
    finally:
        for process in (frozen, follower):
            if process and process.returncode is None:
                process.kill()
                await process.wait()
