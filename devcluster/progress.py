"""Progress on the terminal: which step, how long, how long in all; a sign of life in long steps."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Seconds between two signs of life of one step.
HEARTBEAT = 30.0


@dataclass(frozen=True)
class Step:
    """One idempotent piece of work: `action` finds out by itself what is left to do."""

    title: str
    action: Callable[[], object]


def run_steps(steps: Sequence[Step]) -> None:
    """Runs the steps in order, with a line on standard error as each begins, goes on and ends."""
    began = time.monotonic()
    for number, step in enumerate(steps, start=1):
        head = f"[{number}/{len(steps)}] {step.title}"
        say(f"{head} ...")
        started = time.monotonic()
        with _Heartbeat(head, started):
            step.action()
        now = time.monotonic()
        say(f"{head}: {now - started:.0f} s (total {now - began:.0f} s)")


class _Heartbeat:
    """Prints that a step still runs, every HEARTBEAT seconds, until left."""

    def __init__(self, head: str, started: float) -> None:
        self._head = head
        self._started = started
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            say(f"{self._head}: still at it after {time.monotonic() - self._started:.0f} s")


def say(line: str) -> None:
    """Tells the person at the terminal; what a program prints as its result goes elsewhere."""
    print(line, file=sys.stderr, flush=True)
