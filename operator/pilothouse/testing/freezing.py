"""Processes that share a loop. Each can be frozen, as with SIGSTOP or by a hypervisor."""

import asyncio
import contextvars
import types
from collections.abc import Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any

_current: contextvars.ContextVar["Freezable | None"] = contextvars.ContextVar("process", default=None)


class Freezable:
    """A process: the tasks that are created inside `running`. While it is frozen, they do not run.

    After thawing, it behaves like the worst case of an event loop: a task that was ready runs first, and only
    then learns that it was cancelled while it was frozen.
    """

    def __init__(self) -> None:
        self._thawed = asyncio.Event()
        self._thawed.set()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Adds the tasks that are created inside the block, and their tasks, to the process."""
        asyncio.get_running_loop().set_task_factory(_make_task)  # type: ignore[arg-type]  # typeshed's gap
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def freeze(self) -> None:
        """Stops all tasks of the process."""
        self._thawed.clear()

    def thaw(self) -> None:
        """Lets all tasks of the process continue."""
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
                # A timeout that ended in this step has withdrawn its cancellation.
                task = asyncio.current_task()
                error, held = (held if task and task.cancelling() else None), None
                if error is None:
                    try:
                        yield waits_for
                    except BaseException as thrown:  # Any error is passed on to the coroutine.
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
    # If the task is cancelled before its first step, the coroutine has not been started and must be closed.
    task.add_done_callback(lambda _: coroutine.close())
    return task
