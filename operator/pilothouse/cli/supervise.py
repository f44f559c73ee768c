"""An operator on this host: restarted when its source changes and when it has ended."""

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

# Seconds between two checks of the sources, and of what else may ask for a restart.
CHECK, CHECK_MORE = 0.5, 2.0
# Seconds before an operator that has ended is started again: doubled each time that it ends within SOON
# seconds, as the kubelet does with a container.
PAUSE, LONGEST_PAUSE, SOON = 1.0, 60.0, 30.0

# What a process on a host is set to, unless the environment says otherwise.
DEFAULTS: Mapping[str, str] = {
    # With the Deployment's own Lease: of the two, one works.
    "LEADER_ELECT": "true",
    "HEALTH_ADDRESS": "127.0.0.1:0",
    "LOG_FORMAT": "console",
}


def environment(python_path: str, more: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables of an operator's process on this host.

    Args:
        python_path: Where its modules are, before what PYTHONPATH has.
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
        begin: Starts it.
        sources: Where its sources are.
        more: Called now and then; returns why the process must restart, if it must.

    Raises:
        ProjectError: It refuses its settings.
    """
    pause = PAUSE
    while True:
        due, began = _due(sources, more), time.monotonic()
        process = begin()
        try:
            why = _wait(due, process)
            if not why:
                lasted = time.monotonic() - began
                pause = PAUSE if lasted > SOON else min(2 * pause, LONGEST_PAUSE)
                why = _ended(process, pause)
                why = _wait(due, seconds=pause) or why
        except KeyboardInterrupt:
            say("stopping")
            return
        finally:
            stop(process)
        say(f"{why}: restarting")


def _due(sources: Path, more: Callable[[], str]) -> Callable[[], str]:
    """Returns a function that says why a process that begins now must restart; "" while it need not."""
    seen, checked = _stamps(sources), time.monotonic()

    def due() -> str:
        nonlocal checked
        if _stamps(sources) != seen:
            return "the sources have changed"
        if time.monotonic() - checked < CHECK_MORE:
            return ""
        why = more()
        checked = time.monotonic()
        return why

    return due


def _wait(
    due: Callable[[], str], process: subprocess.Popen[bytes] | None = None, seconds: float = math.inf
) -> str:
    """Waits until there is a reason to restart, the process has ended, or time is up (returns "")."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and (process is None or process.poll() is None):
        if why := due():
            return why
        time.sleep(CHECK)
    return ""


def _ended(process: subprocess.Popen[bytes], pause: float) -> str:
    """Says how a process has ended, and when it is started again; returns why."""
    if process.returncode == WRONG_SETTINGS:
        raise ProjectError("the operator refuses its settings (see above). Correct them and start again.")
    why = f"the operator has ended with status {process.returncode}"
    say(f"{why}; it restarts in {pause:.0f} s, or when its sources change")
    return why


def _stamps(sources: Path) -> dict[Path, int]:
    """When each source was last changed; one that vanishes meanwhile is seen next time."""
    stamps = {}
    for path in sources.rglob("*.py"):
        inner = path.relative_to(sources).parts[:-1]
        if any(part.startswith(".") or part == "node_modules" for part in inner):
            continue  # an environment's packages, a tool's cache
        try:
            stamps[path] = path.stat().st_mtime_ns
        except FileNotFoundError:
            continue
    return stamps


@contextmanager
def interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Has the first of these signals do what Ctrl-C does, and later ones nothing."""

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
