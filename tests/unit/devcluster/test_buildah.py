import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from devcluster import buildah
from devcluster.shell import ClusterError

OCI_INDEX = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "quay.io/a/b:v1"}}]}


def archive(folder: Path, files: Mapping[str, object], prefix: str = "") -> Path:
    path = folder / "thing.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"{prefix}{name}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"manifest": [{"RepoTags": ["example.com/x:v2"]}]}, ("docker-archive", "example.com/x:v2")),
        ({"manifest": [{"RepoTags": None}]}, ("docker-archive", "thing:latest")),
        ({"index": OCI_INDEX}, ("oci-archive", "quay.io/a/b:v1")),
        ({"index": {"manifests": [{}]}}, ("oci-archive", "thing:latest")),
    ],
)
def test_an_archive_s_image_keeps_its_name(
    tmp_path: Path, files: dict[str, object], expected: tuple[str, str]
) -> None:
    assert buildah.archived_name(archive(tmp_path, files)) == expected
    assert buildah.archived_name(archive(tmp_path, files, "./")) == expected  # As with tar -cf FILE .


@pytest.mark.parametrize("kind", ["another tar", "not a tar", "empty"])
def test_a_file_that_is_not_an_image_archive_is_refused(tmp_path: Path, kind: str) -> None:
    path = archive(tmp_path, {"package": {}} if kind == "another tar" else {})
    if kind == "not a tar":
        path.write_text("FROM scratch\n")
    with pytest.raises(ClusterError, match=r"thing\.tar is not a Docker or OCI archive .*'docker save'"):
        buildah.archived_name(path)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("quay.io/pilothouse/x:v1", "pilothouse/x:v1"),
        ("docker.io/busybox", "library/busybox"),
        ("docker.io/library/python:3.13-slim", "library/python:3.13-slim"),
        ("localhost:5001/x", "x"),
        ("localhost/a/b", "a/b"),
        ("busybox:1", "library/busybox:1"),
        ("rancher/local-path-provisioner:v1", "rancher/local-path-provisioner:v1"),
    ],
)
def test_every_registry_s_names_map_to_the_local_registry(name: str, path: str) -> None:
    assert buildah.registry_path(name) == path


def test_pip_s_settings_are_those_of_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example.com/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    options = buildah.host_volumes(tmp_path / "own")
    settings = (tmp_path / "own" / "pip.conf").read_text()
    assert "index-url = https://mirror.example.com/simple\n" in settings
    assert f"--volume={tmp_path}:{tmp_path}:ro" in options
    assert (tmp_path / "own" / "pip.conf").stat().st_mode & 0o077 == 0
