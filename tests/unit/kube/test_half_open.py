"""Connections to a peer that has disappeared without closing them."""

import asyncio
import ctypes
import socket

import pytest

from pilothouse.kube import Client, ClientConfig, Unreachable, sockets
from tests.unit.kube.views import WIDGETS

pytestmark = pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux's socket options")

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def vanish(connection: socket.socket) -> None:
    """Makes the kernel drop all packets for this end, as if its host had lost power."""
    drop = ctypes.create_string_buffer(bytes.fromhex("0600000000000000"))  # BPF: return 0 bytes

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(1, ctypes.addressof(drop))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))


def test_a_dead_peer_is_detected_within_a_minute():
    made = sockets.keepalive_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ()))
    with made:
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
        idle, interval, unheard = (made.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    # tcp(7): the kernel gives up at the first probe that is due after TCP_USER_TIMEOUT of silence.
    assert unheard / 1000 + interval <= 60
    assert idle < unheard / 1000


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets the same socket options with 1 s instead of 15 s."""
    monkeypatch.setattr(sockets, "DEAD_SECONDS", 2)
    monkeypatch.setattr(sockets, "_PROBE_SECONDS", 1)


@pytest.mark.usefixtures("hasty")
async def test_a_watch_detects_a_dead_server():
    """Neither end sends anything. The watch itself would wait for 58 s."""
    opened: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_HEAD)
        opened.put_nowait(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(ClientConfig(f"http://127.0.0.1:{port}"), user_agent="tests/1") as client:
        events = client.watch(WIDGETS, resource_version="5")
        await anext(events)
        writer = await opened.get()
        vanish(writer.get_extra_info("socket")._sock)
        async with asyncio.timeout(20):
            with pytest.raises(Unreachable, match=r"timed out|Timeout|reset"):
                await anext(events)
        writer.transport.abort()
