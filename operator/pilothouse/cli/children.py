"""Processes that end with this one, gracefully: also when it is killed."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Seconds for a process to end after SIGTERM: the operator's own graceful stop and a little more.
_STOP_PATIENCE = 40.0


def start(
    command: Sequence[str | Path], environment: Mapping[str, str], *, output: IO[str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that Ctrl-C reaches this process alone.

    Args:
        command: What is run.
        environment: Its variables.
        output: Takes what it prints; this process's own output unless given.
    """
    setpriv = shutil.which("setpriv")  # of util-linux
    with_us = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    return subprocess.Popen(
        [*with_us, *command], env=environment, stdout=output, stderr=output, start_new_session=True
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process gracefully, and kills it if that takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
