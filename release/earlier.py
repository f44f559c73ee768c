"""The earlier releases that the catalog keeps. Each has a commit, and its catalog files never change.

`release/earlier.yaml` has the commit of each release and the digests of its catalog files. Such a file names
the images of the release by digest, and it is a copy of the file in that commit. So the files can be checked
without git, and restored byte for byte with it.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from release import images, revisions
from release.documents import dump
from release.packages import IMAGE, PACKAGES, Package, version
from release.versions import precedence

FILE = CHECKOUT / "release" / "earlier.yaml"
_COMMENT = (
    "The earlier releases that the catalog keeps. `inv image.release` and `inv image.keep` write this file."
)


@dataclass(frozen=True)
class Release:
    """An earlier release.

    Attributes:
        version: The version of the project.
        commit: The commit that the images were built from, and that pinned their digests.
        catalog: The digest of the catalog file of each package, by the package's name.
    """

    version: str
    commit: str
    catalog: Mapping[str, str]


def releases() -> list[Release]:
    """Returns the earlier releases, the oldest first."""
    return [Release(**entry) for entry in yaml.safe_load(FILE.read_text())["releases"]]


def releases_of(package: Package) -> list[Release]:
    """Returns the earlier releases that a package is part of."""
    return [release for release in releases() if package.name in release.catalog]


def catalog_files(package: Package) -> dict[str, str]:
    """Returns the catalog files of a package's earlier releases by version, as they were released.

    A file that is missing or was changed is read from the release's commit.

    Raises:
        ClusterError: The current version is an earlier release, the catalog has a file of neither the current
            version nor an earlier release, or a changed file cannot be restored.
    """
    _require_new_version()
    if unrecorded := _unrecorded(package):
        raise ClusterError(
            f"{unrecorded[0].relative_to(CHECKOUT)} is of neither the current version {version()} nor an "
            "earlier release. If it was released, run ./inv image.keep with its commit. Otherwise delete "
            "the file."
        )
    return {release.version: _catalog_file(package, release) for release in releases_of(package)}


def record(revision: str) -> Release:
    """Records the release of a revision, so that the catalog keeps it.

    Args:
        revision: The commit or tag that pinned the images of the release.

    Returns:
        The release, which may have been recorded before.

    Raises:
        ClusterError: This clone does not have the commit, or the commit is not the release of an earlier
            version.
    """
    release = _read(revisions.resolve(revision))
    known = {each.version: each for each in releases()}
    if known.get(release.version, release) != release:
        raise ClusterError(
            f"{release.version} is already recorded with the commit {known[release.version].commit}. A "
            "release does not change; release a new version instead."
        )
    if release.version not in known:
        _write([*known.values(), release])
    return release


def record_previous() -> list[Release]:
    """Records each release in the catalog that is not recorded yet.

    The commit of a release is the last one that changed its catalog files.

    Returns:
        The releases that were recorded now.

    Raises:
        ClusterError: The current version is an earlier release, a file differs from its commit, or its
            commit has another version or is unknown.
    """
    _require_new_version()
    found: dict[str, list[Path]] = {}
    for package in PACKAGES.values():
        for path in _unrecorded(package):
            found.setdefault(path.name, []).append(path)
    ordered = sorted(found.values(), key=lambda paths: precedence(_version_of(paths[0])))
    return [_record_commit_of(paths) for paths in ordered]


def _require_new_version() -> None:
    if version() in {release.version for release in releases()}:
        raise ClusterError(
            f"{version()} is an earlier release in {FILE.relative_to(CHECKOUT)}, so it cannot change. Raise "
            "the version in pyproject.toml."
        )


def _record_commit_of(paths: Sequence[Path]) -> Release:
    """Records the release of the catalog files of one version."""
    commit = revisions.last_change(*paths)
    for path in paths:
        name = path.relative_to(CHECKOUT)
        if revisions.text(commit, path) != path.read_text():
            raise ClusterError(f"{name} has changes that are not committed. Restore it from git.")
        if _version(commit) != _version_of(path):
            raise ClusterError(
                f"The last commit that changed {name} has the version {_version(commit)}. Run "
                "./inv image.keep with the commit that released the file."
            )
    return record(commit)


def _read(commit: str) -> Release:
    """Returns the release of a commit."""
    released = _version(commit)
    if released == version():
        raise ClusterError(
            f"The commit {commit} has the current version {released}. Raise the version in pyproject.toml, "
            "then keep the release."
        )
    found = {}
    for package in PACKAGES.values():
        path = _path(package, released)
        if revisions.exists(commit, path):
            text = revisions.text(commit, path)
            _require_pinned(commit, package, text)
            found[package.name] = _digest(text)
    if not found:
        raise ClusterError(f"The commit {commit} has no catalog file of its version {released}.")
    return Release(released, commit, found)


def _require_pinned(commit: str, package: Package, text: str) -> None:
    """Checks that a catalog file names the images that its commit pins."""
    pins = revisions.text(commit, images.PINS)
    for name in (IMAGE, package.bundle_image):
        if images.pinned(name, pins) not in text:
            raise ClusterError(
                f"The commit {commit} is not a release: the catalog file of {package.name} does not have the "
                f"image {name} that the commit pins."
            )


def _catalog_file(package: Package, release: Release) -> str:
    path, digest = _path(package, release.version), release.catalog[package.name]
    text = path.read_text() if path.exists() else ""
    if _digest(text) == digest:
        return text
    try:
        text = revisions.text(release.commit, path)
    except ClusterError as error:
        raise ClusterError(f"{path.relative_to(CHECKOUT)} is missing or was edited. {error}") from error
    if _digest(text) != digest:
        raise ClusterError(
            f"{path.relative_to(CHECKOUT)} in the commit {release.commit} does not have the digest in "
            f"{FILE.relative_to(CHECKOUT)}. Restore that file."
        )
    return text


def _unrecorded(package: Package) -> list[Path]:
    """Returns the catalog files of neither the current version nor an earlier release."""
    expected = {_path(package, each) for each in (version(), *(r.version for r in releases_of(package)))}
    return sorted({*(package.catalog / "bundles").glob("v*.yaml")} - expected)


def _write(all_releases: Sequence[Release]) -> None:
    ordered = sorted(all_releases, key=lambda release: precedence(release.version))
    FILE.write_text(dump({"releases": [asdict(release) for release in ordered]}, comment=_COMMENT))


def _path(package: Package, number: str) -> Path:
    return package.catalog / "bundles" / f"v{number}.yaml"


def _version_of(path: Path) -> str:
    return path.stem.removeprefix("v")


def _version(commit: str) -> str:
    project = tomllib.loads(revisions.text(commit, CHECKOUT / "pyproject.toml"))
    return str(project["project"]["version"])


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
