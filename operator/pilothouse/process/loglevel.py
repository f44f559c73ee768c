"""The level of the log, changed while the operator runs.

A file says it, usually a ConfigMap's key that is mounted into the pod. A changed ConfigMap is in the pod
within about a minute (the kubelet's sync period), in every replica, and holds for the pods that come after.
It needs no right in the cluster, no open port, and no shell in the image.
"""

import asyncio
import logging
from pathlib import Path

from pilothouse.kube import RotatedFiles
from pilothouse.telemetry import set_level

log = logging.getLogger(__name__)

PERIOD = 5.0


async def follow_level(file: Path, usual: str) -> None:
    """Keeps the level as the file says, until cancelled.

    Args:
        file: Holds one word: debug, info, warning or error. It may be missing and come later.
        usual: The level while it is missing or empty.
    """
    content = RotatedFiles([file], lambda: _read(file))
    said = ""
    while True:
        says = content.get()
        if says != said:
            said = says
            _apply(says or usual, file)
        await asyncio.sleep(PERIOD)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        return ""


def _apply(level: str, file: Path) -> None:
    try:
        set_level(level)
    except ValueError as error:
        log.warning("the log's level stays as it is: %s says otherwise, but the %s", file, error)
    else:
        log.warning("log level changed to %s", level.lower())
