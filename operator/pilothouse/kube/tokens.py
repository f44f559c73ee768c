"""Bearer tokens, which may change while the process runs."""

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from pilothouse.kube.errors import ConfigError
from pilothouse.kube.files import RotatedFiles
from pilothouse.telemetry.redaction import hide_everywhere

# client-go, transport/token_source.go. The kubelet rotates a projected token after 80 % of its lifetime,
# which is at least ten minutes.
TOKEN_SECONDS = 60.0

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def has_control_character(text: str) -> bool:
    """Returns whether a text contains a control character, such as a newline, which no header may contain."""
    return _CONTROL.search(text) is not None


class TokenSource(Protocol):
    """A source of bearer tokens.

    Attributes:
        may_wait: Whether `token` may wait for a program or a person. The deadlines of requests do not include
            that time.
    """

    may_wait: ClassVar[bool]

    async def token(self, *, refused: bool = False) -> str:
        """Returns the token for the next request. If it is empty, no token is sent.

        Args:
            refused: Whether the server has returned 401 for the last token, so a cached token is outdated.
        """


@dataclass
class StaticToken:
    """A token that never changes."""

    may_wait: ClassVar[bool] = False

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        hide_everywhere(self.value)

    async def token(self, *, refused: bool = False) -> str:
        """Returns the token."""
        return self.value


class FileToken:
    """A token in a rotated file, which is checked every 60 s, and when the server refuses the last token.

    Args:
        path: The file.
    """

    may_wait: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self._path = path
        # Read without a thread, because a projected token is a file of 1 kB in memory (tmpfs).
        self._file = RotatedFiles([path], self._read, clock=_loop_time, period=TOKEN_SECONDS)

    async def token(self, *, refused: bool = False) -> str:
        """Returns the token in the file, which was checked within the last 60 s.

        Raises:
            ConfigError: The file cannot be read, is empty or has a control character in its token, and there
                is no earlier token.
        """
        try:
            return self._file.get(now=refused)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read the token file {self._path}: {error}") from error

    def _read(self) -> str:
        token = self._path.read_text().strip()
        if not token:
            raise ValueError("it is empty")
        if has_control_character(token):
            raise ValueError("the token contains a control character, such as a newline")
        hide_everywhere(token)
        return token


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
