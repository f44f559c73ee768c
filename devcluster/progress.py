"""Shows progress on the terminal: each step with its duration, and a heartbeat in long steps."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: Seconds between two heartbeat lines of one step.
HEARTBEAT = 30.0


@dataclass(frozen=True)
class Step:
    """One idempotent piece of work: `action` does only what is not done yet."""

    title: str
    action: Callable[[], object]


def run_steps(steps: Sequence[Step]) -> None:
    """Runs the steps one after another. Reports the start, heartbeats and end of each on standard error."""
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
    """Prints every HEARTBEAT seconds that a step is still running, until the context ends."""

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
            say(f"{self._head}: still running after {time.monotonic() - self._started:.0f} s")


def say(line: str) -> None:
    """Prints a line for the user on standard error; standard output is for a command's result."""
    print(line, file=sys.stderr, flush=True)
