"""An operator as a process: how it starts, tells of itself, and ends."""

import asyncio
import os
import signal
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from pilothouse.controller.lease import LEASE
from pilothouse.kube import Client, ObjectKey, PatchType
from tests.api.test_playbook import create
from tests.api.tickets import CRD
from tests.api.widgets import install
from tests.api_server import ApiServer
from tests.unit.playbook.airline import FINALIZER
from tests.unit.tickets import TICKET
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]

Start = Callable[..., Awaitable[Process]]


@pytest.fixture(autouse=True)
async def kind(client: Client) -> None:
    await install(client, CRD)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        chosen: int = free.getsockname()[1]
        return chosen


@pytest.fixture
async def start(api_server: ApiServer, namespace: str, port: int) -> AsyncIterator[Start]:
    started: list[Process] = []

    async def start(**variables: str) -> Process:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "KUBECONFIG": str(api_server.kubeconfig()),
            "WATCH_NAMESPACE": namespace,
            "POD_NAMESPACE": namespace,
            "POD_NAME": "pod-1",
            "LEADER_ELECT": "true",
            "HEALTH_ADDRESS": f"127.0.0.1:{port}",
            **variables,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.api.ticket_operator", env=environment, stderr=PIPE, cwd=ROOT
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def get(port: int, path: str) -> str:
    """The body of an answer; empty when nobody answers 200."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return ""
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return body if " 200 " in head else ""


async def ended(process: Process, within: float = 10) -> tuple[int, str]:
    """The exit code and what it wrote."""
    async with asyncio.timeout(within):
        _, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, errors.decode()


async def test_it_is_ready_soon_serves_metrics_and_stops_gracefully(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    began = time.monotonic()
    process = await start()
    await eventually(lambda: get(port, "/readyz"), within=30)
    print(f"start to ready: {time.monotonic() - began:.2f} s")  # noqa: T201 - a figure for the reader
    assert await get(port, "/healthz") == "ok\n"
    await create(client, namespace, "t", 1)

    async def played() -> bool:
        text = await get(port, "/metrics")
        return 'pilothouse_task_results_total{playbook="ticket",result="changed"' in text

    await eventually(played, describe=lambda: get(port, "/metrics"))
    text = await get(port, "/metrics")
    assert 'leader_election_master_status{name="tickets"} 1.0' in text
    assert 'controller_runtime_reconcile_total{controller="ticket",result="success"}' in text
    process.send_signal(signal.SIGTERM)
    code, log = await ended(process)
    assert code == 0, log
    assert "Traceback" not in log
    lease = await client.get(LEASE, ObjectKey(namespace, "tickets"))
    assert lease.spec.holder_identity == ""


async def test_a_sync_in_flight_ends_before_the_process_does(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    key = await create(client, namespace, "t", 1)
    process = await start(AIRLINE_DELAY="2")

    async def begun() -> bool:
        return FINALIZER in (await client.get(TICKET, key)).metadata.finalizers

    await eventually(begun, within=30)
    process.send_signal(signal.SIGTERM)
    code, log = await ended(process, within=20)
    assert code == 0, log
    assert (await client.get(TICKET, key)).status.phase == "Booked", log


async def test_a_second_signal_ends_it_at_once(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    key = await create(client, namespace, "t", 1)
    process = await start(AIRLINE_DELAY="1h")

    async def begun() -> bool:
        return FINALIZER in (await client.get(TICKET, key)).metadata.finalizers

    await eventually(begun, within=30)
    process.send_signal(signal.SIGTERM)

    async def stopping() -> bool:
        return await get(port, "/readyz") == ""

    await eventually(stopping)
    process.send_signal(signal.SIGTERM)
    code, _ = await ended(process, within=2)
    assert code == 128 + signal.SIGTERM


async def test_a_process_that_loses_its_lease_fails(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    process = await start()

    async def leads() -> bool:
        return "leader_election_master_status{" in await get(port, "/metrics") and " 1.0" in next(
            line
            for line in (await get(port, "/metrics")).splitlines()
            if line.startswith("leader_election_master_status{")
        )

    await eventually(leads, within=30)
    await client.patch(
        LEASE,
        ObjectKey(namespace, "tickets"),
        {"spec": {"holderIdentity": "usurper"}},
        type=PatchType.MERGE,
    )
    code, log = await ended(process)
    assert code == 1
    assert "usurper" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"RESYNC_PERIOD": "often"}, "RESYNC_PERIOD is 'often'"),
        ({"AIRLINE_DELAY": "x"}, "AIRLINE_DELAY is 'x'"),
        ({"LEASE_DURATION": "5"}, "LEASE_DURATION (5 s) must be longer than RENEW_DEADLINE (10 s)"),
        ({"KUBECONFIG": "/nowhere"}, "set KUBECONFIG to a file that kubectl can use"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_and_exit_code_2(
    start: Start, variables: dict[str, str], sentence: str
) -> None:
    code, log = await ended(await start(**variables), within=30)
    assert code == 2, log
    last = log.strip().splitlines()[-1]
    assert sentence in last
    assert "Traceback" not in log
