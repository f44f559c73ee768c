"""The lock files: every package that runs in the image, and all that develops it, pinned with hashes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from devcluster.folders import CHECKOUT
from devcluster.shell import run

#: Lock file -> what it is compiled from.
_LOCKS = {
    "runtime.txt": ("pyproject.toml",),
    "build.txt": ("--group", "build"),
    "dev.txt": ("--group", "dev", "--all-extras", "pyproject.toml"),
    "bench.txt": ("--group", "bench", "pyproject.toml"),
    # Without the runtime: nothing of ours runs there.
    "bench-ansible.txt": ("--group", "bench-ansible"),
}


def lock(*, upgrade: bool = False) -> None:
    """Writes requirements/*.txt from pyproject.toml; pins that still fit stay, unless told to upgrade."""
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    for name, sources in _LOCKS.items():
        command: list[str | Path] = [
            *(
                uv,
                "pip",
                "compile",
                "--quiet",
                "--universal",
                "--python-version",
                "3.11",
                "--generate-hashes",
            ),
            *(
                "--no-header",
                "--no-annotate",
                "--output-file",
                f"requirements/{name}",
                *sources,
            ),
        ]
        run([*command, *(["--upgrade"] if upgrade else [])], timeout=300, cwd=CHECKOUT)
