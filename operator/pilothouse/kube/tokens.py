"""Bearer tokens: who we are, as far as it may change while the process runs."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.files import RotatedFiles
from pilothouse.telemetry.redaction import hide_everywhere

# client-go, transport/token_source.go: the kubelet rotates a projected token at 80 % of its life, ten minutes
# at least.
TOKEN_SECONDS = 60.0


class TokenSource(Protocol):
    """Gives the bearer token for the next request."""

    async def token(self, *, refused: bool = False) -> str:
        """Return the token; empty sends none.

        Args:
            refused: the server answered 401 to the last one, so whatever is remembered is stale.
        """


@dataclass
class StaticToken:
    """A token that never changes."""

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        hide_everywhere(self.value)

    async def token(self, *, refused: bool = False) -> str:
        """Return the token."""
        return self.value


class FileToken:
    """A token in a file that is rotated: checked every 60 s, and when the server refuses the last one.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # A projected token is a kilobyte in memory (tmpfs). Reading it costs less than a thread would.
        self._file = RotatedFiles([path], self._read, clock=_loop_time, period=TOKEN_SECONDS)

    async def token(self, *, refused: bool = False) -> str:
        """Return the token as the file had it within the last 60 s.

        Raises:
            ConfigError: The file cannot be read or is empty, and no earlier token is known.
        """
        try:
            return self._file.get(now=refused)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the token file {self._path}: {error}") from error

    def _read(self) -> str:
        token = self._path.read_text().strip()
        if not token:
            raise ValueError("it is empty")
        hide_everywhere(token)
        return token


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
