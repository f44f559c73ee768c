"""Cutting a release: images built and pushed, their digests pinned, bundle and catalog made from those."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from devcluster.folders import CHECKOUT
from release import bundle, catalog, documents, images, publish
from release.packages import IMAGE, PACKAGES


def cut() -> Iterator[Path]:
    """Makes the present sources the release, and yields each committed file that this changed.

    The images go to the registry of the present target; where they are to be pulled from by the world, they
    are copied to with their digests unchanged.

    Raises:
        ClusterError: no cluster or registry, or a tool failed.
    """
    images.pin(f"{IMAGE}@{_digest(publish.operator_image())}")
    yield images.PINS
    for package in PACKAGES.values():
        yield from documents.write(bundle.files(package), [package.bundle])
        bundle.validate(package.bundle)
        images.pin(f"{package.bundle_image}@{_digest(publish.bundle_image(package, CHECKOUT))}")
        yield from documents.write(catalog.files(package), [package.catalog])
    catalog.validate()


def _digest(reference: str) -> str:
    return reference.partition("@")[2]
