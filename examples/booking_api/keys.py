"""The API keys that the service accepts."""

import asyncio
import hmac
import os
from pathlib import Path


class ApiKeys:
    """API keys from a file, one per line, and a fixed key. The file is read again when it changes.

    While a key is rotated, the file can contain the old and the new key, so that no client is rejected.

    Args:
        file: The file. None if only `fixed` is accepted.
        fixed: A key that is always accepted. Empty if there is none.
    """

    def __init__(self, file: Path | None, fixed: str = "") -> None:
        self.file = file
        self.fixed = fixed
        self._keys: list[str] = [fixed] if fixed else []
        self._seen: tuple[int, int] | None = None

    async def accepts(self, key: str) -> bool:
        """Returns whether this is one of the keys.

        Raises:
            OSError: The file cannot be read.
        """
        if self.file:
            await asyncio.to_thread(self._refresh, self.file)
        presented = key.encode()
        return any(hmac.compare_digest(presented, known.encode()) for known in self._keys)

    def _refresh(self, file: Path) -> None:
        stat = os.stat(file)
        seen = (stat.st_ino, stat.st_mtime_ns)
        if seen != self._seen:
            lines = file.read_text().splitlines()
            self._keys = [key for line in [self.fixed, *lines] if (key := line.strip())]
            self._seen = seen
