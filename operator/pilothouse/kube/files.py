"""Files that are rotated while the process runs: mounted Secrets, ConfigMaps and service account tokens.

The kubelet updates a mounted volume by swapping a symbolic link, so all its files change at the same time.
Other tools replace files one by one, so a certificate may have the wrong key for a moment.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar, cast

log = logging.getLogger(__name__)

T = TypeVar("T")

# Identifies a version of a file: modification time, size, inode. None: the file does not exist.
Stamp = tuple[int, int, int] | None


class RotatedFiles(Generic[T]):
    """A value that is read from files, and read again when one of them has changed.

    If changed files cannot be read, the last valid value stays in use, and a warning is logged once. The next
    check reads them again.

    Args:
        paths: The files. The value is read again when any of them has changed.
        read: Reads the value. It raises OSError (which includes ssl.SSLError) or ValueError if the files are
            unusable.
        clock: Returns the time in seconds.
        period: The minimum time between two checks of the files, in seconds. 0: check at each call.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        read: Callable[[], T],
        *,
        clock: Callable[[], float] = time.monotonic,
        period: float = 0.0,
    ) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._clock = clock
        self._period = period
        self._value: T | None = None
        self._stamps: tuple[Stamp, ...] = ()
        self._next_check = 0.0
        self._warning = ""

    def get(self, *, now: bool = False) -> T:
        """Returns the current value.

        Args:
            now: Whether to check the files even if the period is not over, because a server refused the
                value.

        Raises:
            OSError: A file cannot be read, and there is no earlier value.
            ValueError: A file has unusable content, and there is no earlier value.
        """
        current = self._clock()
        if self._value is None or now or current >= self._next_check:
            self._next_check = current + self._period
            self._check()
        return cast("T", self._value)

    def _check(self) -> None:
        # Taken before the files are read, so that the next check detects a change in between.
        stamps = tuple(_stamp(path) for path in self._paths)
        if self._value is not None and stamps == self._stamps:
            return
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            if self._value is None:
                raise
            if str(error) != self._warning:
                log.warning("Keeping the last valid content of %s: %s", self, error)
            self._warning = str(error)
            return
        self._stamps, self._warning = stamps, ""

    def __str__(self) -> str:
        return ", ".join(map(str, self._paths))


def _stamp(path: str | Path) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
