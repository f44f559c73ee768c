"""Reads and writes the YAML files of a release. The same input gives the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from pilothouse.packaging.documents import Document, dump, dump_all

__all__ = ["Document", "check", "different", "dump", "dump_all", "load", "tree", "write"]


def load(path: Path) -> Document:
    """Returns the single document in a file."""
    document = yaml.safe_load(path.read_text())
    if not isinstance(document, dict):
        raise ClusterError(f"{path} does not contain a single YAML mapping. Restore it from git.")
    return document


def write(files: Mapping[Path, str], whole: Sequence[Path] = ()) -> list[Path]:
    """Writes the files that differ, and returns the paths that have changed.

    Args:
        files: The expected text of each file.
        whole: Folders that contain only these files. All other files in them are removed.
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
    """Returns the files that are missing, differ, or should not exist; see `write`."""
    wrong = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    found = (path for folder in whole for path in sorted(folder.rglob("*")) if path.is_file())
    return [*wrong, *(path for path in found if path not in files)]


def check(files: Mapping[Path, str], command: str, whole: Sequence[Path] = ()) -> None:
    """Checks that the generated files are up to date.

    Args:
        files: The expected text of each file.
        command: The command that writes them: "inv generate".
        whole: See `write`.

    Raises:
        ClusterError: A file is out of date. The text names it and the command.
    """
    changed = different(files, whole)
    if changed:
        names = ", ".join(str(path.relative_to(CHECKOUT)) for path in changed)
        raise ClusterError(
            f"not up to date with the sources: {names}. Run ./{command} and commit the result."
        )


def tree(folder: Path) -> dict[Path, str]:
    """Returns the text of every file below a folder, by its path relative to the folder."""
    return {
        path.relative_to(folder): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }
