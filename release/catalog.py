"""The file-based catalog: each package's channels and, rendered by opm, its bundles."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from devcluster import toolchain
from devcluster.folders import CHECKOUT
from devcluster.shell import run
from release import images
from release.documents import Document, dump, load
from release.packages import CHANNEL, IMAGE, Package, version

CATALOG = CHECKOUT / "catalog"
_TIMEOUT = 60.0


def files(package: Package) -> dict[Path, str]:
    """Every file of a package's part of the committed catalog with the text that it should have.

    Bundles of earlier versions stay as they were published; the present version's is rendered anew from the
    committed bundle.

    Raises:
        ClusterError: opm failed, or the bundle's image is not pinned.
    """
    rendered = run(
        [
            *(toolchain.binary("opm"), "render", package.bundle, "--output", "yaml"),
            *("--alpha-image-ref-template", images.released(package.bundle_image)),
            *("--migrate-level", "bundle-object-to-csv-metadata"),
        ],
        timeout=_TIMEOUT,
    )
    bundles = {path.name: path.read_text() for path in (package.catalog / "bundles").glob("v*.yaml")}
    bundles[f"v{version()}.yaml"] = rendered
    return {
        package.catalog / "package.yaml": dump(_package(package)),
        package.catalog / "channels.yaml": dump(channel(package, [name[1:-5] for name in bundles])),
        **{package.catalog / "bundles" / name: text for name, text in sorted(bundles.items())},
    }


def validate(catalog: Path = CATALOG) -> None:
    """Holds a catalog's folder to `opm validate`.

    Raises:
        ClusterError: what opm said.
    """
    run([toolchain.binary("opm"), "validate", catalog], timeout=_TIMEOUT)


def substitute(package: Package, *, image: str, bundle_image: str, output: Path) -> None:
    """Makes a package's part of a catalog for other images from the committed one. Needs no tool.

    Args:
        package: Whose part.
        image: The operator's image, as the cluster pulls it, with a digest.
        bundle_image: The bundle's image, likewise.
        output: The package's folder in the new catalog; what is there is replaced.
    """
    shutil.rmtree(output, ignore_errors=True)
    references = {
        images.released(IMAGE): image,
        images.released(package.bundle_image): bundle_image,
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
    """The channel's upgrade graph: a chain of all versions, and a direct way from each to the newest."""
    entries: list[Document] = []
    ordered = sorted(versions, key=_precedence)
    for before, present in zip([None, *ordered], ordered, strict=False):
        entry: Document = {"name": f"{package.name}.v{present}"}
        if before is not None:
            # The chain keeps the graph connected, as opm demands; the range makes any upgrade one step.
            entry["replaces"] = f"{package.name}.v{before}"
            entry["skipRange"] = f">={ordered[0]} <{present}"
        entries.append(entry)
    return {"schema": "olm.channel", "package": package.name, "name": CHANNEL, "entries": entries}


def _precedence(text: str) -> tuple[tuple[int, ...], bool, list[tuple[bool, int, str]]]:
    """The order of semantic versions (semver.org, 11): a pre-release comes before its release."""
    core, _, pre = text.partition("+")[0].partition("-")
    numbers = tuple(int(part) for part in core.split("."))
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"\.", pre)] if pre else []
    return numbers, not pre, parts
