"""The invoke tasks that make, try and show what is released."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly
from release import bundle as bundles
from release import catalog as catalogs
from release import cut as cuts
from release import demo as demonstration
from release import documents, images, projects
from release import generate as generated
from release import lock as locks
from release import scorecard as scorecards
from release.packages import PACKAGES, Package, find

_CHECK = {"check": "write nothing; fail when a committed file is not what its sources make of it"}


@task
@speaking_plainly
def demo(_: Context) -> None:
    """Brings up a cluster, installs pilothouse-flights in it through OLM, and books a ticket."""
    demonstration.run()


@task(help={"upgrade": "take the newest versions that pyproject.toml allows"})
@speaking_plainly
def lock(_: Context, upgrade: bool = False) -> None:
    """Writes the lock files in requirements/ from pyproject.toml."""
    locks.lock(upgrade=upgrade)


@task(help=_CHECK)
@speaking_plainly
def generate(_: Context, check: bool = False) -> None:
    """Writes what the types say: CRDs, the API part of ClusterServiceVersions, docs/reference."""
    _put(generated.files(), check, "inv generate")


@task(
    help={
        "package": "one package; all without it",
        "image": "another image than the released one, NAME@sha256:DIGEST; needs --output",
        "output": "a folder outside the sources, for such a bundle",
        **_CHECK,
    }
)
@speaking_plainly
def bundle(_: Context, package: str = "", image: str = "", output: str = "", check: bool = False) -> None:
    """Makes the OLM bundles with operator-sdk, and holds them to its checks: no warning is let pass."""
    for one in _chosen(package):
        if image or output:
            if not (image and output):
                raise ClusterError(
                    "--image and --output go together: the committed bundle has the released image"
                )
            bundles.substitute(one.bundle, image, Path(output) / one.name)
            bundles.validate(Path(output) / one.name)
            print(f"{Path(output) / one.name}: valid, no warning")
            continue
        _put(bundles.files(one), check, "inv bundle", one.bundle)
        bundles.validate(one.bundle)
        print(f"{one.bundle.relative_to(CHECKOUT)}: valid, no warning")


@task(help=_CHECK)
@speaking_plainly
def catalog(_: Context, check: bool = False) -> None:
    """Renders the file-based catalog from the bundles with opm, and holds it to opm's checks."""
    for one in PACKAGES.values():
        _put(catalogs.files(one), check, "inv catalog", one.catalog)
    catalogs.validate()
    print("catalog: valid")


@task(help={"package": "one package; all without it"})
@speaking_plainly
def scorecard(_: Context, package: str = "") -> None:
    """Runs operator-sdk's scorecard on the bundles, in the cluster."""
    for one in _chosen(package):
        for name, state in scorecards.score(one).items():
            print(f"{one.name}  {name:28} {state}")


@task(help={"reference": "NAME@sha256:DIGEST"})
@speaking_plainly
def pin(_: Context, reference: str) -> None:
    """Makes an image the released one; bundle and catalog take it from there."""
    images.pin(reference)


@task
@speaking_plainly
def release(_: Context) -> None:
    """Builds and pushes the images, pins their digests, and makes bundle and catalog from those."""
    for path in cuts.cut():
        print(f"wrote {path.relative_to(CHECKOUT)}")


def _chosen(package: str) -> list[Package]:
    return [find(package)] if package else list(PACKAGES.values())


def _put(files: dict[Path, str], check: bool, command: str, *whole: Path) -> None:
    if check:
        documents.check(files, command, whole)
        return
    for path in documents.write(files, whole):
        print(f"{'wrote' if path.exists() else 'removed'} {path.relative_to(CHECKOUT)}")


image = Collection("image", projects.build, pin, release)
