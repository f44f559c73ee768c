"""Child processes that end gracefully with this process, even if it is killed."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# Seconds for a process to end after SIGTERM: the operator's graceful stop and a margin.
_STOP_PATIENCE = 40.0


def start(
    command: Sequence[str | Path], environment: Mapping[str, str], *, output: IO[str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that Ctrl-C reaches only the calling process.

    Args:
        command: The command and its arguments.
        environment: The environment variables of the process.
        output: The file for its output. Default: the output of the calling process.
    """
    setpriv = shutil.which("setpriv")  # part of util-linux
    ends_with_parent = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
    return subprocess.Popen(
        [*ends_with_parent, *command], env=environment, stdout=output, stderr=output, start_new_session=True
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stops a process gracefully, and kills it if that takes too long."""
    process.terminate()
    try:
        process.wait(_STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
