"""The lock files: every package that runs in the image, and all that develops it, pinned with hashes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from devcluster.folders import CHECKOUT
from devcluster.shell import run

_LOCKS = {"runtime.txt": (), "dev.txt": ("--group", "dev"), "bench.txt": ("--group", "bench")}


def lock(*, upgrade: bool = False) -> None:
    """Writes requirements/*.txt from pyproject.toml; pins that still fit stay, unless told to upgrade."""
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    for name, groups in _LOCKS.items():
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
                *groups,
                "--output-file",
                f"requirements/{name}",
                "pyproject.toml",
            ),
        ]
        run([*command, *(["--upgrade"] if upgrade else [])], timeout=300, cwd=CHECKOUT)
