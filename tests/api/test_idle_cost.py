"""What the running operator costs beside a bare interpreter with the same imports, as ratios.

It runs as in its pod: to its first 200 on /readyz, and on until its pool of connections is full. Measured
when written: ready with 1.09 times the memory and 1.2 to 1.6 times the CPU; 1.19 times the memory with 34
connections and 100 tickets. With the buffers that asyncio gives a TLS connection by default, that is 1.40.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flights_operator.types import FLIGHT_TICKET
from pilothouse.api.crd import crd
from pilothouse.kube import Client
from pilothouse.testing import ApiServer, eventually
from tests.airline import Airline, running_airline
from tests.api.test_controller_process import get
from tests.api.test_flights import User, free_port
from tests.api.widgets import install
from tests.unit.flights.test_start_cost import Cost, cost

ROOT = Path(__file__).parents[2]
IN_POD = ROOT / "tests" / "bench" / "peers" / "in_pod.py"

READY_MEMORY = 1.15
READY_CPU = 2.0
CONNECTED_MEMORY = 1.28

#: The client's pool; each of so many workers needs one at once.
CONNECTIONS = 32
TICKETS = 100


@pytest.fixture
async def airline(tmp_path: Path) -> AsyncIterator[Airline]:
    async with running_airline(tmp_path) as airline:
        yield airline


@pytest.fixture
async def account(api_server: ApiServer, namespace: str, tmp_path: Path) -> Path:
    """What the kubelet gives a pod: with a kubeconfig, the official client would be part of the cost."""
    config = api_server.config()
    assert config.token
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(await config.token.token())
    (folder / "ca.crt").write_bytes(api_server.ca_file.read_bytes())
    (folder / "namespace").write_text(namespace)
    return folder


@asynccontextmanager
async def ready_operator(
    api_server: ApiServer, account: Path, airline: Airline, namespace: str
) -> AsyncIterator[int]:
    """The operator's process, ready; yields its id."""
    server, port = urlsplit(api_server.url), await free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBERNETES_SERVICE_HOST": str(server.hostname),
        "KUBERNETES_SERVICE_PORT": str(server.port),
        "WATCH_NAMESPACE": namespace,
        "POD_NAMESPACE": namespace,
        "HEALTH_ADDRESS": f"127.0.0.1:{port}",
        "MAX_CONCURRENT_RECONCILES": str(CONNECTIONS),
        "AIRLINE_URL": airline.url,
        "AIRLINE_API_KEY_FILE": str(airline.key_file),
    }
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, str(IN_POD), str(account), "flights_operator"],
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await eventually(lambda: get(port, "/readyz"), within=30)
        yield process.pid
    finally:
        process.terminate()
        _, log = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, log.decode()


def cost_of(pid: int) -> Cost:
    """A process as it is now: resident KiB, and the CPU of all its threads so far."""
    proc = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    # From the state on, proc(5)'s field 3: the name before it may hold blanks.
    fields = (proc / "stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[14 - 3]) + int(fields[15 - 3])
    return Cost(float(status["VmRSS"].split()[0]), ticks / os.sysconf("SC_CLK_TCK"), [])


def connections(pid: int, server: str) -> int:
    """How many connections to a server on this host are open in a process."""
    opened = {os.readlink(each) for each in Path("/proc", str(pid), "fd").iterdir()}
    port, established = f"{urlsplit(server).port:04X}", "01"
    rows = [line.split() for line in Path("/proc", str(pid), "net", "tcp").read_text().splitlines()[1:]]
    return sum(
        row[2].endswith(f":{port}") and row[3] == established and f"socket:[{row[9]}]" in opened
        for row in rows
    )


async def test_idle_it_costs_little_more_than_the_libraries_that_it_imports(
    client: Client, api_server: ApiServer, account: Path, airline: Airline, namespace: str
) -> None:
    await install(client, crd(FLIGHT_TICKET))
    user = User(client, namespace)
    bare = cost(cost(["flights_operator.__main__"]).modules)
    starts: list[Cost] = []
    for _ in range(2):
        async with ready_operator(api_server, account, airline, namespace) as pid:
            starts.append(cost_of(pid))
    async with ready_operator(api_server, account, airline, namespace) as pid:
        starts.append(cost_of(pid))
        await asyncio.gather(*(user.create(f"t{number}") for number in range(TICKETS)))

        async def all_booked() -> bool:
            return all(ticket.status.phase == "Booked" for ticket in await user.all())

        await eventually(all_booked, within=60)
        connected, opened = cost_of(pid), connections(pid, api_server.url)
    # The least: whatever disturbs only adds.
    memory = min(each.memory for each in starts) / bare.memory
    cpu = min(each.cpu for each in starts) / bare.cpu
    full = connected.memory / bare.memory
    told = "times the {} of a bare interpreter with the same imports"
    assert memory <= READY_MEMORY, f"ready: {memory:.2f} {told.format('memory')}"
    assert cpu <= READY_CPU, f"until ready: {cpu:.2f} {told.format('CPU')}"
    assert opened >= CONNECTIONS, "what follows would prove nothing"
    assert full <= CONNECTED_MEMORY, f"{opened} connections: {full:.2f} {told.format('memory')}"
    print(f"memory {memory:.2f}, CPU {cpu:.2f}, connected {full:.2f}")  # noqa: T201 - figures for the reader
