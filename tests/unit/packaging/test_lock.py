"""Locking the packages that an author adds, for the host and the image."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from pilothouse.cli.script import main
from pilothouse.packaging import lock as locks
from pilothouse.packaging import projects
from pilothouse.packaging.mistakes import ProjectError
from tests.projects import change

LOCKED = "pyyaml==6.0.3 \\\n    --hash=sha256:00\n"


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replaces uv by one that locks PyYAML. Returns the commands that were run."""
    called: list[list[str]] = []

    def run(command: list[str], *, cwd: Path, **_: Any) -> subprocess.CompletedProcess[str]:
        called.append(command)
        (cwd / command[command.index("--output-file") + 1]).write_text(LOCKED)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return called


def add(project: Path, requirement: str) -> None:
    change(project / "pyproject.toml", "dependencies = [", f'dependencies = ["{requirement}", ')


def test_a_new_project_adds_none(project: Path) -> None:
    assert (project / "requirements.txt").read_text() == (
        "# Written by `pilothouse lock` from the dependencies in pyproject.toml: none.\n"
    )
    locks.require_locked(projects.read(project))


def test_added_packages_are_locked_without_those_of_the_framework(
    project: Path, commands: list[list[str]]
) -> None:
    add(project, "PyYAML>=6")
    with pytest.raises(
        ProjectError, match=r"is out of date: pyproject.toml adds PyYAML>=6. Run `pilothouse lock`"
    ):
        locks.require_locked(projects.read(project))
    assert main(["lock", str(project)]) == 0
    locks.require_locked(projects.read(project))
    assert (project / "requirements.txt").read_text().endswith(f": PyYAML>=6.\n{LOCKED}")
    [command] = commands
    assert "--generate-hashes" in command
    assert "--no-emit-package=aiohttp" in command
    assert command[command.index("--constraints") + 1] == str(locks.RUNTIME)


def test_a_lock_that_is_up_to_date_is_left_alone(
    project: Path, commands: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    add(project, "pyyaml")
    assert main(["lock", str(project)]) == 0
    capsys.readouterr()
    assert main(["lock", str(project)]) == 0
    assert "is up to date" in capsys.readouterr().out


def test_dependencies_that_cannot_be_locked_are_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no version of aiohttp fits\n")

    monkeypatch.setattr(subprocess, "run", run)
    add(project, "aiohttp<3")
    assert main(["lock", str(project)]) == 1
    assert capsys.readouterr().err == (
        "pilothouse: the dependencies of web cannot be locked:\nno version of aiohttp fits\n"
    )
