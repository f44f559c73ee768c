"""Earlier releases in the catalog: recorded from git, kept byte for byte, and checked without git."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster.shell import ClusterError
from release import catalog, documents, earlier, images, packages, revisions
from release.packages import IMAGE, PACKAGES

FLIGHTS = PACKAGES["pilothouse-flights"]
ETCD = PACKAGES["pilothouse-etcd"]
IDENTITY = {
    f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


@dataclass(frozen=True)
class Repository:
    """A repository with the files that releases are recorded from."""

    folder: Path

    def git(self, *words: str) -> str:
        """Runs git in the repository."""
        environment = {**os.environ, **IDENTITY, "GIT_CONFIG_GLOBAL": "/dev/null"}
        done = subprocess.run(
            ["git", "-C", self.folder, *words], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, name: str, text: str) -> Path:
        """Writes a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def version(self, number: str) -> None:
        """Sets the version of the project."""
        self.write("pyproject.toml", f'[project]\nversion = "{number}"\n')

    def commit(self) -> str:
        """Commits everything and returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "x")
        return self.git("rev-parse", "HEAD")

    def release(self, number: str, *names: str) -> str:
        """Commits a release of packages, each with images of its own, and returns the commit."""
        self.version(number)
        digest = f"sha256:{number.replace('.', '').rjust(64, '0')}"
        pinned = [IMAGE, *(PACKAGES[name].bundle_image for name in names)]
        entries = [{"name": name, "digest": digest} for name in pinned]
        self.write("config/base/images/kustomization.yaml", documents.dump({"images": entries}))
        for name in names:
            text = f"image: {PACKAGES[name].bundle_image}@{digest}\noperator: {IMAGE}@{digest}\n"
            self.write(f"catalog/{name}/bundles/v{number}.yaml", text)
        return self.commit()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository that the release tooling takes for the checkout."""
    found = Repository(tmp_path / "repository")
    found.write("release/earlier.yaml", "releases: []\n")
    found.git("init", "--quiet")
    use(found.folder, monkeypatch)
    return found


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a folder the checkout of the release tooling."""
    for module in (earlier, revisions, packages):
        monkeypatch.setattr(module, "CHECKOUT", folder)
    monkeypatch.setattr(earlier, "FILE", folder / "release" / "earlier.yaml")
    monkeypatch.setattr(images, "PINS", folder / "config" / "base" / "images" / "kustomization.yaml")


def test_the_committed_catalog_has_the_earlier_releases_as_they_were_released() -> None:
    assert earlier.releases_of(FLIGHTS)[0].version == "0.1.0"
    assert "0.1.0" not in {release.version for release in earlier.releases_of(ETCD)}
    for package in PACKAGES.values():
        files = {
            package.catalog / "bundles" / f"v{number}.yaml": text
            for number, text in earlier.catalog_files(package).items()
        }
        assert documents.different(files) == []


def test_a_channel_has_the_earlier_releases() -> None:
    for package in PACKAGES.values():
        versions = [release.version for release in earlier.releases_of(package)]
        committed = documents.load(package.catalog / "channels.yaml")
        assert committed == catalog.channel(package, [*versions, package.version])


def test_a_recorded_release_stays_as_it_was_released(repository: Repository) -> None:
    commit = repository.release("1.0.0", FLIGHTS.name)
    file = FLIGHTS.catalog / "bundles" / "v1.0.0.yaml"
    released = file.read_text()
    repository.version("1.1.0")
    assert earlier.record(commit).catalog.keys() == {FLIGHTS.name}
    assert earlier.catalog_files(FLIGHTS) == {"1.0.0": released}
    assert earlier.catalog_files(ETCD) == {}
    file.write_text(released + "# edited\n")
    assert earlier.catalog_files(FLIGHTS) == {"1.0.0": released}
    file.unlink()
    assert earlier.catalog_files(FLIGHTS) == {"1.0.0": released}


def test_a_release_is_recorded_once(repository: Repository) -> None:
    commit = repository.release("1.0.0", FLIGHTS.name)
    other = repository.release("1.0.0", FLIGHTS.name, ETCD.name)
    repository.version("1.1.0")
    earlier.record(commit[:8])
    text = earlier.FILE.read_text()
    earlier.record(commit)
    assert earlier.FILE.read_text() == text
    with pytest.raises(ClusterError, match=f"1.0.0 is already recorded with the commit {commit}"):
        earlier.record(other)


def test_a_release_records_those_before_by_the_last_commit_of_their_files(repository: Repository) -> None:
    first = repository.release("1.0.0", FLIGHTS.name)
    second = repository.release("1.1.0", FLIGHTS.name, ETCD.name)
    repository.write("README.md", "later")
    repository.commit()
    repository.version("1.2.0")
    with pytest.raises(ClusterError, match=r"v1\.0\.0\.yaml is of neither .*/inv image\.keep"):
        earlier.catalog_files(FLIGHTS)
    assert [release.commit for release in earlier.record_previous()] == [first, second]
    assert earlier.record_previous() == []
    assert [*earlier.catalog_files(FLIGHTS)] == ["1.0.0", "1.1.0"]
    assert [*earlier.catalog_files(ETCD)] == ["1.1.0"]


def test_an_earlier_release_is_never_released_again(repository: Repository) -> None:
    commit = repository.release("1.0.0", FLIGHTS.name)
    with pytest.raises(ClusterError, match=r"has the current version 1\.0\.0"):
        earlier.record(commit)
    repository.version("1.1.0")
    earlier.record(commit)
    repository.version("1.0.0")
    for again in (earlier.record_previous, lambda: earlier.catalog_files(FLIGHTS)):
        with pytest.raises(ClusterError, match=r"1\.0\.0 is an earlier release .* Raise the version"):
            again()


def test_a_file_that_was_edited_is_not_recorded(repository: Repository) -> None:
    repository.release("1.0.0", FLIGHTS.name)
    repository.version("1.1.0")
    file = FLIGHTS.catalog / "bundles" / "v1.0.0.yaml"
    released = file.read_text()
    file.write_text(released + "# edited\n")
    with pytest.raises(ClusterError, match="has changes that are not committed"):
        earlier.record_previous()
    repository.commit()
    with pytest.raises(ClusterError, match=r"last commit that changed .* has the version 1\.1\.0"):
        earlier.record_previous()


def test_a_commit_with_other_pins_than_its_catalog_is_not_a_release(repository: Repository) -> None:
    repository.release("1.0.0", FLIGHTS.name)
    repository.write("config/base/images/kustomization.yaml", images.PINS.read_text().replace("0100", "0200"))
    changed = repository.commit()
    repository.version("1.1.0")
    with pytest.raises(ClusterError, match="is not a release"):
        earlier.record(changed)
    none = repository.commit()
    repository.version("1.2.0")
    with pytest.raises(ClusterError, match=r"has no catalog file of its version 1\.1\.0"):
        earlier.record(none)


def test_a_shallow_clone_checks_releases_but_cannot_restore_them(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.release("1.0.0", FLIGHTS.name)
    repository.version("1.1.0")
    earlier.record(commit)
    repository.commit()
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.folder}", str(clone))
    use(clone, monkeypatch)
    [released] = earlier.catalog_files(FLIGHTS).values()
    (FLIGHTS.catalog / "bundles" / "v1.0.0.yaml").write_text("edited")
    unavailable = f"does not have the commit {commit}. Run 'git fetch --unshallow'"
    with pytest.raises(ClusterError, match=rf"v1\.0\.0\.yaml is missing or was edited.*{unavailable}"):
        earlier.catalog_files(FLIGHTS)
    with pytest.raises(ClusterError, match=unavailable):
        revisions.export(commit, tmp_path / "sources")
    with pytest.raises(ClusterError, match="This clone is shallow"):
        revisions.last_change(FLIGHTS.catalog / "bundles" / "v1.0.0.yaml")
    assert released.startswith("image: ")


def test_without_git_the_error_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    use(tmp_path, monkeypatch)
    with pytest.raises(ClusterError, match=f"Git cannot read {tmp_path}.*Use a clone"):
        revisions.resolve("v1.0.0")


def test_a_commit_is_exported_with_the_same_modes_everywhere(repository: Repository, tmp_path: Path) -> None:
    repository.write("script", "#!/bin/sh\n").chmod(0o755)
    commit = repository.release("1.0.0", FLIGHTS.name)
    repository.write("later", "")
    before = os.umask(0o077)
    try:
        revisions.export(commit, tmp_path / "sources")
    finally:
        os.umask(before)
    assert (tmp_path / "sources" / "script").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "sources" / "pyproject.toml").stat().st_mode & 0o777 == 0o644
    assert not (tmp_path / "sources" / "later").exists()
