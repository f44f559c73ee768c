"""Notes the writes of the current reconcile, so that writes that repeat can be recognized."""

import hashlib
import re
from collections.abc import Awaitable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import msgspec

R = TypeVar("R")

_VERSIONS = re.compile(rb'"(resourceVersion|uid)":"[^"]*"')
_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+(Z|[+-]\d\d:\d\d)")
_DIGEST_BYTES = 8


class Written(NamedTuple):
    """A write that the API server has accepted.

    Attributes:
        what: The verb and the object, for people: "patch tickets.tests.dev default/web".
        digest: A digest of the content. Preconditions are left out, and so are times in a patch of the
            metadata only: an annotation that records a time is the same write with another time.
    """

    what: str
    digest: bytes


_CURRENT: ContextVar[list[Written] | None] = ContextVar("written", default=None)


@contextmanager
def noting_writes() -> Generator[list[Written]]:
    """Collects the writes that are made within the block, also by asyncio tasks that it starts."""
    writes: list[Written] = []
    token = _CURRENT.set(writes)
    try:
        yield writes
    finally:
        _CURRENT.reset(token)


async def noted(write: Awaitable[R], what: str, body: object = None) -> R:
    """Awaits a write, and notes it if it succeeds."""
    result = await write
    writes = _CURRENT.get()
    if writes is not None:
        writes.append(Written(what, _digest(body)))
    return result


def _digest(body: object) -> bytes:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body, order="deterministic")
    content = _VERSIONS.sub(b"", content)
    if isinstance(body, Mapping) and body.keys() == {"metadata"}:
        content = _TIMES.sub(b"", content)
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
