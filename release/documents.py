"""The YAML that the release writes: one look for all of it, so that the same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from pilothouse.packaging.documents import Document, dump

__all__ = ["Document", "check", "different", "dump", "load", "tree", "write"]


def load(path: Path) -> Document:
    """The one document in a file."""
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict):
        raise ClusterError(f"{path} does not hold one YAML mapping; restore it from git")
    return document


def write(files: Mapping[Path, str], whole: Sequence[Path] = ()) -> list[Path]:
    """Makes the files what they should be, and returns those that were not.

    Args:
        files: What each should hold.
        whole: Folders that hold these files and no others: any other is removed.
    """
    changed = different(files, whole)
    for path in changed:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
    return changed


def different(files: Mapping[Path, str], whole: Sequence[Path] = ()) -> list[Path]:
    """The files that are missing, hold another text, or should not be there; see `write`."""
    wrong = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    found = (path for folder in whole for path in sorted(folder.rglob("*")) if path.is_file())
    return [*wrong, *(path for path in found if path not in files)]


def check(files: Mapping[Path, str], command: str, whole: Sequence[Path] = ()) -> None:
    """Refuses to go on when a generated file is not what its sources make of it.

    Args:
        files: What should be there.
        command: What writes it: "inv generate".
        whole: See `write`.

    Raises:
        ClusterError: names the files and the command.
    """
    changed = different(files, whole)
    if changed:
        names = ", ".join(str(path.relative_to(CHECKOUT)) for path in changed)
        raise ClusterError(
            f"{names} differ from what their sources say: run ./{command} and commit the result"
        )


def tree(folder: Path) -> dict[Path, str]:
    """Every file below a folder by its path relative to it."""
    return {
        path.relative_to(folder): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }
