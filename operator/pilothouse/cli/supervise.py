"""Runs an operator on this host, and restarts it when its source changes or it has ended."""

import hashlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pilothouse.cli.children import stop
from pilothouse.cli.operator import WRONG_SETTINGS
from pilothouse.packaging.mistakes import ProjectError

# Seconds between two checks of the sources, and of the other reasons for a restart.
CHECK, CHECK_MORE = 0.5, 2.0
# Seconds before an operator that has ended is restarted. Doubled each time it ends within SOON seconds, like
# the kubelet's back-off for a container.
PAUSE, LONGEST_PAUSE, SOON = 1.0, 60.0, 30.0

# Default variables of a process on a host. The environment overrides them.
DEFAULTS: Mapping[str, str] = {
    # It uses the same Lease as the Deployment, so that only one of them reconciles.
    "LEADER_ELECT": "true",
    "HEALTH_ADDRESS": "127.0.0.1:0",
    "LOG_FORMAT": "console",
}


def environment(python_path: str, more: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment variables for an operator's process on this host.

    Args:
        python_path: The folder of its modules, which is put before PYTHONPATH.
        more: Further defaults. The caller's own variables override all defaults.
    """
    paths = [python_path, os.environ.get("PYTHONPATH", "")]
    return {**DEFAULTS, **more, **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def say(line: str) -> None:
    """Writes a line to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def supervise(
    begin: Callable[[], subprocess.Popen[bytes]], sources: Path, more: Callable[[], str] = str
) -> None:
    """Keeps a process running until interrupted.

    Args:
        begin: Starts the process.
        sources: The folder with its sources.
        more: Called every 2 s. Returns why the process must restart; empty if it need not.

    Raises:
        ProjectError: The process ended because of its settings, or it is not an operator.
    """
    pause = PAUSE
    while True:
        process = None
        # Ctrl-C may come at any instruction, also between the start of the process and the wait.
        try:
            due, began = _due(sources, more), time.monotonic()
            process = begin()
            why = _wait(due, process)
            if not why:
                lasted = time.monotonic() - began
                pause = PAUSE if lasted > SOON else min(2 * pause, LONGEST_PAUSE)
                if process.returncode == 0 and lasted <= SOON:
                    raise ProjectError(
                        "the process exited with code 0 soon after its start, so it is not an operator. Run "
                        "the module that calls main(), or the folder of the project."
                    )
                why = _ended(process, pause)
                why = _wait(due, seconds=pause) or why
        except KeyboardInterrupt:
            say("stopping")
            return
        finally:
            if process is not None:
                stop(process)
        say(f"{why}: restarting")


def _due(sources: Path, more: Callable[[], str]) -> Callable[[], str]:
    """Returns a function that returns why a process that starts now must restart; empty if it need not."""
    files = _Files(sources)
    began, checked = files.contents(), time.monotonic()
    before = began

    def due() -> str:
        nonlocal before, checked
        now = files.contents()
        # Only a change that two checks in a row have found: an editor may empty a file before it writes it.
        if now != began and now == before:
            return "the sources have changed"
        before = now
        if time.monotonic() - checked < CHECK_MORE:
            return ""
        why = more()
        checked = time.monotonic()
        return why

    return due


def _wait(
    due: Callable[[], str], process: subprocess.Popen[bytes] | None = None, seconds: float = math.inf
) -> str:
    """Waits for a reason to restart and returns it; empty if the process ends or the time is up first."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and (process is None or process.poll() is None):
        if why := due():
            return why
        time.sleep(CHECK)
    return ""


def _ended(process: subprocess.Popen[bytes], pause: float) -> str:
    """Prints how a process has ended and when it restarts, and returns the reason for the restart."""
    if process.returncode == WRONG_SETTINGS:
        raise ProjectError("the operator's settings are wrong (see above). Correct them and run it again.")
    why = f"the operator has exited with code {process.returncode}"
    say(f"{why}; restarting in {pause:.0f} s, or when its sources change")
    return why


class _Files:
    """The source files in a folder. A file is read again only if its time or size has changed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # The time of the last change, the size and the digest of each file.
        self._known: dict[Path, tuple[tuple[int, int], bytes]] = {}

    def contents(self) -> dict[Path, bytes]:
        """Returns a digest of each file. Files that have just been deleted are left out."""
        found = {}
        for path in self._folder.rglob("*.py"):
            inner = path.relative_to(self._folder).parts[:-1]
            if any(part.startswith(".") or part == "node_modules" for part in inner):
                continue  # an environment's packages, a tool's cache
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                known = self._known.get(path)
                digest = known[1] if known and known[0] == stamp else _digest(path)
            except OSError:
                continue
            found[path] = (stamp, digest)
        self._known = found
        return {path: digest for path, (_, digest) in found.items()}


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@contextmanager
def interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Makes the first of these signals act like Ctrl-C. Later ones are ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, interrupt) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
