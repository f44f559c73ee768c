"""The images of etcd: like the official ones, in every version, named by digest on the local cluster."""

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from devcluster import base_images, etcd_images
from devcluster.cluster import Cluster
from devcluster.kubectl import Kubectl
from devcluster.oci import Blobs, Image, Registry
from devcluster.target import Target

IMAGES = {name: base_images.IMAGES[name] for name in base_images.ETCD_IMAGES}


class LocalCluster:
    """A cluster of which only the registry is used. The registry records what is pushed."""

    registry = Registry("127.0.0.1:9")


@pytest.fixture
def blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """An empty cache. The programs in it are small files with their names as content."""

    def program(name: str) -> Path:
        file = tmp_path / name
        file.write_text(name)
        return file

    monkeypatch.setattr("devcluster.toolchain.binary", program)
    monkeypatch.setattr("devcluster.toolchain.build", lambda tool: tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Blobs(tmp_path / "cache" / "pilothouse" / "images")


def target(cluster: object) -> Target:
    kubectl = Kubectl(Path("kubectl"), Path("/somewhere"))
    return Target(Path("/somewhere"), kubectl, cast("Cluster | None", cluster), "registry.example.com/team")


def test_there_is_the_sample_s_version_and_the_way_from_it_through_every_minor() -> None:
    versions = [tuple(map(int, version.split("."))) for version in etcd_images.versions()]
    assert versions[0] == (3, 5, 0)
    assert versions == sorted(versions)
    assert [version[:2] for version in versions] == [(3, 5), (3, 5), (3, 6), (3, 7)]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_the_three_programs_and_no_shell(name: str, blobs: Blobs) -> None:
    [layer] = IMAGES[name].layers(blobs)
    with tarfile.open(blobs.path(layer.digest)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        programs = [path for path in members if "bin/" in path]
        assert programs == [f"usr/local/bin/{program}" for program in ("etcd", "etcdctl", "etcdutl")]
        etcd = tar.extractfile("usr/local/bin/etcd")
        assert etcd is not None
        assert etcd.read().decode() == name  # The program of this version is named like its tool.
    # Any user can run the programs and read the files.
    assert all(member.mode & 0o004 for member in members.values())
    assert all(members[path].mode & 0o001 for path in programs)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_starts_etcd_without_an_entrypoint(name: str, blobs: Blobs) -> None:
    image = base_images.get(name)
    config = json.loads(blobs.path(image.config.digest).read_bytes())["config"]
    assert config["Cmd"] == ["/usr/local/bin/etcd"]
    assert not {"Entrypoint", "User"} & config.keys()


def test_the_local_cluster_gets_every_version_by_digest(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: dict[str, str] = {}

    def push(self: Registry, blobs: Blobs, image: Image, repository: str, tags: Sequence[str]) -> None:
        pushed.update({f"{repository}:{tag}": image.digest for tag in tags})

    monkeypatch.setattr(Registry, "push", push)
    references = etcd_images.ensure(target(LocalCluster()))
    assert tuple(references) == etcd_images.versions()
    assert len(set(references.values())) == len(references)
    # A manifest finds the same image by the tag that the operator derives from spec.version.
    assert references == {
        version: f"quay.io/coreos/etcd@{pushed[f'coreos/etcd:v{version}']}" for version in references
    }


def test_another_cluster_pulls_the_official_images_and_nothing_is_built(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("built")

    monkeypatch.setattr("devcluster.toolchain.build", refuse)
    references = etcd_images.ensure(target(None))
    assert references["3.5.0"] == "quay.io/coreos/etcd:v3.5.0"
    assert tuple(references) == etcd_images.versions()
