"""Certificates that are rotated while the client runs, with a server that requires them."""

import asyncio
import gc
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pilothouse.kube import (
    Client,
    ClientConfig,
    ConfigError,
    RequestEntityTooLarge,
    TlsFiles,
    Unreachable,
)
from pilothouse.testing import eventually
from tests.unit.kube.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


class NamingServer:
    """Returns the client's name and the number of its connection. Counts open connections."""

    def __init__(self) -> None:
        self.open: set[Any] = set()
        self.port = 0
        self._runner: web.ServerRunner | None = None

    async def start(self, authority: Authority) -> None:
        server = web.Server(self._answer)
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=authority.server_context("server")
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        transport = request.transport
        assert transport is not None
        self.open = {each for each in self.open if not each.is_closing()} | {transport}
        subject = transport.get_extra_info("peercert")["subject"]
        return web.Response(text=subject[0][0][1])

    def connections(self) -> int:
        return sum(not each.is_closing() for each in self.open)


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[NamingServer]:
    naming = NamingServer()
    await naming.start(authority)
    yield naming
    await naming.stop()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> TlsFiles:
    """The files of a client named `first`, which a rotation replaces."""
    ca, certificate, key = (str(tmp_path / name) for name in ("ca.crt", "tls.crt", "tls.key"))
    replace_files(authority, [ca, certificate, key], "first")
    return TlsFiles(ca, certificate, key)


def replace_files(authority: Authority, names: list[str], who: str) -> None:
    for source, target in zip((authority.ca_file, *authority.issue(who)), names, strict=True):
        # As the kubelet does: another file takes the name.
        shutil.copy(source, f"{target}.new")
        Path(f"{target}.new").replace(target)


def rotate(authority: Authority, files: TlsFiles, who: str) -> None:
    assert files.ca_file is not None
    assert files.cert_file is not None
    assert files.key_file is not None
    replace_files(authority, [files.ca_file, files.cert_file, files.key_file], who)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are checked before each request, and idle connections are closed soon."""
    monkeypatch.setattr("pilothouse.kube.tls.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("pilothouse.kube.transport.KEEP_SECONDS", 0.2)


async def name(client: Client) -> str:
    return (await client.request("GET", "/whoami", deadline=10)).decode()


def config(server: NamingServer, files: TlsFiles) -> ClientConfig:
    return ClientConfig(server=f"https://127.0.0.1:{server.port}", tls=files)


@pytest.mark.usefixtures("watchful")
async def test_a_rotated_certificate_is_presented_on_a_new_connection(authority, server, files):
    async with Client(config(server, files), user_agent="tests/1") as client:
        assert [await name(client), await name(client)] == ["first", "first"]
        assert server.connections() == 1, "one connection serves both"
        rotate(authority, files, "second")
        assert await name(client) == "second"
        # The old one is closed once it has been idle; the new one may be by then, too.
        await eventually(lambda: server.connections() <= 1)


@pytest.mark.usefixtures("watchful")
async def test_a_rotated_authority_is_trusted(authority, server, files, tmp_path):
    async with Client(config(server, files), user_agent="tests/1") as client:
        assert await name(client) == "first"
        (tmp_path / "other").mkdir()
        other = Authority(tmp_path / "other")
        await server.stop()
        await server.start(other)
        with pytest.raises(Unreachable, match="certificate"):
            await name(client)
        rotate(other, files, "second")
        assert await name(client) == "second"


@pytest.mark.usefixtures("watchful")
async def test_with_half_rotated_files_the_earlier_settings_are_kept(authority, server, files, caplog):
    async with Client(config(server, files), user_agent="tests/1") as client:
        assert await name(client) == "first"
        certificate, key = authority.issue("second")
        shutil.copy(certificate, files.cert_file)
        assert await name(client) == "first"
        assert "Keeping the last valid content of" in caplog.text
        shutil.copy(key, files.key_file)
        assert await name(client) == "second"


def test_files_are_checked_once_a_minute_and_when_refused(authority, files, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(files._files, "_clock", lambda: clock[0])
    first = files.context()
    rotate(authority, files, "second")
    clock[0] += 59
    assert files.context() is first
    clock[0] += 2
    second = files.context()
    assert second is not first
    clock[0] += 61
    assert files.context() is second, "nothing has changed"
    rotate(authority, files, "third")
    assert files.context(refused=True) is not second


async def test_missing_files_are_reported(server, tmp_path):
    files = TlsFiles(ca_file=str(tmp_path / "none.crt"))
    async with Client(config(server, files), user_agent="tests/1") as client:
        with pytest.raises(ConfigError, match="cannot read the cluster's TLS files"):
            await name(client)


@pytest.mark.filterwarnings("ignore:Sending a large body")  # aiohttp's opinion; the server is to refuse it
async def test_a_closed_client_leaves_no_connection_that_is_still_closing(authority):
    """The server refuses a large request before it has read all of it, and stops reading."""
    over = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await over.wait()
        writer.transport.abort()

    context = authority.server_context("server")
    context.verify_mode = ssl.CERT_NONE
    server = await asyncio.start_server(refuse, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    config = ClientConfig(f"https://127.0.0.1:{port}", tls=TlsFiles(ca_file=str(authority.ca_file)))
    async with Client(config, user_agent="tests/1") as client:
        with pytest.raises(RequestEntityTooLarge):
            await client.request("POST", "/", body=b"x" * 8 * 1024 * 1024)
        assert open_connections(port) == 1
    assert open_connections(port) == 0
    over.set()
    server.close()
    await server.wait_closed()


def open_connections(port: int) -> int:
    """Returns the number of open connections of this process to a port."""
    sockets = [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.fileno() >= 0]
    return sum(_peer(each) == ("127.0.0.1", port) for each in sockets)


def _peer(connection: socket.socket) -> object:
    with suppress(OSError):
        return connection.getpeername()
    return None


async def test_a_certificate_as_text_needs_no_writable_folder(authority, server, monkeypatch):
    """The operator's container has a read-only file system, and the key must not be on a disk."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    certificate, key = authority.issue("from-text")
    tls = TlsFiles(
        ca_data=authority.ca_file.read_text(),
        cert_data=certificate.read_text(),
        key_data=key.read_text(),
    )
    async with Client(config(server, tls), user_agent="tests/1") as client:
        assert await name(client) == "from-text"
