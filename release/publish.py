"""Builds and pushes what OLM needs: the operators' image, the bundle of each package, the catalog."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster import images as builder
from devcluster import target as targets
from devcluster.folders import CHECKOUT
from release import bundle, catalog, images, revisions
from release.earlier import Release
from release.packages import IMAGE, PACKAGES, Package, version

#: Bundles and catalog with the images just built. The committed ones have the released images.
WORK = CHECKOUT / "build" / "publish"
#: The same for each earlier release, with the sources of its commit.
EARLIER = CHECKOUT / "build" / "earlier"


@dataclass(frozen=True)
class Published:
    """The references of the images of one build that the cluster pulls, with their digests.

    Attributes:
        operator: The operators' image.
        catalog: The catalog with the bundle of every package.
    """

    operator: str
    catalog: str


def operator_image(source: Path = CHECKOUT, number: str = "") -> str:
    """Builds and pushes the operators' image, and returns its reference with the digest.

    Args:
        source: The folder with the sources.
        number: The version. Default: the current one.
    """
    number = number or version()
    return builder.build(
        source / "Dockerfile", source, "pilothouse", tag=f"v{number}", build_args={"VERSION": number}
    )


def bundle_image(package: Package, context: Path, source: Path = CHECKOUT, number: str = "") -> str:
    """Builds and pushes the bundle in bundle/PACKAGE of a folder, and returns the image's reference.

    Args:
        package: The package.
        context: The folder.
        source: The folder with the Dockerfile.
        number: The version of the bundle. Default: the current one.
    """
    return builder.build(
        source / "bundle.Dockerfile",
        context,
        package.bundle_image.rpartition("/")[2],
        tag=f"v{number or version()}",
        build_args={"PACKAGE": package.name},
    )


def catalog_image(operator: str) -> str:
    """Builds and pushes the bundles and the catalog, and returns the catalog's reference.

    Args:
        operator: The reference of the operators' image that the cluster pulls, with its digest.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    for package in PACKAGES.values():
        related = _related(package, package.config)
        bundle.substitute(package.bundle, operator, WORK / "bundle" / package.name, related)
        built, output = bundle_image(package, WORK), WORK / "catalog" / package.name
        catalog.substitute(package, image=operator, bundle_image=built, output=output, related=related)
    return builder.build(CHECKOUT / "catalog.Dockerfile", WORK, "catalog", tag=f"v{version()}")


def _related(package: Package, config: Path) -> Mapping[str, str]:
    """Returns, for each released image that the operator runs, the reference that the cluster pulls."""
    available = package.related(targets.current())
    return {old: available[name] for name, old in images.related(config).items() if name in available}


def publish() -> Published:
    """Builds and pushes all images that an installation through OLM needs."""
    operator = operator_image()
    return Published(operator, catalog_image(operator))


def publish_earlier(package: Package, release: Release) -> Published:
    """Builds and pushes an earlier release of a package from its commit, with a catalog that ends there.

    In that catalog, the other packages have their current version, so `publish` must have run.

    Args:
        package: The package.
        release: The release.

    Raises:
        ClusterError: This clone does not have the commit, or a build failed.
    """
    work = EARLIER / f"v{release.version}"
    shutil.rmtree(work, ignore_errors=True)
    source = work / "source"
    revisions.export(release.commit, source)
    pins = (source / images.PINS.relative_to(CHECKOUT)).read_text()
    operator = operator_image(source, release.version)
    references = {
        images.pinned(IMAGE, pins): operator,
        **_related(package, source / package.config.relative_to(CHECKOUT)),
    }
    images.substitute(source / "bundle" / package.name, references, work / "bundle" / package.name)
    references[images.pinned(package.bundle_image, pins)] = bundle_image(
        package, work, source, release.version
    )
    shutil.copytree(WORK / "catalog", work / "catalog")
    shutil.rmtree(work / "catalog" / package.name)
    images.substitute(source / "catalog" / package.name, references, work / "catalog" / package.name)
    tag = f"v{release.version}"
    return Published(operator, builder.build(CHECKOUT / "catalog.Dockerfile", work, "catalog", tag=tag))
