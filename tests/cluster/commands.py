"""The commands of this checkout, as a person gives them."""

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

#: A command that is told to end may wait so long for what it has started itself.
_END_SECONDS = 60.0


def inv(
    kubectl: Kubectl, *words: str, timeout: float = 120, umask: int = -1
) -> subprocess.CompletedProcess[str]:
    """Runs `inv WORDS` on the cluster of a kubectl.

    Args:
        kubectl: Whose cluster.
        words: The command.
        timeout: Seconds.
        umask: Of the process; this one's unless given.
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
    """Starts `inv WORDS` on the cluster of a kubectl, and ends it in order if it still runs at the end.

    Args:
        kubectl: Whose cluster.
        words: The command.
        log: Takes what it writes.
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
