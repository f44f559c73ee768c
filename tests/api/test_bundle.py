"""The committed bundle and catalog, by the tools that make them and hold them to OLM's rules."""

from pathlib import Path

import pytest

from devcluster.shell import ClusterError
from release import bundle, catalog
from release.documents import check
from release.packages import PACKAGES, Package

PACKAGE = PACKAGES["pilothouse-flights"]


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_bundle_is_what_operator_sdk_makes_of_its_sources(package: Package) -> None:
    check(bundle.files(package), "inv bundle", [package.bundle])


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_bundle_is_valid_without_a_warning(package: Package) -> None:
    bundle.validate(package.bundle)


def test_a_warning_is_an_error(tmp_path: Path) -> None:
    bundle.substitute(PACKAGE.bundle, f"quay.io/pilothouse/other@sha256:{'a' * 64}", tmp_path / "b")
    bundle.validate(tmp_path / "b")
    path = tmp_path / "b" / "manifests" / f"{PACKAGE.name}.clusterserviceversion.yaml"
    path.write_text(path.read_text().replace("  minKubeVersion: 1.33.0\n", ""))
    with pytest.raises(ClusterError, match=r"warning: .*minKubeVersion"):
        bundle.validate(tmp_path / "b")


@pytest.mark.parametrize("package", PACKAGES.values(), ids=list(PACKAGES))
def test_catalog_is_what_opm_makes_of_the_bundle(package: Package) -> None:
    check(catalog.files(package), "inv catalog", [package.catalog])


def test_catalog_is_valid(tmp_path: Path) -> None:
    catalog.validate()
    one, two = (f"quay.io/pilothouse/{name}@sha256:{'a' * 64}" for name in ("one", "two"))
    catalog.substitute(PACKAGE, image=one, bundle_image=two, output=tmp_path / "c" / PACKAGE.name)
    catalog.validate(tmp_path / "c")
