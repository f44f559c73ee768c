"""Changes the log level while the operator runs.

The level is read from a file, usually a mounted key of a ConfigMap. The kubelet updates the file in every
replica within about a minute (its sync period), and new pods start with the level. This needs no permission
in the cluster, no open port and no shell in the image.
"""

import asyncio
import logging
from pathlib import Path

from pilothouse.kube import RotatedFiles
from pilothouse.telemetry import set_level

log = logging.getLogger(__name__)

PERIOD = 5.0


async def follow_level(file: Path, usual: str) -> None:
    """Applies the level in the file whenever it changes, until cancelled.

    Args:
        file: Contains one word: debug, info, warning or error. It may be created later.
        usual: The level while the file is missing or empty.
    """
    content = RotatedFiles([file], lambda: _read(file))
    before = ""
    while True:
        level = content.get()
        if level != before:
            before = level
            _apply(level or usual, file)
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
        log.warning("Ignoring the log level in %s: %s", file, error)
    else:
        log.warning("Changed the log level to %s", level.lower())
