"""TCP connections that notice when the other end is gone without a word, and none that outlives its pool."""

import asyncio
import socket
from contextlib import suppress
from weakref import WeakSet

# What is not heard of for so long is gone: client-go's HTTP/2 health check, a ping after 30 s of silence and
# 15 s for its answer. HTTP/1.1 has no ping; TCP's keepalive is as good.
DEAD_SECONDS = 45
_PROBE_SECONDS = 15
# How many turns the loop may take to let go of connections that were shut down; it needs three or four.
_TURNS = 100

Address = tuple[int | socket.AddressFamily, int, int, str, tuple[object, ...]]


class Sockets:
    """The sockets that a pool has opened.

    A TLS connection that is not to be used again says farewell and waits up to 30 s for the other side's:
    the pool has let go of it by then, and does not close it when it is closed itself.
    """

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: Address) -> socket.socket:
        """Make a socket: aiohttp's socket factory."""
        made = keepalive_socket(address)
        self._made.add(made)
        return made

    async def close(self) -> None:
        """End every connection that is left, and wait until the loop has let go of it."""
        left = [each for each in self._made if each.fileno() >= 0]
        for each in left:
            with suppress(OSError):  # the other side was faster
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS):
            if all(each.fileno() < 0 for each in left):
                return
            await asyncio.sleep(0)


def keepalive_socket(address: Address) -> socket.socket:
    """Make a socket that notices within `DEAD_SECONDS` that the other end is gone, also when idle."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
        # Also for what was sent and not acknowledged; it overrides the number of probes (tcp(7)).
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000)
    return made
