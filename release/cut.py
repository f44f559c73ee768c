"""Cuts a release: builds and pushes the images, pins their digests, and writes bundles and catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from devcluster import target as targets
from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from release import bundle, catalog, documents, earlier, images, official_images, publish
from release.packages import IMAGE, PACKAGES, Package


def cut(*, local_images: bool = False) -> Iterator[Path]:
    """Cuts a release from the current sources, and yields each committed file that has changed.

    The release before is recorded first, so that the catalog keeps it. The images are pushed to the registry
    of the current cluster. To publish them, copy them to the public registry with their digests unchanged.

    Args:
        local_images: Pin the local cluster's builds of the images that the operators run, for a development
            version. By default, the official images are pinned, whose digests come from their registry.

    Raises:
        ClusterError: There is no cluster or registry, a tool failed, or the release before is unknown.
    """
    related = {package.name: _related(package, local_images) for package in PACKAGES.values()}
    if earlier.record_previous():
        yield earlier.FILE
    images.pin(f"{IMAGE}@{_digest(publish.operator_image())}")
    yield images.PINS
    for package in PACKAGES.values():
        yield from images.pin_related(package.config, related[package.name], official=not local_images)
        yield from documents.write(bundle.files(package), [package.bundle])
        bundle.validate(package.bundle)
        images.pin(f"{package.bundle_image}@{_digest(publish.bundle_image(package, CHECKOUT))}")
        yield from documents.write(catalog.files(package), [package.catalog])
    catalog.validate()


def _related(package: Package, local_images: bool) -> Mapping[str, str]:
    """Returns the references of the images that an operator runs, with their digests."""
    if not local_images:
        try:
            return official_images.resolve(package.official)
        except ClusterError as error:
            raise ClusterError(
                f"{error} For a version that is not published, pass --local-images to pin the images that "
                "the local cluster has built."
            ) from error
    target = targets.current()
    if not target.local:
        raise ClusterError("--local-images requires the local cluster. Unset KUBECONFIG.")
    return package.related(target)


def _digest(reference: str) -> str:
    return reference.partition("@")[2]
