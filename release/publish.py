"""Builds and pushes what OLM needs: the operators' image, the bundle of each package, the catalog."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from devcluster import images as builder
from devcluster import target as targets
from devcluster.folders import CHECKOUT
from release import bundle, catalog, images
from release.packages import PACKAGES, Package, version

#: Bundles and catalog with the images just built. The committed ones have the released images.
WORK = CHECKOUT / "build" / "publish"


@dataclass(frozen=True)
class Published:
    """The references of the images of one build that the cluster pulls, with their digests.

    Attributes:
        operator: The operators' image.
        catalog: The catalog with the bundle of every package.
    """

    operator: str
    catalog: str


def operator_image() -> str:
    """Builds and pushes the operators' image, and returns its reference with the digest."""
    return builder.build(
        CHECKOUT / "Dockerfile",
        CHECKOUT,
        "pilothouse",
        tag=f"v{version()}",
        build_args={"VERSION": version()},
    )


def bundle_image(package: Package, context: Path) -> str:
    """Builds and pushes the bundle in bundle/PACKAGE of a folder, and returns the image's reference."""
    name = package.bundle_image.rpartition("/")[2]
    return builder.build(CHECKOUT / "bundle.Dockerfile", context, name, build_args={"PACKAGE": package.name})


def catalog_image(operator: str) -> str:
    """Builds and pushes the bundles and the catalog, and returns the catalog's reference.

    Args:
        operator: The reference of the operators' image that the cluster pulls, with its digest.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    for package in PACKAGES.values():
        related = _related(package)
        bundle.substitute(package.bundle, operator, WORK / "bundle" / package.name, related)
        built, output = bundle_image(package, WORK), WORK / "catalog" / package.name
        catalog.substitute(package, image=operator, bundle_image=built, output=output, related=related)
    return builder.build(CHECKOUT / "catalog.Dockerfile", WORK, "catalog", tag=f"v{version()}")


def _related(package: Package) -> Mapping[str, str]:
    """Returns, for each released image that the operator runs, the reference that the cluster pulls."""
    available = package.related(targets.current())
    return {old: available[name] for name, old in images.related(package.config).items()}


def publish() -> Published:
    """Builds and pushes all images that an installation through OLM needs."""
    operator = operator_image()
    return Published(operator, catalog_image(operator))
