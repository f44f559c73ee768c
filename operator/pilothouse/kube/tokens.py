"""Bearer tokens: who we are, as far as it may change while the process runs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pilothouse.kube.errors import ConfigError

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

    async def token(self, *, refused: bool = False) -> str:
        """Return the token."""
        return self.value


@dataclass
class FileToken:
    """A token in a file that the kubelet rotates: read again every 60 s, and when refused."""

    path: Path
    _value: str = field(default="", repr=False)
    _expires: float = 0.0

    async def token(self, *, refused: bool = False) -> str:
        """Return the token as the file has had it in the last 60 s.

        Raises:
            ConfigError: when the file cannot be read and no earlier token is known.
        """
        now = asyncio.get_running_loop().time()
        if refused or now >= self._expires or not self._value:
            try:
                # A projected token is a kilobyte in memory (tmpfs): reading it costs less than a thread
                # would.
                self._value = self.path.read_text().strip()
            except OSError as error:
                if not self._value:
                    raise ConfigError(
                        f"cannot read the service account token {self.path}: {error}"
                    ) from error
            self._expires = now + TOKEN_SECONDS
        return self._value


@dataclass
class CommandToken:
    """A token from a call that may block, such as an exec plugin: made in a thread, every 60 s."""

    fetch: Callable[[], str] = field(repr=False)
    _value: str = field(default="", repr=False)
    _expires: float = 0.0

    async def token(self, *, refused: bool = False) -> str:
        """Return the token that the call gave within the last 60 s.

        Raises:
            ConfigError: the call failed.
        """
        now = asyncio.get_running_loop().time()
        if refused or now >= self._expires:
            try:
                self._value = await asyncio.to_thread(self.fetch)
            except Exception as error:
                # Whatever a plugin raises: callers know this package's errors only.
                raise ConfigError(f"the kubeconfig's credentials could not be renewed: {error}") from error
            self._expires = now + TOKEN_SECONDS
        return self._value
