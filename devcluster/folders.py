"""Where things are kept: the checkout, the shared cache, the state of this checkout's cluster."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The checkout this file belongs to.
CHECKOUT = Path(__file__).resolve().parent.parent


def cache() -> Path:
    """What every checkout of this user shares and anyone may delete: built tools and images."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def clusters() -> Path:
    """The state folders of all local clusters of this user, one per checkout."""
    return _user_folder("XDG_STATE_HOME", ".local/state") / "clusters"


def cluster_id(checkout: Path = CHECKOUT) -> str:
    """Six hexadecimal digits that name the cluster of a checkout: its interfaces, cgroups and folders."""
    return hashlib.sha256(str(checkout).encode()).hexdigest()[:6]


def _user_folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # The XDG specification tells to ignore relative paths.
    return (Path(base) if base.startswith("/") else Path.home() / default) / "pilothouse"


def given(path: str) -> Path:
    """A path as the person means it who names it: `inv` goes to the checkout, and tells where they are."""
    return Path(os.environ.get("INV_CALLED_FROM", ""), path)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock file, so that two checkouts never do the same work at once.

    Args:
        path: the lock file; it is created and stays.
        what: says on the terminal what is waited for when another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another process is {what} (lock {path})", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
