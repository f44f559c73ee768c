"""Runs the commands of this checkout, as a user does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl

#: Seconds for a command to end. It may have to wait for its own child processes.
_END_SECONDS = 60.0


def inv(
    kubectl: Kubectl, *words: str, timeout: float = 120, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Runs `inv WORDS` on the cluster of a kubectl.

    Args:
        kubectl: Selects the cluster.
        words: The command.
        timeout: Seconds until the command is killed.
        umask: The umask of the process. Default: that of this process.
    """
    return subprocess.run(
        _argv(words),
        cwd=CHECKOUT,
        env=_environment(kubectl),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        umask=umask,
    )


@contextmanager
def running(kubectl: Kubectl, *words: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `inv WORDS` on the cluster of a kubectl while the block runs, then stops it gracefully.

    Args:
        kubectl: Selects the cluster.
        words: The command.
        log: The file for its output.
    """
    with log.open("wb") as sink:
        process = subprocess.Popen(
            _argv(words), cwd=CHECKOUT, env=_environment(kubectl), stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(_END_SECONDS)


def _argv(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "invoke", *words]


def _environment(kubectl: Kubectl) -> dict[str, str]:
    return {**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)}
