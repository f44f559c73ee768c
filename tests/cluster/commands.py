"""The commands of this checkout, as a person gives them."""

from __future__ import annotations

import os
import subprocess
import sys

from devcluster.folders import CHECKOUT
from devcluster.kubectl import Kubectl


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
        [sys.executable, "-m", "invoke", *words],
        cwd=CHECKOUT,
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        umask=umask,
    )
