"""Threads that take turns with the event loop, so that nothing depends on which of the two is quicker."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from pilothouse.testing.virtual_time import STUCK_SECONDS, VirtualTimeLoop

P = ParamSpec("P")
R = TypeVar("R")

#: A thread that waits for the loop keeps its place. In a real process the places are fewer.
_PLACES = 1000

_here = threading.local()


def await_on(loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, R]) -> R:
    """Make a call on a loop, from a thread that blocks until it has the answer, or raises what the call does.

    Under virtual time the clock goes on meanwhile; a thread of `AwaitedThreads` lets the loop go on, too.
    """
    answer = asyncio.run_coroutine_threadsafe(call, loop)
    if isinstance(loop, VirtualTimeLoop):
        loop.call_soon_threadsafe(loop.lend, answer)
    turn: _Turn | None = getattr(_here, "turn", None)
    if turn is not None:
        turn.hand_over(loop, answer)
    return answer.result()


class AwaitedThreads(ThreadPoolExecutor):
    """Threads for which the loop stands still until they end, or wait for a call of theirs (`await_on`).

    Else a thread may be called off before the system lets it begin, and calls of several threads come in any
    order. One that takes longer than STUCK_SECONDS may wait for the loop in another way: it then goes on.
    """

    def __init__(self) -> None:
        super().__init__(_PLACES)

    def submit(self, function: Callable[P, R], /, *arguments: P.args, **options: P.kwargs) -> Future[R]:
        """Run something in a thread, up to where it ends or waits for the loop."""
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
    """Lets either a thread go on or the loop, never both.

    Attributes:
        thread: what the thread does.
        over: set when the thread waits for the loop, or has ended; another one for each time that it goes on.
    """

    thread: Future[Any]

    def __init__(self) -> None:
        self.over = threading.Event()

    def hand_over(self, loop: asyncio.AbstractEventLoop, answer: Future[Any]) -> None:
        """Let the loop go on until the thread has its answer; with that it stands still again."""
        before, over = self.over, threading.Event()
        self.over = over
        # On the loop, as by then it has told the future whom else to tell first that the thread has ended.
        loop.call_soon_threadsafe(lambda: self.thread.add_done_callback(lambda _: over.set()))
        answer.add_done_callback(lambda _: over.wait(STUCK_SECONDS))
        before.set()
