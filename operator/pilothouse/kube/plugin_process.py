"""Runs the program of an exec plugin: with a deadline, and without waiting for what it leaves running."""

import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

# How often the thread that waits checks whether it must stop, in seconds.
_CHECK = 0.1
# A program may leave another one running that has its output open. Seconds after which that is not awaited.
_REST = 1.0
#: Maximum size of the standard output, in bytes. Credentials take a few kilobytes.
OUTPUT_LIMIT = 1 << 20
#: How much of the end of the standard error is kept, in bytes.
ERRORS_KEPT = 1 << 14


class Stopped(Exception):
    """The caller no longer needs the program, which was killed."""


@dataclass
class Ended:
    """A program that has ended, or was killed.

    Attributes:
        code: The exit code. None: it was killed at the deadline, or because its output was too long.
        output: The standard output.
        errors: The end of the standard error. Empty if it was not captured.
        too_long: Whether the standard output was longer than `OUTPUT_LIMIT`.
    """

    code: int | None = None
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    too_long: bool = False


def run_program(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    interactive: bool,
    seconds: float,
    notice: tuple[float, Callable[[Ended], None]],
    stop: threading.Event,
) -> Ended:
    """Runs a program, and returns its output. Blocks.

    Args:
        arguments: The program and its arguments.
        environment: Its environment variables.
        interactive: Whether it uses this process's standard input and standard error. Otherwise it has no
            input and no terminal, and its standard error is captured.
        seconds: The deadline, after which it is killed.
        notice: After how many seconds a function is called with the output so far.
        stop: Kills the program when it is set.

    Raises:
        OSError: The program cannot be started.
        Stopped: `stop` was set.
    """
    process = subprocess.Popen(
        arguments,
        env=environment,
        stdin=None if interactive else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if interactive else subprocess.PIPE,
        # A session of its own, so that all of it can be killed. A program that reads from the terminal must
        # stay in the session of the terminal.
        start_new_session=not interactive,
    )
    ended = Ended()
    try:
        with selectors.DefaultSelector() as selector:
            _register(selector, process.stdout, ended.output)
            _register(selector, process.stderr, ended.errors)
            ended.code = _wait(process, selector, ended, seconds, notice, stop)
    finally:
        if process.returncode is None:
            _kill(process, whole_session=not interactive)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return ended


def _wait(
    process: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    ended: Ended,
    seconds: float,
    notice: tuple[float, Callable[[Ended], None]],
    stop: threading.Event,
) -> int | None:
    """Reads the output until the program has ended. Returns its exit code; None if it must be killed."""
    began, after, tell = time.monotonic(), *notice
    rest: float | None = None
    told = False
    while True:
        if stop.is_set():
            raise Stopped
        _read(selector, ended, _CHECK if selector.get_map() else 0)
        lasted = time.monotonic() - began
        if not selector.get_map():
            with suppress(subprocess.TimeoutExpired):
                return process.wait(_CHECK)
        elif process.poll() is not None:
            rest = lasted if rest is None else rest
            if lasted - rest >= _REST:
                return process.returncode
        if lasted >= seconds or ended.too_long:
            return None
        if lasted >= after and not told:
            tell(ended)
            told = True


def _register(selector: selectors.BaseSelector, pipe: IO[bytes] | None, into: bytearray) -> None:
    if pipe is not None:
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, into)


def _read(selector: selectors.BaseSelector, ended: Ended, seconds: float) -> None:
    """Reads what the pipes contain. Waits for it if they are empty."""
    for key, _ in selector.select(seconds) if selector.get_map() else ():
        data = os.read(key.fd, 1 << 16)
        if not data:
            selector.unregister(key.fileobj)
        into: bytearray = key.data
        into += data
    ended.too_long = len(ended.output) > OUTPUT_LIMIT
    if len(ended.errors) > 2 * ERRORS_KEPT:
        del ended.errors[:-ERRORS_KEPT]
        # The start of a line that is cut may be the rest of a secret value, which would not be recognized.
        del ended.errors[: ended.errors.find(b"\n") + 1 or ERRORS_KEPT]


def _kill(process: subprocess.Popen[bytes], *, whole_session: bool) -> None:
    with suppress(ProcessLookupError):
        if whole_session:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
