"""Cuts a release: builds and pushes the images, pins their digests, and writes bundles and catalog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from release import bundle, catalog, documents, images, publish
from release.packages import IMAGE, PACKAGES


def cut() -> Iterator[Path]:
    """Cuts a release from the current sources, and yields each committed file that has changed.

    The images are pushed to the registry of the current cluster. To publish them, copy them to the public
    registry with their digests unchanged.

    Raises:
        ClusterError: There is no cluster or registry, or a tool failed.
    """
    images.pin(f"{IMAGE}@{_digest(publish.operator_image())}")
    yield images.PINS
    for package in PACKAGES.values():
        images.pin_related(package.config, package.related(targets.current()))
        yield from documents.write(bundle.files(package), [package.bundle])
        bundle.validate(package.bundle)
        images.pin(f"{package.bundle_image}@{_digest(publish.bundle_image(package, CHECKOUT))}")
        yield from documents.write(catalog.files(package), [package.catalog])
    catalog.validate()


def _digest(reference: str) -> str:
    return reference.partition("@")[2]
