"""Builds and pushes what OLM installs from: the operators' image, each package's bundle, the catalog."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from devcluster import images as builder
from devcluster.folders import CHECKOUT
from release import bundle, catalog
from release.packages import PACKAGES, Package, version

#: Bundles and catalog for the images just built; the committed ones name the released images.
WORK = CHECKOUT / "build" / "publish"


@dataclass(frozen=True)
class Published:
    """The images of one build, by the digest references that the cluster pulls.

    Attributes:
        operator: The operators' image.
        catalog: The catalog with every package's bundle.
    """

    operator: str
    catalog: str


def operator_image() -> str:
    """Builds and pushes the operators' image; returns its reference with the digest."""
    return builder.build(
        CHECKOUT / "Dockerfile",
        CHECKOUT,
        "pilothouse",
        tag=f"v{version()}",
        build_args={"VERSION": version()},
    )


def bundle_image(package: Package, context: Path) -> str:
    """Builds and pushes a package's bundle from bundle/PACKAGE in a folder; returns the image's reference."""
    name = package.bundle_image.rpartition("/")[2]
    return builder.build(CHECKOUT / "bundle.Dockerfile", context, name, build_args={"PACKAGE": package.name})


def catalog_image(operator: str) -> str:
    """Builds and pushes the bundles and the catalog for an operators' image; returns the catalog's reference.

    Args:
        operator: The operators' image, with its digest, as the cluster pulls it.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    for package in PACKAGES.values():
        bundle.substitute(package.bundle, operator, WORK / "bundle" / package.name)
        built, output = bundle_image(package, WORK), WORK / "catalog" / package.name
        catalog.substitute(package, image=operator, bundle_image=built, output=output)
    return builder.build(CHECKOUT / "catalog.Dockerfile", WORK, "catalog", tag=f"v{version()}")


def publish() -> Published:
    """Builds and pushes everything that an installation through OLM pulls."""
    operator = operator_image()
    return Published(operator, catalog_image(operator))
