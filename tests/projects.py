"""A project that `pilothouse new` creates, and how its author changes it."""

from pathlib import Path

import pytest

from pilothouse.packaging.names import Names
from pilothouse.packaging.scaffold import create


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A new project, outside of the checkout."""
    folder = tmp_path / "web"
    create(Names("web", "sites.example.com", "WebSite"), folder)
    return folder


def change(file: Path, old: str, new: str) -> int:
    """Changes a file as an author might. Returns the line number of the change."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1
