"""Changes to private attributes of libraries: all that this package makes, in one place.

None of them is an API, so a new release may rename or ignore any of them without an error.
tests/unit/kube/test_patches.py fails when that happens. Checked with CPython 3.11 to 3.14 and aiohttp 3.14.
"""

from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]  # typeshed's gap
from asyncio.sslproto import SSLProtocol

import aiohttp

# TLS records end at 16 KiB (RFC 8446, 5.1). This holds two.
TLS_BUFFER_BYTES = 32 * 1024
PLAIN_BUFFER_BYTES = 64 * 1024


def shrink_read_buffers() -> None:
    """Make asyncio's read buffers smaller, for the whole process.

    A TLS connection has a zeroed, and so resident, buffer of 256 KiB: 10 MiB for 32 connections, with this 3
    MiB. A plain connection allocates a buffer of 256 KiB for each read: above malloc's threshold, so each
    read maps memory and unmaps it again.
    """
    SSLProtocol.max_size = TLS_BUFFER_BYTES
    _SelectorSocketTransport.max_size = PLAIN_BUFFER_BYTES


def never_resend(session: aiohttp.ClientSession) -> None:
    """Stop aiohttp from sending a PUT or DELETE again when a connection that it reuses breaks.

    aiohttp has no public setting for this; its own tests use this attribute.
    """
    session._retry_connection = False
