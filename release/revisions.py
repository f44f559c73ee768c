"""Reads earlier revisions of this repository from git."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError, CommandError, run, succeeds

_TIMEOUT = 60.0


def resolve(revision: str) -> str:
    """Returns the commit of a revision, such as a tag or the first digits of a commit.

    Raises:
        ClusterError: This clone does not have the commit. The text says how to get it.
    """
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    except CommandError:
        _require_clone(revision)
        fix = "'git fetch --unshallow'" if _shallow() else "'git fetch --tags'"
        raise ClusterError(
            f"This clone does not have the commit {revision}. Run {fix}, then retry."
        ) from None


def exists(commit: str, path: Path) -> bool:
    """Returns whether a commit has a file of the checkout."""
    return succeeds(["git", "-C", CHECKOUT, "cat-file", "-e", _name(commit, path)], timeout=_TIMEOUT)


def text(commit: str, path: Path) -> str:
    """Returns the text of a file of the checkout, as it was in a commit.

    Raises:
        ClusterError: This clone does not have the commit, or the commit does not have the file.
    """
    return _git("show", _name(resolve(commit), path))


def last_change(*paths: Path) -> str:
    """Returns the last commit that changed one of several files of the checkout.

    Raises:
        ClusterError: No commit has them, or the clone is shallow.
    """
    names = " and ".join(str(path.relative_to(CHECKOUT)) for path in paths)
    if _shallow():
        raise ClusterError(
            f"This clone is shallow, so git cannot find the commit that wrote {names}. Run "
            "'git fetch --unshallow'."
        )
    commit = _git("log", "-1", "--format=%H", "--", *map(str, paths)).strip()
    if not commit:
        raise ClusterError(f"There is no commit with {names}. Commit the files, or delete them.")
    return commit


def export(commit: str, folder: Path) -> None:
    """Writes all files of a commit into a folder. The same commit results in the same files and modes.

    Raises:
        ClusterError: This clone does not have the commit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        _git("-c", "tar.umask=0022", "archive", "--format=tar", f"--output={archive.name}", resolve(commit))
        with tarfile.open(archive.name) as tar:
            tar.extractall(folder, filter="data")


def _require_clone(revision: str) -> None:
    try:
        _git("rev-parse", "--git-dir")
    except CommandError as error:
        raise ClusterError(
            f"Git cannot read {CHECKOUT}, which the commit {revision} is needed from. Use a clone of the "
            f"repository. The error was: {error}"
        ) from error


def _shallow() -> bool:
    return _git("rev-parse", "--is-shallow-repository").strip() == "true"


def _name(commit: str, path: Path) -> str:
    return f"{commit}:{path.relative_to(CHECKOUT)}"


def _git(*words: str) -> str:
    return run(["git", "-C", CHECKOUT, *words], timeout=_TIMEOUT)
