"""Pinned images, and copies of bundle and catalog with other images."""

from pathlib import Path

import pytest
import yaml

import pilothouse
from devcluster import etcd_images
from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from release import bundle, catalog, images
from release.documents import tree
from release.packages import IMAGE, PACKAGES, version

PACKAGE = PACKAGES["pilothouse-flights"]
OTHER = f"registry.example/other@sha256:{'a' * 64}"
OTHER_BUNDLE = f"registry.example/other-bundle@sha256:{'b' * 64}"


def test_released_images_are_named_by_digest() -> None:
    assert images.released(IMAGE).startswith(f"{IMAGE}@sha256:")
    with pytest.raises(ClusterError, match="has no image"):
        images.released("quay.io/x")


def test_pin_takes_a_digest_and_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "kustomization.yaml"
    pins.write_text(images.PINS.read_text())
    monkeypatch.setattr(images, "PINS", pins)
    kept = images.released(PACKAGE.bundle_image)
    images.pin(f"{IMAGE}@sha256:{'c' * 64}")
    assert images.released(IMAGE) == f"{IMAGE}@sha256:{'c' * 64}"
    assert images.released(PACKAGE.bundle_image) == kept
    assert yaml.safe_load(pins.read_text())["kind"] == "Component"
    with pytest.raises(ClusterError, match="because a tag can change later"):
        images.pin(f"{IMAGE}:v1")


def test_a_bundle_for_another_image_differs_only_in_the_image(tmp_path: Path) -> None:
    bundle.substitute(PACKAGE.bundle, OTHER, tmp_path / "b")
    assert tree(tmp_path / "b") == {
        path: text.replace(images.released(IMAGE), OTHER) for path, text in tree(PACKAGE.bundle).items()
    }
    assert any(OTHER in text for text in tree(tmp_path / "b").values())


def test_a_bundle_for_a_cluster_names_the_images_of_etcd_that_the_cluster_pulls(tmp_path: Path) -> None:
    package = PACKAGES["pilothouse-etcd"]
    released = images.related(package.config)
    assert [*released] == [f"RELATED_IMAGE_ETCD_{each.replace('.', '_')}" for each in etcd_images.versions()]
    tags = {old: f"quay.io/coreos/etcd:v{number}" for number, old in enumerate(released.values())}
    bundle.substitute(package.bundle, OTHER, tmp_path / "b", tags)
    text = "".join(tree(tmp_path / "b").values())
    assert not any(old in text for old in tags)
    assert all(new in text for new in tags.values())


def test_pinned_images_of_an_operator_have_digests(tmp_path: Path) -> None:
    config = tmp_path / "etcd"
    (config / "manifests").mkdir(parents=True)
    images.pin_related(config, {}, official=True)
    assert images.related(config) == {}
    images.pin_related(config, {"RELATED_IMAGE_X": OTHER}, official=True)
    assert images.related(config) == {"RELATED_IMAGE_X": OTHER}
    with pytest.raises(ClusterError, match="because a tag can change later"):
        images.pin_related(config, {"RELATED_IMAGE_X": "quay.io/x:v1"}, official=True)


@pytest.mark.parametrize("official", [True, False])
def test_the_file_of_pinned_images_states_whether_they_are_official(tmp_path: Path, official: bool) -> None:
    config = tmp_path / "etcd"
    (config / "manifests").mkdir(parents=True)
    images.pin_related(config, {"RELATED_IMAGE_X": OTHER}, official=official)
    assert images.related_are_official(config) is official
    first = (config / "manifests" / "related_images.yaml").read_text().partition("\n")[0]
    assert ("No public registry has these digests" in first) is not official


def test_a_catalog_for_other_images_differs_only_in_the_images(tmp_path: Path) -> None:
    catalog.substitute(PACKAGE, image=OTHER, bundle_image=OTHER_BUNDLE, output=tmp_path / "c")
    text = (tmp_path / "c" / "bundles" / f"v{PACKAGE.csv_name.partition('.v')[2]}.yaml").read_text()
    (document,) = yaml.safe_load_all(text)
    assert document["image"] == OTHER_BUNDLE
    assert {entry["image"] for entry in document["relatedImages"]} == {OTHER, OTHER_BUNDLE}
    assert IMAGE not in text


def test_an_image_without_a_digest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"'quay.io/x:v1' must be NAME@sha256:DIGEST"):
        bundle.substitute(PACKAGE.bundle, "quay.io/x:v1", tmp_path / "b")


def test_plain_manifests_have_the_current_version() -> None:
    (manager,) = yaml.safe_load_all((CHECKOUT / "config/base/manager/manager.yaml").read_text())
    (container,) = manager["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{IMAGE}:v{version()}"
    for package in PACKAGES.values():
        subscriptions = (CHECKOUT / f"config/olm/{package.folder}.yaml").read_text()
        assert f"image: quay.io/pilothouse/catalog:v{version()}\n" in subscriptions
        assert f"\n  name: {package.name}\n" in subscriptions
    airline = (CHECKOUT / "examples/booking_api/deploy/deployment.yaml").read_text()
    assert f"image: quay.io/pilothouse/booking-api:v{version()}\n" in airline


def test_the_framework_the_image_and_the_readme_have_the_current_version() -> None:
    assert pilothouse.__version__ == version()
    assert f"\nARG VERSION={version()}\n" in (CHECKOUT / "Dockerfile").read_text()
    names = [package.csv_name for package in PACKAGES.values()]
    assert f"OLM        installed {' and '.join(names)}\n" in (CHECKOUT / "README.md").read_text()


def test_replacing_a_missing_reference_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not contain"):
        images.substitute(PACKAGE.bundle, {"quay.io/gone": OTHER}, tmp_path)
