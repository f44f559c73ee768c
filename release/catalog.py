"""The file-based catalog: the channels of each package, and its bundles as rendered by opm."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.shell import run
from release import earlier, images
from release.documents import Document, dump, load
from release.packages import CHANNEL, IMAGE, Package, version
from release.versions import precedence

CATALOG = CHECKOUT / "catalog"
_TIMEOUT = 60.0


def files(package: Package) -> dict[Path, str]:
    """Returns the files of a package in the committed catalog and their expected text.

    The bundle of the current version is rendered from the committed bundle. The bundles of earlier releases
    stay as they were released.

    Raises:
        ClusterError: opm failed, the image of the bundle is not pinned, or an earlier release cannot be kept
            (`earlier.catalog_files`).
    """
    bundles = {f"v{number}.yaml": text for number, text in earlier.catalog_files(package).items()}
    rendered = run(
        [
            *(toolchain.binary("opm"), "render", package.bundle, "--output", "yaml"),
            *("--alpha-image-ref-template", images.released(package.bundle_image)),
            *("--migrate-level", "bundle-object-to-csv-metadata"),
        ],
        timeout=_TIMEOUT,
    )
    bundles[f"v{version()}.yaml"] = rendered
    return {
        package.catalog / "package.yaml": dump(_package(package)),
        package.catalog / "channels.yaml": dump(channel(package, [name[1:-5] for name in bundles])),
        **{package.catalog / "bundles" / name: text for name, text in sorted(bundles.items())},
    }


def validate(catalog: Path = CATALOG) -> None:
    """Validates a catalog with `opm validate`.

    Raises:
        ClusterError: The catalog is not valid. The text is opm's output.
    """
    run([toolchain.binary("opm"), "validate", catalog], timeout=_TIMEOUT)


def substitute(
    package: Package, *, image: str, bundle_image: str, output: Path, related: Mapping[str, str] | None = None
) -> None:
    """Writes a copy of a package's folder in the committed catalog with other images. Needs no tools.

    Args:
        package: The package.
        image: The reference of the operator's image that the cluster pulls, with a digest.
        bundle_image: The same for the bundle's image.
        output: The package's folder in the new catalog. Existing files are replaced.
        related: The new reference for each released image that the operator runs. Default: those stay.

    Raises:
        ClusterError: An image has no digest.
    """
    images.require_digest(image)
    images.require_digest(bundle_image)
    shutil.rmtree(output, ignore_errors=True)
    references = {
        images.released(IMAGE): image,
        images.released(package.bundle_image): bundle_image,
        **(related or {}),
    }
    images.substitute(package.catalog, references, output)


def _package(package: Package) -> Document:
    csv = load(package.bundle / "manifests" / f"{package.name}.clusterserviceversion.yaml")
    return {
        "schema": "olm.package",
        "name": package.name,
        "defaultChannel": CHANNEL,
        "description": csv["spec"]["description"],
        "icon": {
            "base64data": csv["spec"]["icon"][0]["base64data"],
            "mediatype": csv["spec"]["icon"][0]["mediatype"],
        },
    }


def channel(package: Package, versions: list[str]) -> Document:
    """Returns the channel's upgrade graph: a chain of all versions, and a direct upgrade to the newest."""
    entries: list[Document] = []
    ordered = sorted(versions, key=precedence)
    for before, present in zip([None, *ordered], ordered, strict=False):
        entry: Document = {"name": package.csv_of(present)}
        if before is not None:
            # opm requires a connected graph, hence the chain. The range allows any upgrade in one step.
            entry["replaces"] = package.csv_of(before)
            entry["skipRange"] = f">={ordered[0]} <{present}"
        entries.append(entry)
    return {"schema": "olm.channel", "package": package.name, "name": CHANNEL, "entries": entries}
