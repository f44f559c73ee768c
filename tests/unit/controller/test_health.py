"""The probes: they tell the truth, and no client can hurt them."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from pilothouse.controller import HealthServer
from pilothouse.telemetry import metrics


@pytest.fixture
def reasons() -> list[str]:
    return []


@pytest.fixture
async def server(reasons: list[str]) -> AsyncIterator[HealthServer]:
    server = HealthServer("127.0.0.1", 0, lambda: reasons)
    await server.start()
    yield server
    await server.stop()


async def exchange(server: HealthServer, request: bytes) -> tuple[int, str]:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), body


async def get(server: HealthServer, path: str) -> tuple[int, str]:
    return await exchange(server, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


async def test_a_process_whose_loop_turns_is_healthy(server: HealthServer) -> None:
    assert await get(server, "/healthz") == (200, "ok\n")


async def test_a_process_is_ready_when_nothing_says_otherwise(
    server: HealthServer, reasons: list[str]
) -> None:
    assert await get(server, "/readyz?verbose") == (200, "ok\n")
    reasons += ["flighttickets are not all read yet", "the kind is unknown"]
    assert await get(server, "/readyz") == (503, "flighttickets are not all read yet\nthe kind is unknown\n")
    assert (await get(server, "/healthz"))[0] == 200


async def test_metrics_are_in_the_text_format(server: HealthServer) -> None:
    metrics.LEADER.labels(name="test-health").set(1)
    status, body = await get(server, "/metrics")
    assert status == 200
    assert 'leader_election_master_status{name="test-health"} 1.0' in body
    assert "process_resident_memory_bytes" in body


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /other HTTP/1.1\r\n\r\n", 404),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"\x00\xff\r\n\r\n", 405),
    ],
)
async def test_other_requests_are_refused(server: HealthServer, request_: bytes, status: int) -> None:
    assert (await exchange(server, request_))[0] == status


async def test_an_endless_request_is_cut_off(server: HealthServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        try:
            writer.write(b"GET /" + b"a" * 100_000)
            assert await reader.read() == b""
        except ConnectionError:
            pass
        writer.close()
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_silent_client_is_in_nobodys_way(server: HealthServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert (await get(server, "/healthz"))[0] == 200
    writer.close()


async def test_a_taken_port_is_an_error(server: HealthServer) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await HealthServer("127.0.0.1", server.port, list).start()
