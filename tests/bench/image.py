"""The file system of the operators' image, without a container: what is written in Python runs in it.

So everybody has the interpreter of the image. A host's own is another build: one that was made without
profile-guided optimization needs half as long again for the same Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from devcluster import base_images, folders
from devcluster.buildah import host_folders, pip_settings
from devcluster.folders import CHECKOUT
from devcluster.shell import run

ROOT = CHECKOUT / "build" / "bench" / "root"
PYTHON = "/usr/bin/python3"
#: Where the kubelet puts a pod's service account; /var/run leads there.
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
#: Makes the folders that it is given visible inside at the same place, and becomes the command: it keeps the
#: process, and its mounts are gone with it.
_ENTER = """\
set -e
root=$1 account=$2
shift 2
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$account" "$root$0"
while [ "$1" != -- ]; do mount --bind "$1" "$root$1"; shift; done
shift
exec chroot "$root" "$@"
"""
#: Changes whenever the result should.
_RECIPE = "1"
_SHOWN = (CHECKOUT, folders.cache())
#: Finds a package index by name.
_RESOLVER = Path("/etc/resolv.conf")


def inside(
    account: Path, command: Sequence[str | Path], *, shown: Sequence[Path] = _SHOWN
) -> list[str | Path]:
    """A command as it runs in the image, with a service account as a pod has it.

    Needs root, as a cluster does.

    Args:
        account: The folder of the token and what belongs to it.
        command: What is run.
        shown: What is where it is outside: the checkout and the built tools.
    """
    return ["unshare", "--mount", "sh", "-c", _ENTER, ACCOUNT, ROOT, account, *shown, "--", *command]


def packages(name: str) -> Path:
    """Where the packages of a lock file are inside."""
    return Path("/opt") / name


def program(lock: str, name: str) -> Path:
    """Where a program of a lock file's packages is on the host."""
    return _outside(packages(lock)) / "bin" / name


@cache
def python_version() -> str:
    """The version of the image's Python, such as 3.13.5; it must be installed."""
    words = [PYTHON, "-c", "import platform; print(platform.python_version())"]
    return run(["chroot", ROOT, *words], timeout=60).strip()


def install(*locks: str) -> None:
    """Makes the file system, with the packages of lock files, unless it is there.

    Sources are compiled, as they are in the image: no start pays for it.

    Args:
        locks: Names of files in requirements, without `.txt`.
    """
    wanted = _wanted(locks)
    stamp = ROOT / "stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(ROOT, ignore_errors=True)
        ROOT.mkdir(parents=True)
        base_images.unpack("python", ROOT)
        for folder in (ACCOUNT, *_SHOWN):
            _outside(folder).mkdir(parents=True)
        for lock in locks:
            _install(lock)
        _compile(*map(packages, locks))
        stamp.write_text(wanted)
    _compile(CHECKOUT / "operator", CHECKOUT / "tests" / "bench")


def _wanted(locks: Sequence[str]) -> str:
    contents = b"\0".join(_lock_file(lock).read_bytes() for lock in locks)
    return f"{_RECIPE} {base_images.fingerprint(['python'])} {_SHOWN} {hashlib.sha256(contents).hexdigest()}"


def _install(lock: str) -> None:
    """Has the image's own pip, which knows what fits it, install packages; the host's settings lead it."""
    target = packages(lock)
    settings = pip_settings()
    variables = {f"PIP_{key.upper().replace('-', '_')}": value for key, value in settings.items()}
    seen = host_folders(settings)
    for folder in seen:
        _outside(folder).mkdir(parents=True, exist_ok=True)
    _outside(_RESOLVER).touch()
    what = [
        "--only-binary=:all:",
        "--require-hashes",
        f"--target={target}",
        f"--requirement={_lock_file(lock)}",
    ]
    words = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--no-compile", *what]
    run(
        inside(_account(), [PYTHON, *words], shown=(*_SHOWN, *seen, _RESOLVER)),
        timeout=600,
        env={**os.environ, **variables},
    )


def _compile(*sources: Path) -> None:
    run(inside(_account(), [PYTHON, "-m", "compileall", "-q", *sources]), timeout=300)


def _account() -> Path:
    """The service account of one who speaks to no API server."""
    account = ROOT / "nobody"
    account.mkdir(exist_ok=True)
    return account


def _lock_file(lock: str) -> Path:
    return CHECKOUT / "requirements" / f"{lock}.txt"


def _outside(inside: str | Path) -> Path:
    return ROOT / str(inside).lstrip("/")
