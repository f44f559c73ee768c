"""All changes to private attributes of libraries, in one module.

These attributes are not part of an API: a new release may rename or ignore them without an error.
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
    """Makes asyncio's read buffers smaller, for the whole process.

    By default, a TLS connection has a resident buffer of 256 KiB: 10 MiB for 32 connections, instead of 3 MiB
    with this change. A plain connection allocates 256 KiB for each read. This exceeds malloc's threshold, so
    each read maps memory and unmaps it again.
    """
    SSLProtocol.max_size = TLS_BUFFER_BYTES
    _SelectorSocketTransport.max_size = PLAIN_BUFFER_BYTES


def never_resend(session: aiohttp.ClientSession) -> None:
    """Prevents aiohttp from retrying a PUT or DELETE when a reused connection breaks.

    aiohttp has no public setting for this; its own tests use this attribute.
    """
    session._retry_connection = False


def on_unawaited(handler: Callable[[Coroutine[Any, Any, Any]], bool]) -> None:
    """Sets a function that is called for each coroutine that is discarded without having been started.

    Python itself only logs a warning, once for each line. This replaces the function that it calls for the
    warning. The call happens in the context of the code that discarded the coroutine.

    Args:
        handler: Returns whether it has handled the coroutine. If not, Python warns.
    """
    warn = warnings._warn_unawaited_coroutine  # type: ignore[attr-defined]

    def handle(coroutine: Coroutine[Any, Any, Any]) -> None:
        if not handler(coroutine):
            warn(coroutine)

    warnings._warn_unawaited_coroutine = handle  # type: ignore[attr-defined]
