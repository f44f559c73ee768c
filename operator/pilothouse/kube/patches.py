"""Changes to private attributes of libraries: all that this package makes, in one place.

None of them is an API, so a new release may rename or ignore any of them without an error.
tests/unit/kube/test_patches.py and tests/unit/playbook/test_awaited.py fail when that happens. Checked with
CPython 3.11 and aiohttp 3.14.
"""

import warnings
from asyncio.selector_events import _SelectorSocketTransport  # type: ignore[attr-defined]  # typeshed's gap
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Coroutine
from typing import Any

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


def on_unawaited(handler: Callable[[Coroutine[Any, Any, Any]], bool]) -> None:
    """Has a function called with each coroutine that is dropped without having been started.

    Python only warns of those, once for each line. It calls what is replaced here to do so, in the context
    of the code that dropped the coroutine.

    Args:
        handler: Returns whether it has dealt with the coroutine. If not, Python warns.
    """
    warn = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

    def handle(coroutine: Coroutine[Any, Any, Any]) -> None:
        if not handler(coroutine):
            warn(coroutine)

    warnings._warn_unawaited_coroutine = handle  # type: ignore[attr-defined]
