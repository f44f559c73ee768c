"""Processes that share a loop, of which each can be frozen, as SIGSTOP or a hypervisor does."""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

_current: contextvars.ContextVar["Freezable | None"] = contextvars.ContextVar("process", default=None)


class Freezable:
    """Tasks begun inside `running` belong to the process; while it is frozen, none of them makes a step.

    Thawed, it is as unkind as an event loop can be: what was ready to go on goes on first, and only then
    learns that it was cancelled meanwhile.
    """

    def __init__(self) -> None:
        self._thawed = asyncio.Event()
        self._thawed.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Tasks begun inside, and theirs, belong to the process."""
        asyncio.get_running_loop().set_task_factory(_make_task)  # type: ignore[arg-type]  # typeshed's gap
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def freeze(self) -> None:
        """Let no task go on."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Let all go on."""
        self._thawed.set()

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        held: BaseException | None = None
        try:
            while True:
                while not self._thawed.is_set():
                    try:
                        yield from self._thawed.wait().__await__()
                    except asyncio.CancelledError as cancelled:
                        held = cancelled
                waits_for = coroutine.send(None) if error is None else coroutine.throw(error)
                # A timeout that the step has left behind took its cancellation back.
                task = asyncio.current_task()
                error, held = (held if task and task.cancelling() else None), None
                if error is None:
                    try:
                        yield waits_for
                    except BaseException as thrown:  # whatever comes is the coroutine's own
                        error = thrown
        except StopIteration as end:
            return end.value


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    context: contextvars.Context | None = None,
    **options: Any,
) -> asyncio.Task[Any]:
    process = _current.get() if context is None else context.get(_current)
    driven = process._drive(coroutine) if process else coroutine
    task = asyncio.Task(driven, loop=loop, context=context, **options)
    # Cancelled before its first step, the driver has not begun the coroutine either.
    task.add_done_callback(lambda _: coroutine.close())
    return task
