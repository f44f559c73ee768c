"""The probes and metrics server: its answers, and clients that misbehave."""

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest

from pilothouse.process import HealthServer, SettingsError
from pilothouse.process.serving import ServingCertificate
from pilothouse.telemetry import metrics
from tests.unit.kube.authority import Authority


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


async def test_a_process_whose_loop_runs_is_healthy(server: HealthServer) -> None:
    assert await get(server, "/healthz") == (200, "ok\n")


async def test_a_process_is_ready_unless_there_is_a_reason(server: HealthServer, reasons: list[str]) -> None:
    assert await get(server, "/readyz?verbose") == (200, "ok\n")
    reasons += ["flighttickets have not been listed yet", "the kind is unknown"]
    assert await get(server, "/readyz") == (
        503,
        "flighttickets have not been listed yet\nthe kind is unknown\n",
    )
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_failing_watch_is_reported_and_does_not_make_the_process_unready(
    reasons: list[str],
) -> None:
    failing: list[str] = []
    server = HealthServer("127.0.0.1", 0, lambda: reasons, failing=lambda: failing)
    await server.start()
    assert await get(server, "/readyz") == (200, "ok\n")
    failing += ["flighttickets cannot be read", "seats cannot be read"]
    assert await get(server, "/readyz") == (
        200,
        "ok, but\nflighttickets cannot be read\nseats cannot be read\n",
    )
    reasons.append("the operator is stopping")
    assert await get(server, "/readyz") == (503, "the operator is stopping\n")
    await server.stop()


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


async def test_the_connection_of_an_endless_request_is_closed(server: HealthServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    async with asyncio.timeout(5):
        try:
            writer.write(b"GET /" + b"a" * 100_000)
            assert await reader.read() == b""
        except ConnectionError:
            pass
        writer.close()
    assert (await get(server, "/healthz"))[0] == 200


async def test_a_silent_client_does_not_block_others(server: HealthServer) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert (await get(server, "/healthz"))[0] == 200
    writer.close()


async def test_a_taken_port_is_an_error(server: HealthServer) -> None:
    with pytest.raises(OSError, match="address already in use"):
        await HealthServer("127.0.0.1", server.port, list).start()


async def reader(token: str) -> HTTPStatus:
    return {"good": HTTPStatus.OK, "": HTTPStatus.UNAUTHORIZED}.get(token, HTTPStatus.FORBIDDEN)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"", 401),
        (b"Authorization: Basic good\r\n", 401),
        (b"Authorization: Bearer bad\r\n", 403),
        (b"Authorization: Bearer good\r\n", 200),
        (b"AUTHORIZATION:bearer good \r\n", 200),
    ],
)
async def test_metrics_can_require_a_token_and_probes_never_do(header: bytes, status: int) -> None:
    server = HealthServer("127.0.0.1", 0, list, reader=reader)
    await server.start()
    answered, body = await exchange(server, b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + header + b"\r\n")
    assert answered == status
    assert ("process_resident_memory_bytes" in body) == (status == 200)
    for probe in ("/healthz", "/readyz"):
        assert await get(server, probe) == (200, "ok\n")
    await server.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def mount(authority: Authority, name: str, folder: Path) -> None:
    """Writes a certificate to the folder, as the kubelet does with a mounted Secret."""
    for file, key in zip(authority.issue(name), ("tls.crt", "tls.key"), strict=True):
        shutil.copy(file, folder / f"new-{key}")
        (folder / f"new-{key}").rename(folder / key)


async def certified(server: HealthServer, authority: Authority) -> str:
    """Reads a page over TLS. Returns the name on the server's certificate."""
    client = ssl.create_default_context(cafile=authority.ca_file)
    client.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=client)
    name = writer.get_extra_info("peercert")["subject"][0][0][1]
    writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
    assert (await reader.read()).endswith(b"ok\n")
    writer.close()
    return str(name)


async def test_a_rotated_certificate_is_served_to_the_next_client(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mount(authority, "first", tmp_path)
    server = HealthServer("127.0.0.1", 0, list, tls=ServingCertificate(tmp_path).context)
    await server.start()
    assert await certified(server, authority) == "first"
    mount(authority, "second", tmp_path)
    assert await certified(server, authority) == "second"
    (tmp_path / "tls.key").write_text("broken")
    assert await certified(server, authority) == "second"
    assert "Keeping the last valid content of" in caplog.text
    mount(authority, "third", tmp_path)
    assert await certified(server, authority) == "third"
    caplog.clear()
    caplog.set_level(logging.INFO)
    with pytest.raises((OSError, asyncio.IncompleteReadError, IndexError)):
        assert (await get(server, "/healthz"))[0] == 200, "the server must not answer plain HTTP"
    assert not caplog.records
    await server.stop()


def test_a_missing_certificate_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^METRICS_CERT_DIR is '.*', and its .* must have a certificate in tls.crt"
    ):
        ServingCertificate(tmp_path)
