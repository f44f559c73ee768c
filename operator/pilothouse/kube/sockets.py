"""TCP connections that notice when the other end is gone without a word."""

import socket

# What is not heard of for so long is gone: client-go's HTTP/2 health check, a ping after 30 s of silence and
# 15 s for its answer. HTTP/1.1 has no ping; TCP's keepalive is as good.
DEAD_SECONDS = 45
_PROBE_SECONDS = 15


def keepalive_socket(
    address: tuple[int | socket.AddressFamily, int, int, str, tuple[object, ...]],
) -> socket.socket:
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
