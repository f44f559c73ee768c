"""A proxy between the client and the API server."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.kube import Client, ClientConfig, TlsFiles, Unreachable
from tests.unit.kube.authority import Authority


class Tunnels:
    """An HTTP proxy that supports CONNECT and refuses unknown users. Records the targets."""

    def __init__(self, credentials: str) -> None:
        self._wanted = base64.b64encode(credentials.encode())
        self.led_to: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        verb, target, _ = head.split(b" ", 2)
        assert verb == b"CONNECT"
        if self._wanted not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        self.led_to.append(target)
        host, _, port = target.decode().partition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
    except ConnectionError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def tls_server(authority: Authority) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=authority.server_context("server"))
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("user", "allowed"), [("me:s3cret", True), ("me:wrong", False)])
async def test_requests_go_through_the_proxy(tmp_path: Path, user: str, allowed: bool) -> None:
    """The server's certificate is verified end to end, so the proxy cannot read the requests."""
    authority, proxy = Authority(tmp_path), Tunnels("me:s3cret")
    certificate, key = authority.issue("client")
    tls = TlsFiles(str(authority.ca_file), str(certificate), str(key))
    async with tls_server(authority) as port, proxy.running():
        config = ClientConfig(
            f"https://127.0.0.1:{port}", tls=tls, proxy=f"http://{user}@127.0.0.1:{proxy.port}"
        )
        assert "s3cret" not in repr(config)
        async with Client(config, user_agent="tests/1") as client:
            if allowed:
                assert await client.request("GET", "/version") == b"{}"
                assert proxy.led_to == [f"127.0.0.1:{port}".encode()]
            else:
                with pytest.raises(Unreachable, match="407") as caught:
                    await client.request("PATCH", "/version", body={})
                assert not caught.value.maybe_sent
