"""An operator as a process: how it starts, tells of itself, and ends."""

import asyncio
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.controller.lease import LEASE
from pilothouse.kube import Client, NotFound, ObjectKey, PatchType
from pilothouse.testing import ApiServer, eventually
from pilothouse.testing.waiting import objects
from tests.api.leases import SHORT_LEASE
from tests.api.odd_operator import BLOCKS_LOOP, BLOCKS_THREAD
from tests.api.test_playbook import create
from tests.api.tickets import CRD
from tests.api.versions import ON_BOTH
from tests.api.widgets import install
from tests.unit.playbook.airline import FINALIZER
from tests.unit.tickets import TICKET

pytestmark = ON_BOTH

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

    async def start(program: str = "ticket_operator", **variables: str) -> Process:
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
            sys.executable, "-m", f"tests.api.{program}", env=environment, stderr=PIPE, cwd=ROOT
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
    try:
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
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


# The metrics that dashboards and alerts for controller-runtime 0.24 and client-go know, and our own, with the
# labels of their series.
METRICS = {
    "controller_runtime_active_workers": {"controller"},
    "controller_runtime_max_concurrent_reconciles": {"controller"},
    "controller_runtime_reconcile": {"controller", "result"},
    "controller_runtime_reconcile_errors": {"controller"},
    "controller_runtime_reconcile_panics": {"controller"},
    "controller_runtime_reconcile_time_seconds": {"controller"},
    "controller_runtime_reconcile_timeouts": {"controller"},
    "controller_runtime_terminal_reconcile_errors": {"controller"},
    "leader_election_master_status": {"name"},
    "leader_election_slowpath": {"name"},
    "pilothouse_event_loop_lag_seconds": set(),
    "pilothouse_store_objects": {"resource"},
    "pilothouse_task_results": {"playbook", "task", "result"},
    "pilothouse_task_seconds": {"playbook", "task"},
    "pilothouse_watch_failing": {"resource"},
    "process_cpu_seconds": set(),
    "process_max_fds": set(),
    "process_open_fds": set(),
    "process_resident_memory_bytes": set(),
    "process_start_time_seconds": set(),
    "process_virtual_memory_bytes": set(),
    "rest_client_request_duration_seconds": {"verb", "host"},
    "rest_client_requests": {"code", "method", "host"},
    "workqueue_adds": {"name", "controller"},
    "workqueue_depth": {"name", "controller", "priority"},
    "workqueue_longest_running_processor_seconds": {"name", "controller"},
    "workqueue_queue_duration_seconds": {"name", "controller"},
    "workqueue_retries": {"name", "controller"},
    "workqueue_unfinished_work_seconds": {"name", "controller"},
    "workqueue_work_duration_seconds": {"name", "controller"},
}
# They have series only once something has happened.
AFTER_THE_FIRST_PLAY = {"pilothouse_task_results", "pilothouse_task_seconds"}


async def metrics(port: int) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(await get(port, "/metrics"))}


async def test_the_metrics_are_those_that_dashboards_know_and_begin_with_zeros(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    await start()
    await eventually(lambda: get(port, "/readyz"), within=30)

    async def labels() -> dict[str, set[str]]:
        return {
            name: {label for sample in family.samples for label in sample.labels} - {"le"}
            for name, family in (await metrics(port)).items()
            if family.samples
        }

    async def all_but_the_plays() -> bool:
        found = await labels()
        return {name for name in METRICS if found.get(name) == METRICS[name]} == (
            METRICS.keys() - AFTER_THE_FIRST_PLAY
        )

    await eventually(all_but_the_plays, describe=labels)
    results = {
        sample.labels["result"]: sample.value
        for sample in (await metrics(port))["controller_runtime_reconcile"].samples
    }
    assert results == {"success": 0, "error": 0, "requeue": 0, "requeue_after": 0}
    await create(client, namespace, "t", 1)

    async def all_there() -> bool:
        found = await labels()
        return all(found.get(name) == METRICS[name] for name in METRICS)

    await eventually(all_there, describe=labels)


async def test_a_loop_that_stands_still_fails_its_probes_and_is_found_in_the_log(
    client: Client, namespace: str, start: Start, port: int, tmp_path: Path
) -> None:
    level = tmp_path / "level"
    level.write_text("debug")
    process = await start("odd_operator", LOG_LEVEL_FILE=str(level))
    await eventually(lambda: get(port, "/readyz"), within=30)
    await create(client, namespace, "t", BLOCKS_LOOP)

    async def unanswered() -> bool:
        try:
            async with asyncio.timeout(0.5):
                await get(port, "/healthz")
        except TimeoutError:
            return True
        return False

    await eventually(unanswered)
    await eventually(lambda: get(port, "/healthz"))

    async def lag() -> float:
        samples = (await metrics(port))["pilothouse_event_loop_lag_seconds"].samples
        return next(sample.value for sample in samples if sample.name.endswith("_sum"))

    assert await lag() > 3
    process.send_signal(signal.SIGTERM)
    code, log = await ended(process)
    assert code == 0, log
    [told] = [line for line in log.splitlines() if "has been blocked for at least 3 s by" in line]
    assert "in blocks_the_loop" in told
    assert '"level":"debug"' in log, "the file says so"


@pytest.mark.parametrize("told_by", ["a signal", "a usurper"])
async def test_a_thread_that_blocks_neither_holds_the_end_up_nor_lets_another_lead_beside_it(
    client: Client, namespace: str, start: Start, port: int, told_by: str
) -> None:
    process = await start("odd_operator", GRACEFUL_SHUTDOWN_TIMEOUT="0")
    await create(client, namespace, "t", BLOCKS_THREAD)
    lease = ObjectKey(namespace, "tickets")

    async def blocked() -> bool:
        return 'controller_runtime_active_workers{controller="ticket"} 1.0' in await get(port, "/metrics")

    await eventually(blocked, within=30)
    if told_by == "a signal":
        process.send_signal(signal.SIGTERM)
    else:
        spec = {"spec": {"holderIdentity": "usurper"}}
        await client.patch(LEASE, lease, spec, type=PatchType.MERGE)
    code, log = await ended(process, within=9)
    assert code == 1
    assert "the process did not end within 2 s" in log
    holder = (await client.get(LEASE, lease)).spec.holder_identity
    if told_by == "a signal":
        assert holder.startswith("pod-1")
        assert "threads of tasks are still running" in log, "why it is not given up"
    else:
        assert holder == "usurper"
        assert "Lost leadership" in log


async def test_two_processes_share_the_objects_out_and_one_takes_over_from_the_other(
    client: Client, namespace: str, start: Start, port: int
) -> None:
    quick = {"SHARDS": "4", **SHORT_LEASE}
    first = await start(**quick)
    await start(**quick, POD_NAME="pod-2", HEALTH_ADDRESS="127.0.0.1:0")
    names = [ObjectKey(namespace, f"tickets-shard-{shard}") for shard in range(4)]

    async def holders() -> list[str]:
        leases = [await client.get(LEASE, name) for name in names]
        return sorted(lease.spec.holder_identity.partition("_")[0] for lease in leases)

    async def shared() -> bool:
        return await holders() == ["pod-1", "pod-1", "pod-2", "pod-2"]

    async def taken_over() -> bool:
        return await holders() == ["pod-2"] * 4

    await eventually(shared, within=120, describe=objects(client, LEASE, namespace))
    keys = [await create(client, namespace, f"a{n}", 1) for n in range(8)]

    async def booked() -> bool:
        return all([(await client.get(TICKET, key)).status.phase == "Booked" for key in keys])

    await eventually(booked, within=60, describe=objects(client, TICKET, namespace))
    first.kill()
    keys = [await create(client, namespace, f"b{n}", 1) for n in range(8)]
    await eventually(booked, within=120, describe=objects(client, TICKET, namespace))
    await eventually(taken_over, within=120, describe=objects(client, LEASE, namespace))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="the suspended clock is a shim in C")
async def test_a_suspended_leader_that_wakes_up_does_not_act_a_second_time(
    client: Client, namespace: str, start: Start, tmp_path: Path
) -> None:
    """SIGSTOP, and a clock from which the stopped seconds are taken, stand for the suspended machine."""
    shim, suspended, outside = (tmp_path / name for name in ("suspend.so", "suspended", "outside"))
    command = ["gcc", "-shared", "-fPIC", "-o", shim, ROOT / "tests/api/suspend.c", "-ldl"]
    await asyncio.to_thread(lambda: subprocess.run(list(map(str, command)), check=True))
    suspended.write_bytes(bytes(8))
    outside.touch()
    quick = {**SHORT_LEASE, "OUTSIDE": str(outside), "HEALTH_ADDRESS": "127.0.0.1:0"}
    shimmed = {"LD_PRELOAD": str(shim), "SUSPENDED_FILE": str(suspended)}
    first = await start("suspended_operator", **quick, **shimmed)

    async def held_by(pod: str) -> bool:
        try:
            lease = await client.get(LEASE, ObjectKey(namespace, "tickets"))
        except NotFound:
            return False
        return lease.spec.holder_identity.startswith(pod)

    def acted() -> list[str]:
        return outside.read_text().splitlines()

    processes = [first]

    async def until(condition: Callable[[], object]) -> None:
        """Waits as long as a busy machine may need."""

        def describe() -> str:
            return f"acted: {acted()}; exit codes: {[each.returncode for each in processes]}"

        await eventually(condition, within=60, describe=describe)

    await until(lambda: held_by("pod-1"))
    await create(client, namespace, "before", 1)
    await until(lambda: acted() == ["pod-1 before"])
    processes.append(await start("suspended_operator", **quick, POD_NAME="pod-2"))
    first.send_signal(signal.SIGSTOP)
    stopped = time.time()
    await until(lambda: held_by("pod-2"))
    for n in range(3):
        await create(client, namespace, f"meanwhile-{n}", 1)
    await until(lambda: len(acted()) == 4)
    suspended.write_bytes(struct.pack("q", int(time.time() - stopped)))
    first.send_signal(signal.SIGCONT)
    for n in range(5):
        await create(client, namespace, f"after-{n}", 1)
    code, _ = await ended(first, within=60)
    assert code, "it ends, because it may have been succeeded"
    await until(lambda: len(acted()) == 9)
    assert [line for line in acted() if line.startswith("pod-1")] == ["pod-1 before"]
    assert len(set(acted())) == 9, "none twice"
