"""Locks the packages that a project adds to the framework's, with hashes, in its requirements.txt.

The project's image installs this file in addition to the packages of the framework's image. An author
installs the same file on the host.
"""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from pilothouse.packaging.mistakes import ProjectError
from pilothouse.packaging.projects import Project

_HERE = Path(__file__).resolve().parent
_PACKAGED = _HERE / "runtime.txt"
# The versions in the framework's image. The wheel has a copy (pyproject.toml, force-include).
RUNTIME = _PACKAGED if _PACKAGED.is_file() else _HERE.parents[2] / "requirements" / "runtime.txt"

# Seconds. A resolution takes about one.
_TIMEOUT = 300.0


def lock(project: Project, *, upgrade: bool = False) -> bool:
    """Writes requirements.txt from the dependencies in pyproject.toml. Returns whether it has changed.

    Args:
        project: The project.
        upgrade: Use the newest versions that pyproject.toml allows. Otherwise pins that still fit stay.

    Raises:
        ProjectError: uv is not installed, or there are no versions that fit together.
    """
    file = project.root / "requirements.txt"
    before = file.read_text() if file.is_file() else ""
    if _own(project):
        _resolve(project, upgrade=upgrade)
    resolved = file.read_text() if _own(project) else ""
    text = f"{_header(project)}\n{resolved}"
    file.write_text(text)
    return text != before


def require_locked(project: Project) -> None:
    """Checks that requirements.txt of a project matches the dependencies in its pyproject.toml.

    Raises:
        ProjectError: The file is missing or out of date.
    """
    file = project.root / "requirements.txt"
    first = file.read_text().partition("\n")[0] if file.is_file() else _header(project, [])
    if first != _header(project):
        raise ProjectError(
            f"{file} is out of date: pyproject.toml adds {', '.join(_own(project)) or 'no packages'}. "
            "Run `pilothouse lock`."
        )


def _own(project: Project) -> list[str]:
    return sorted(each for each in project.dependencies if _name(each) != "pilothouse")


def _header(project: Project, own: list[str] | None = None) -> str:
    names = ", ".join(_own(project) if own is None else own)
    return f"# Written by `pilothouse lock` from the dependencies in pyproject.toml: {names or 'none'}."


def _resolve(project: Project, *, upgrade: bool) -> None:
    """Runs uv to write requirements.txt. Existing pins that still fit stay."""
    command = [
        *(_uv(), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"),
        *("--no-header", "--no-annotate", "--constraints", str(RUNTIME)),
        *(f"--no-emit-package={name}" for name in _present()),
        *("--output-file", "requirements.txt"),
        *(["--upgrade"] if upgrade else []),
        "-",
    ]
    done = subprocess.run(
        command,
        input="\n".join(_own(project)),
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        raise ProjectError(f"the dependencies of {project.name} cannot be locked:\n{done.stderr.strip()}")


def _present() -> Iterator[str]:
    """Yields the names of the packages in the framework's image."""
    for line in RUNTIME.read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==", line):
            yield found[1]


def _uv() -> str:
    beside = Path(sysconfig.get_path("scripts")) / "uv"
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise ProjectError("uv is not installed. It locks the dependencies. Install it: pip install uv")
    return found


def _name(requirement: str) -> str:
    """Returns the normalized package name in a requirement (packaging.python.org, name normalization)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;@]", requirement.strip(), maxsplit=1)[0]).lower()
