"""The folders in use: the checkout, the shared cache, and the state of this checkout's cluster."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The checkout that this file belongs to.
CHECKOUT = Path(__file__).resolve().parent.parent


def cache() -> Path:
    """Returns the cache that all checkouts of this user share: built tools and images. Safe to delete."""
    return _user_folder("XDG_CACHE_HOME", ".cache")


def clusters() -> Path:
    """Returns the parent of the state folders of this user's local clusters, one per checkout."""
    return _user_folder("XDG_STATE_HOME", ".local/state") / "clusters"


def cluster_id(checkout: Path = CHECKOUT) -> str:
    """Returns six hexadecimal digits for the names of a checkout's interfaces, cgroups and folders."""
    return hashlib.sha256(str(checkout).encode()).hexdigest()[:6]


def _user_folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # The XDG Base Directory Specification says to ignore relative paths.
    return (Path(base) if base.startswith("/") else Path.home() / default) / "pilothouse"


def given(path: str) -> Path:
    """Returns a path relative to the folder in which the user ran `inv`, which changes to the checkout."""
    return Path(os.environ.get("INV_CALLED_FROM", ""), path)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock file, so that two checkouts never do the same work at the same time.

    Args:
        path: The lock file. It is created, and not deleted.
        what: The work, such as "building etcd", for the message while another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting: another process is {what} (lock {path})", file=sys.stderr, flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
