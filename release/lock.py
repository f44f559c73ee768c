"""The lock files: all packages of the image and of the development environment, pinned with hashes."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from devcluster.folders import CHECKOUT
from devcluster.shell import run

#: The arguments of uv for each lock file.
_LOCKS = {
    # What the framework needs. The wheel has a copy.
    "runtime.txt": ("pyproject.toml",),
    # What is in the image of our operators.
    "image.txt": ("--constraints", "requirements/runtime.txt", "--group", "operators", "pyproject.toml"),
    "build.txt": ("--group", "build"),
    "dev.txt": ("--group", "dev", "--all-extras", "pyproject.toml"),
    "bench.txt": ("--group", "bench", "pyproject.toml"),
    # Without the framework, which does not run there.
    "bench-ansible.txt": ("--group", "bench-ansible"),
}


def lock(*, upgrade: bool = False) -> None:
    """Writes requirements/*.txt from pyproject.toml.

    Args:
        upgrade: Use the newest versions that pyproject.toml allows. Otherwise pins that still fit stay.
    """
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
