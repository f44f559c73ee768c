"""Notes the writes of the current reconcile, so that writes that repeat can be recognized."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar, Token
from typing import NamedTuple, TypeVar

import msgspec

R = TypeVar("R")

APPLY = "apply"
PATCH = "patch"
DELETE = "delete"

_VERSIONS = re.compile(rb'"(resourceVersion|uid)":"[^"]*"')
_TIMES = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:[\d.]+(Z|[+-]\d\d:\d\d)")
_DIGEST_BYTES = 8


class Written(NamedTuple):
    """A write that the API server has accepted.

    Most writes are noted and forgotten. So their text and their digest are made only when they are needed.

    Attributes:
        verb: The verb: "create", `APPLY`, `PATCH` or `DELETE`; or the method of another request.
        target: The kind, possibly with a subresource, or the path of the request.
        where: The object or the namespace.
        body: The content. None if there is none.
        task: The name of the task that made the write. Empty for a write of the engine.
    """

    verb: str
    target: object
    where: object = ""
    body: object = None
    task: str = ""

    @property
    def what(self) -> str:
        """The verb and the object, for people: "patch tickets.tests.dev default/web"."""
        return f"{self.verb} {self.target}{self.where and ' '}{self.where}"

    @property
    def digest(self) -> bytes:
        """A digest of verb, object and content.

        Preconditions are left out, and so are times in a patch of the metadata only: an annotation that
        records a time is the same write with another time.
        """
        body = self.body
        content = body if isinstance(body, bytes) else msgspec.json.encode(body, order="deterministic")
        content = _VERSIONS.sub(b"", content)
        if isinstance(body, Mapping) and body.keys() == {"metadata"}:
            content = _TIMES.sub(b"", content)
        digest = hashlib.blake2b(self.what.encode(), digest_size=_DIGEST_BYTES)
        digest.update(content)
        return digest.digest()


class noting_writes:  # noqa: N801 - a context manager, used like a function
    """Collects the writes that are made within the block, also by asyncio tasks that it starts.

    Attributes:
        writes: The writes so far.

    Args:
        task: Returns the name of the task that makes a write; empty outside of tasks.
    """

    __slots__ = ("_token", "task", "writes")

    def __init__(self, task: Callable[[], str]) -> None:
        self.task = task
        self.writes: list[Written] = []

    def __enter__(self) -> list[Written]:
        self._token: Token[noting_writes | None] = _CURRENT.set(self)
        return self.writes

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._token)


_CURRENT: ContextVar[noting_writes | None] = ContextVar("written", default=None)


async def noted(write: Awaitable[R], written: Written) -> R:
    """Awaits a write, and notes it if it succeeds."""
    result = await write
    notes = _CURRENT.get()
    if notes is not None:
        notes.writes.append(written._replace(task=notes.task()))
    return result
