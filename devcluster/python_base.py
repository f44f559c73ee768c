"""Builds the file system of the image python:3.13-slim: Debian trixie with Python 3.13 and pip."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from devcluster.shell import CommandError, run

_SUITE = "trixie"
_SCHEMES = ("http", "https")
#: With pip, so that the build stage of a Dockerfile works as with docker.io/library/python.
_PACKAGES = ("python3", "python3-pip", "ca-certificates")
#: Folders that no container reads, two fifths of the tree.
_DROPPED = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian",
    "var/cache/apt", "var/cache/debconf", "var/lib/apt/lists", "var/log", "debootstrap", "dev", "tmp",
)  # fmt: skip
_EMPTY = {"dev": 0o755, "tmp": 0o1777, "var/log": 0o755, "var/lib/apt/lists": 0o755, "var/cache/apt": 0o755}
#: Changes whenever the result should change.
RECIPE = repr((1, _SUITE, _PACKAGES, _DROPPED))


def build(draft: Path) -> Path:
    """Builds the file system in the folder `draft`, which must not exist, and returns a tar file of it.

    The tar file is in the same folder. Takes about 90 s, most of it for downloads.
    """
    root = draft / "root"
    draft.mkdir(parents=True)
    include = "--include=" + ",".join(_PACKAGES)
    # In a mount namespace of its own, so that debootstrap leaves no mount behind, even if it is killed.
    run(
        ["unshare", "--mount", "debootstrap", "--variant=minbase", include, _SUITE, root, *mirror()],
        timeout=1200,
        env={**proxies(), **os.environ},
        log=draft.parent / "python.log",
    )
    _trim(root)
    tar = draft / "layer.tar"
    run(["tar", "--sort=name", "--numeric-owner", "-C", root, "-cf", tar, "."], timeout=120)
    return tar


def mirror() -> list[str]:
    """Returns the Debian mirror of this host's apt. If it is empty, debootstrap uses its default."""
    words = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]
    known = _ask("apt-get", *words).split()
    return [uri for uri in known if uri.startswith(("http://", "https://", "file:"))][:1]


def proxies() -> dict[str, str]:
    """Returns the proxies of this host's apt as environment variables for debootstrap."""
    settings = {
        name: _ask("apt-config", "dump", "--format=%v", f"Acquire::{name}::Proxy") for name in _SCHEMES
    }
    return {f"{name}_proxy": proxy for name, proxy in settings.items() if proxy and proxy != "DIRECT"}


def _ask(*words: str) -> str:
    try:
        return run(words, timeout=30).strip()
    except CommandError:  # There is no apt.
        return ""


def _trim(root: Path) -> None:
    for name in _DROPPED:
        shutil.rmtree(root / name, ignore_errors=True)
    for name, mode in _EMPTY.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    # As in docker.io/library/python, pip may install into the system's folders.
    for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    for name, target in (("python", "python3"), ("pip", "pip3")):
        link = root / "usr/local/bin" / name
        if not link.is_symlink():
            link.symlink_to(f"/usr/bin/{target}")
