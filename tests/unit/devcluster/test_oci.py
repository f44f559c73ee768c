import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from devcluster import base_images
from devcluster.oci import Blobs, Entry


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "images")


def entries(tmp_path: Path) -> list[Entry]:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    return [
        Entry("bin/sh", link="program"),
        Entry("bin/program", source=program),
        Entry("tmp", mode=0o1777),
        Entry("etc/passwd", text="root:x:0:0::/:/bin/sh\n", mode=0o644),
    ]


def test_a_layer_contains_its_entries(blobs: Blobs, tmp_path: Path) -> None:
    layer = blobs.put_layer(entries(tmp_path))
    with tarfile.open(blobs.path(layer.digest)) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert members["bin/program"].mode == 0o755
        assert members["bin/sh"].linkname == "program"
        assert members["tmp"].isdir()
        assert members["tmp"].mode == 0o1777
        content = tar.extractfile("etc/passwd")
        assert content is not None
        assert content.read().startswith(b"root:")


def test_the_same_files_give_the_same_layer_at_any_time(blobs: Blobs, tmp_path: Path) -> None:
    first = blobs.put_layer(entries(tmp_path))
    (tmp_path / "program").touch()
    assert blobs.put_layer(list(reversed(entries(tmp_path)))) == first


def test_an_image_is_named_by_its_content(blobs: Blobs, tmp_path: Path) -> None:
    layer = blobs.put_layer(entries(tmp_path))
    image = blobs.put_image([layer, layer], {"User": "1001"})
    assert image.digest == "sha256:" + hashlib.sha256(image.manifest()).hexdigest()
    config = json.loads(blobs.path(image.config.digest).read_bytes())
    assert config["config"] == {"User": "1001"}
    assert config["rootfs"]["diff_ids"] == [layer.digest, layer.digest]
    assert len(config["history"]) == 2
    assert blobs.put_image([layer, layer], {"User": "0"}).digest != image.digest


def test_no_draft_remains(blobs: Blobs, tmp_path: Path) -> None:
    blobs.put_layer(entries(tmp_path))
    assert not list(blobs.folder.glob(".draft*"))


@pytest.mark.parametrize(
    ("manifest", "names"),
    [
        ("coredns.yaml", ["coredns"]),
        ("storage.yaml", ["local-path-provisioner", "busybox"]),
        ("olm/olm.yaml", ["olm", "opm"]),
    ],
)
def test_manifests_name_the_packed_images(manifest: str, names: list[str]) -> None:
    text = (Path(base_images.__file__).parent / "manifests" / manifest).read_text()
    for name in names:
        image = base_images.IMAGES[name]
        assert f"{image.repository.removeprefix('library/')}:{image.tags[0]}" in text


@pytest.mark.parametrize("name", ["olm", "opm", "scorecard-test", "scorecard-untar", "scorecard-storage"])
def test_images_of_restricted_pods_have_a_numeric_user(name: str) -> None:
    # With a user name, Kubernetes cannot verify that it is not root, and runAsNonRoot refuses the container.
    assert base_images.IMAGES[name].config["User"] == "1001"
