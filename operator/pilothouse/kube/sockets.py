"""TCP sockets that detect a dead peer, and that are closed together with their connection pool."""

import asyncio
import socket
from contextlib import suppress
from weakref import WeakSet

# A peer that is silent for this long is dead. It corresponds to client-go's HTTP/2 health check: a ping after
# 30 s of silence and 15 s for the response. HTTP/1.1 has no ping, so we use TCP keepalive.
DEAD_SECONDS = 45
_PROBE_SECONDS = 15
# The maximum number of loop iterations to release connections after a shutdown. Three or four are needed.
_TURNS = 100

Address = tuple[int | socket.AddressFamily, int, int, str, tuple[object, ...]]


class Sockets:
    """The sockets that a pool has opened.

    A TLS connection that is closed sends a close_notify and waits up to 30 s for that of the peer. The pool
    has already forgotten it by then, so closing the pool does not close it.
    """

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: Address) -> socket.socket:
        """Creates a socket. It is used as aiohttp's socket factory."""
        made = keepalive_socket(address)
        self._made.add(made)
        return made

    async def close(self) -> None:
        """Shuts down all remaining connections, and waits until the event loop has released them."""
        left = [each for each in self._made if each.fileno() >= 0]
        for each in left:
            with suppress(OSError):  # the peer has closed it already
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS):
            if all(each.fileno() < 0 for each in left):
                return
            await asyncio.sleep(0)


def keepalive_socket(address: Address) -> socket.socket:
    """Creates a socket that detects a dead peer within `DEAD_SECONDS`, even when it is idle."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
        # Covers unacknowledged data as well. It overrides the number of probes (tcp(7)).
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_SECONDS * 1000)
    return made
