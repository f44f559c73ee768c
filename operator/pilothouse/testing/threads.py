"""Threads that take turns with the event loop, so that runs do not depend on which of the two is faster."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from pilothouse.testing.virtual_time import STUCK_SECONDS, VirtualTimeLoop

P = ParamSpec("P")
R = TypeVar("R")

#: Maximum number of threads. A thread that waits for the loop counts. A real process has fewer.
_PLACES = 1000

_here = threading.local()


def await_on(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, R]) -> R:
    """Makes a call on a loop from a thread, and blocks until it ends. Returns its result or raises its error.

    Under virtual time the clock continues while the thread waits. In a thread of `AwaitedThreads`, the loop
    does as well.
    """
    answer = asyncio.run_coroutine_threadsafe(call, loop)
    if isinstance(loop, VirtualTimeLoop):
        loop.call_soon_threadsafe(loop.lend, answer)
    turn: _Turn | None = getattr(_here, "turn", None)
    if turn is not None:
        turn.hand_over(loop, answer)
    return answer.result()


class AwaitedThreads(ThreadPoolExecutor):
    """A pool of threads. The loop stops while a thread runs, until it ends or waits for a call (`await_on`).

    Otherwise a thread could be cancelled before it starts, and the calls of several threads would have a
    random order. If a thread takes longer than STUCK_SECONDS, the loop continues: the thread may wait for it
    in another way.
    """

    def __init__(self) -> None:
        super().__init__(_PLACES)

    def submit(self, function: Callable[P, R], /, *arguments: P.args, **options: P.kwargs) -> Future[R]:
        """Runs a function in a thread, and returns when it ends or waits for the loop."""
        turn = _Turn()
        over = turn.over

        def run() -> R:
            _here.turn = turn
            return function(*arguments, **options)

        future = turn.thread = super().submit(run)
        future.add_done_callback(lambda _: over.set())
        over.wait(STUCK_SECONDS)
        return future


class _Turn:
    """Lets either a thread or the loop run, never both.

    Attributes:
        thread: The work of the thread.
        over: Set when the thread waits for the loop or has ended. Replaced each time that the thread
            continues.
    """

    thread: Future[Any]

    def __init__(self) -> None:
        self.over = threading.Event()

    def hand_over(self, loop: asyncio.AbstractEventLoop, answer: Future[Any]) -> None:
        """Lets the loop run until the thread has its result, and then stops it again."""
        before, over = self.over, threading.Event()
        self.over = over
        # On the loop: by then it has added its own callback to the future, which must run first.
        loop.call_soon_threadsafe(lambda: self.thread.add_done_callback(lambda _: over.set()))
        answer.add_done_callback(lambda _: over.wait(STUCK_SECONDS))
        before.set()
