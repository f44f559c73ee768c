"""The changed private attributes of libraries still have the intended effect."""

import ast
import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

import pilothouse
from pilothouse.kube.patches import (
    PLAIN_BUFFER_BYTES,
    TLS_BUFFER_BYTES,
    never_resend,
    shrink_read_buffers,
)
from tests.unit.kube.authority import Authority


class Chunks(asyncio.Protocol):
    """Records the size of each read until the peer closes the connection."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.closed = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set_result(None)


async def test_a_plain_connection_reads_into_the_smaller_buffer() -> None:
    shrink_read_buffers()
    near, far = socket.socketpair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
    far.setblocking(False)
    sent = far.send(bytes(512 * 1024))
    assert sent > PLAIN_BUFFER_BYTES, "the test needs more data than one read"
    far.close()
    near.setblocking(False)
    _, chunks = await asyncio.get_running_loop().create_connection(Chunks, sock=near)
    await chunks.closed
    assert max(chunks.sizes) == PLAIN_BUFFER_BYTES
    assert sum(chunks.sizes) == sent


async def test_a_tls_connection_has_the_smaller_buffer(tmp_path: Path) -> None:
    shrink_read_buffers()
    context = Authority(tmp_path).server_context("server")
    near, far = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=near)
    handshake = asyncio.create_task(
        asyncio.get_running_loop().start_tls(
            writer.transport, asyncio.Protocol(), context, server_side=True, ssl_handshake_timeout=60
        )
    )
    await asyncio.sleep(0)
    buffer = writer.transport.get_protocol()._ssl_buffer  # type: ignore[attr-defined]  # what is shrunk
    assert len(buffer) == TLS_BUFFER_BYTES
    handshake.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handshake
    writer.transport.abort()
    far.close()


class Breaking:
    """Responds to the first request on each connection, and closes the connection at the second."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.split(b" ", 1)[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.split(b" ", 1)[0])
        writer.transport.abort()


@pytest.fixture
async def breaking() -> AsyncIterator[Breaking]:
    serving = Breaking()
    server = await asyncio.start_server(serving.serve, "127.0.0.1", 0)
    serving.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        yield serving


async def test_a_delete_on_a_broken_connection_is_not_retried(breaking: Breaking) -> None:
    async with aiohttp.ClientSession() as session:
        never_resend(session)
        await (await session.get(breaking.url)).read()
        with pytest.raises(aiohttp.ClientError):
            await session.delete(breaking.url)
    assert breaking.requests == [b"GET", b"DELETE"]


async def test_without_the_change_aiohttp_retries_it(breaking: Breaking) -> None:
    """If this test fails, the change is no longer needed."""
    async with aiohttp.ClientSession() as session:
        await (await session.get(breaking.url)).read()
        await (await session.delete(breaking.url)).read()
    assert breaking.requests == [b"GET", b"DELETE", b"DELETE"]


def test_no_other_module_assigns_to_private_attributes_of_libraries() -> None:
    # logging._srcfile is documented: docs.python.org/3/howto/logging.html#optimization.
    allowed = {("logs.py", "_srcfile")}
    found: set[tuple[str, str]] = set()
    for path in Path(pilothouse.__path__[0]).parent.rglob("*.py"):
        own = _own_names(tree := ast.parse(path.read_text()))
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                if isinstance(target, ast.Attribute) and _foreign(target, own):
                    found.add((path.name, target.attr))
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("pilothouse"):
                names = [each.name for each in node.names]
                found |= {
                    (path.name, name) for name in names if name.startswith("_") and name != "__version__"
                }
    known = {"_retry_connection", "_warn_unawaited_coroutine", "_SelectorSocketTransport"}
    assert found - allowed == {("patches.py", name) for name in known}


def _own_names(tree: ast.Module) -> set[str]:
    """Returns the attributes that the module sets on its own objects."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def _foreign(target: ast.Attribute, own: set[str]) -> bool:
    is_private = target.attr.startswith("_") and not target.attr.startswith("__")
    on_self = isinstance(target.value, ast.Name) and target.value.id in ("self", "cls")
    return is_private and not on_self and target.attr not in own
